"""Naming, loading, saving and hashing models; single files without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from original_layout import write_original
from tiny_models import EOS, WORDS, make_text_encoder, make_tokenizer, make_unet, make_vae

from t2i.catalog import MODELS, find_model, nearest_models
from t2i.errors import ModelError, StorageError, UsageError
from t2i.families.prompts import prompt_chunks
from t2i.schedulers import find_row
from t2i.weights import fetch_model, hash_files, load_model, load_vocabulary, resolve_model, save_folder
from t2i.weights.layout import read_layout
from t2i.weights.safety import Header, read_header
from t2i.weights.single_file import CONFIGS, detect_family, scheduler_changes
from t2i.weights.sources import choose_files
from t2i.weights.tokenizers import clip_vocabulary, load_tokenizer, make_clip_tokenizer

Copy = Callable[[Path], Path]


def equal_state(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


# --- names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", MODELS.values(), ids=lambda row: row.alias)
def test_every_row_is_found_by_every_name(row):
    for name in (row.alias, row.alias.upper(), *row.other_names):
        assert find_model(name) is row
    assert row.defaults.guidance_scale >= 1 and row.defaults.width % 8 == 0
    assert (row.repo is None) == (row.download_bytes == 0)
    if row.repo:
        assert resolve_model(row.repo).known is row


def test_aliases_are_unambiguous():
    names = [name for row in MODELS.values() for name in (row.alias, *row.other_names)]
    assert len(names) == len(set(names))


def test_a_misspelt_alias_names_the_nearest():
    assert "sdxl" in nearest_models("sdxxl")
    with pytest.raises(ModelError, match="no model 'sdxxl'") as caught:
        resolve_model("sdxxl")
    assert "sdxl" in caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "nope",
        "./nope",
        "/no/such/folder",
        "nope.safetensors",
        "a/b/c",
        "https://example.org/x",
        "a\0b",
    ],
)
def test_missing_models_are_one_line_with_exit_code_4(name):
    with pytest.raises(ModelError) as caught:
        resolve_model(name)
    assert caught.value.exit_code == 4 and "\n" not in caught.value.message + caught.value.hint


def test_names_mean_what_they_look_like(tmp_path, tiny_sd1):
    hub = resolve_model("someone/some-model@abc123")
    assert (hub.kind, hub.repo, hub.revision) == ("hub", "someone/some-model", "abc123")
    folder = resolve_model(str(tiny_sd1))
    assert (folder.kind, folder.id, folder.family) == ("folder", "tiny-sd1", "sd1")
    (tmp_path / "m.safetensors").write_bytes(b"")
    assert resolve_model(str(tmp_path / "m.safetensors")).kind == "file"


def test_hints_are_sentences():
    with pytest.raises(ModelError) as caught:
        resolve_model("zzzzzz")
    assert caught.value.hint.endswith("sdxl, sdxl-turbo. A Hub id has the form owner/name")
    with pytest.raises(UsageError) as caught:
        find_row("zzzzzz")
    assert caught.value.hint.endswith("lcm, lms; `t2i schedulers` lists all")


def test_a_model_is_named_in_errors_as_the_person_called_it(tiny_sd1, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path(shutil.copytree(tiny_sd1, "runs/mine/model"))

    def refusal(name=str(folder)):
        with pytest.raises(ModelError) as caught:
            load_model(resolve_model(name))
        return caught.value.message

    config = folder / "unet" / "config.json"
    kept = config.read_text()
    config.write_text(json.dumps({**json.loads(kept), "in_channels": 9}))
    assert refusal().startswith("runs/mine/model: the UNet takes 9 channels")
    config.write_text("{")
    assert refusal() == "runs/mine/model/unet/config.json is damaged: not valid JSON"
    assert refusal(str(tmp_path / folder)).startswith(str(tmp_path / config))
    config.write_text(kept)
    monkeypatch.setattr("t2i.weights.loading.load_tokenizer", lambda *_: (range(10**6), []))
    assert refusal().startswith("runs/mine/model: the tokenizer has 1000000 tokens")
    assert refusal("runs/mine") == "runs/mine is not a Diffusers model folder"
    (tmp_path / "runs" / "x.safetensors").write_bytes(b"x" * 40)
    assert refusal("./runs/x.safetensors") == "runs/x.safetensors is not a safetensors file"


def test_a_training_folder_names_the_model_in_it(tmp_path, tiny_pocket):
    (tmp_path / "runs").mkdir()
    with pytest.raises(ModelError) as caught:
        load_model(resolve_model(str(tmp_path / "runs")))
    assert caught.value.hint == "it needs a model_index.json"
    (tmp_path / "runs" / "model").symlink_to(tiny_pocket)
    (tmp_path / "runs" / "ema.safetensors").touch()
    with pytest.raises(ModelError) as caught:
        load_model(resolve_model(str(tmp_path / "runs")))
    assert caught.value.hint == f"did you mean {tmp_path / 'runs' / 'model'}?"


def test_a_path_that_leads_nowhere_is_no_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "stabilityai").mkdir()
    for name in ("runs/nope", "./nope", "../nope", "/nope/x", "~/nope", "nope/x.safetensors", "runs/a/b"):
        with pytest.raises(
            ModelError, match=f"^there is no model at {name}: no such folder or file"
        ) as caught:
            resolve_model(name)
        assert "owner/name" in caught.value.hint
        assert ("runs/nope@main" in caught.value.hint) == (name == "runs/nope")
    for name in ("owner/name", "runs/nope@main", "stabilityai/stable-diffusion-xl-base-1.0"):
        assert resolve_model(name).kind == "hub"
    (tmp_path / "runs" / "nope").mkdir()
    assert resolve_model("runs/nope").kind == "folder"


@pytest.mark.parametrize("name", ["sd1", "sdxl", "pocket"])
def test_a_vocabulary_is_that_of_the_whole_model(name, request, monkeypatch):
    source = resolve_model(str(request.getfixturevalue(f"tiny_{name}")))
    parts = load_model(source).family.parts
    monkeypatch.setattr("t2i.weights.loading.load_network", None)
    tokenizer, words = load_vocabulary(source)
    assert words == parts.known_words and bool(words) == (name == "pocket")
    for text in ("a red dog", "", "zebra " * 40):
        assert prompt_chunks(tokenizer, text) == prompt_chunks(parts.tokenizers[0], text)


def test_a_model_of_the_hub_is_named_by_its_id(tiny_sd1, tmp_path, monkeypatch):
    commit = tmp_path / ("b" * 40)
    shutil.copytree(tiny_sd1, commit)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(commit))
    config = commit / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_class_embeds": 4}))
    with pytest.raises(ModelError, match=r"^someone/tiny: the UNet wants class labels"):
        load_model(resolve_model("someone/tiny", offline=True))


def test_offline_says_what_to_do(no_network):
    with pytest.raises(ModelError, match="not on this machine") as caught:
        fetch_model(resolve_model("someone/some-model", offline=True))
    assert "pocket" in caught.value.hint
    with pytest.raises(ModelError):
        load_model(resolve_model("sdxl", offline=True))


def test_a_hub_model_is_read_at_one_commit(tiny_sd1, tmp_path, monkeypatch):
    commit, seen = "a" * 40, {}
    files = [path.relative_to(tiny_sd1).as_posix() for path in tiny_sd1.rglob("*") if path.is_file()]
    snapshot = tmp_path / commit
    shutil.copytree(tiny_sd1, snapshot)

    class Info:
        sha = commit
        siblings = tuple(SimpleNamespace(rfilename=name) for name in [*files, "evil.py", "unet/x.bin"])

    def download(repo, revision=None, allow_patterns=None, local_files_only=False):
        seen.update(revision=revision, names=allow_patterns)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda self, repo, revision=None: Info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    source = resolve_model("someone/tiny")
    model = load_model(source)
    assert seen["revision"] == commit and sorted(seen["names"]) == sorted(files)
    assert model.id == f"someone/tiny@{commit}" and model.family.name == "sd1"


def test_choose_files_takes_safetensors_only():
    common = [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "README.md",
        "handler.py",
    ]
    both = [*common, "unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors", "v1-5-pruned.safetensors"]  # fmt: skip
    assert choose_files(both, "a/b") == [
        "model_index.json", "scheduler/scheduler_config.json", "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    half = [*common, "unet/diffusion_pytorch_model.fp16.safetensors"]
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in choose_files(half, "a/b")
    with pytest.raises(ModelError, match="pickled"):
        choose_files([*common, "unet/diffusion_pytorch_model.bin"], "a/b")
    with pytest.raises(ModelError, match="not a Diffusers model"):
        choose_files(["model.safetensors"], "a/b")


def test_naming_a_model_imports_nothing_heavy():
    code = (
        "import sys; from t2i.weights import resolve_model; from t2i.environment import prepare\n"
        "prepare(True); resolve_model('sdxl').defaults; resolve_model('a/b')\n"
        "heavy = ('torch', 'diffusers', 'transformers', 'numpy', 'huggingface_hub')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


# --- loading folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "pocket"])
def test_a_folder_loads_with_the_weights_that_diffusers_loads(name, request, no_network):
    from diffusers import DiffusionPipeline

    folder = request.getfixturevalue(f"tiny_{name}")
    model = load_model(resolve_model(str(folder)))
    theirs = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert model.family.name == name
    assert equal_state(model.unet, theirs.unet) and equal_state(model.vae, theirs.vae)
    assert equal_state(model.family.parts.text_encoders[0], theirs.text_encoder)
    if name == "sdxl":
        assert equal_state(model.family.parts.text_encoders[1], theirs.text_encoder_2)
    assert (
        model.scheduler_config["_class_name"]
        == json.loads((folder / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
    )
    assert not model.unet.training and not any(value.requires_grad for value in model.unet.parameters())


def test_defaults_come_from_the_folder(tiny_pocket, tiny_sd2):
    pocket = load_model(resolve_model(str(tiny_pocket)))
    assert (pocket.defaults.steps, pocket.defaults.guidance_scale, pocket.defaults.scheduler) == (
        5,
        4.0,
        "ddim",
    )
    assert resolve_model(str(tiny_sd2)).defaults.width == 64  # UNet of 8 latents, factor 8
    assert "dog" in pocket.family.parts.known_words


@pytest.mark.parametrize("name", ["sd1", "sdxl", "pocket"])
def test_files_are_exactly_what_loading_opens(name, request, monkeypatch):
    folder = request.getfixturevalue(f"tiny_{name}")
    source = resolve_model(str(folder))
    opened = set()

    def hook(event, arguments):
        if watching and event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
            opened.add(os.fsdecode(arguments[0]))

    watching = True
    sys.addaudithook(hook)
    model = load_model(source)
    watching = False
    inside = {
        Path(item).resolve() for item in opened if Path(item).resolve().is_relative_to(folder.resolve())
    }
    listed = {path.resolve() for path in model.files.values()}
    assert {path for path in inside if path.is_file()} <= listed
    assert listed <= inside | {path for path in listed if path.name in ("tokenizer.json",)}  # read by Rust
    assert set(source.files) == set(model.files)


def test_fp16_files_are_used_when_there_are_no_others(tiny_sd1, copy_model: Copy):
    folder = copy_model(tiny_sd1)
    for path in list(folder.glob("*/*.safetensors")):
        path.rename(path.with_name(path.stem + ".fp16.safetensors"))
    model = load_model(resolve_model(str(folder)))
    assert equal_state(model.unet, load_model(resolve_model(str(tiny_sd1))).unet)
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in model.files


def test_sharded_weights(tiny_sd1, copy_model: Copy):
    folder = copy_model(tiny_sd1)
    model = load_model(resolve_model(str(tiny_sd1)))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    model.unet.save_pretrained(folder / "unet", max_shard_size="300KB")
    sharded = load_model(resolve_model(str(folder)))
    assert len([name for name in sharded.files if name.startswith("unet/") and "-of-" in name]) > 1
    assert "unet/diffusion_pytorch_model.safetensors.index.json" in sharded.files
    assert equal_state(sharded.unet, model.unet)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_and_unexpected_weights_are_named(part, tiny_sd1, copy_model: Copy):
    from safetensors.torch import load_file, save_file

    folder = copy_model(tiny_sd1)
    path = next((folder / part).glob("*.safetensors"))
    state = load_file(path)
    key = sorted(state)[0]
    save_file({name: value for name, value in state.items() if name != key}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{part} lacks weights: .*{key.removeprefix('text_model.')}"):
        load_model(resolve_model(str(folder)))
    save_file({**state, "surprise.weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"unexpected weights: .*surprise"):
        load_model(resolve_model(str(folder)))
    save_file({**state, key: torch.zeros(7, 3)}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        load_model(resolve_model(str(folder)))
    assert part in caught.value.message and "\n" not in caught.value.message


def test_old_end_mark_ids_are_replaced_by_the_vocabularys(tiny_sdxl, copy_model: Copy):
    folder = copy_model(tiny_sdxl)
    path = folder / "text_encoder_2" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "eos_token_id": 2}))
    ours = load_model(resolve_model(str(folder))).family.encode_prompts(["a dog"])
    right = load_model(resolve_model(str(tiny_sdxl))).family.encode_prompts(["a dog"])
    assert torch.equal(ours.pooled_prompt_embeds, right.pooled_prompt_embeds)


# --- saving --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder written by save_folder in fp16, and the parts that it was written from."""
    from tiny_models import SCHEDULER_CONFIGS

    tokenizer = make_tokenizer(max_length=32)
    parts = {
        "unet": make_unet(41), "vae": make_vae(42, levels=3), "tokenizer": tokenizer,
        "text_encoder": make_text_encoder(tokenizer, 43, eos_token_id=2),
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_folder(
        folder, **parts, scheduler_config=SCHEDULER_CONFIGS["pocket"], dtype=torch.float16, known_words=WORDS,
        defaults={"family": "pocket", "width": 32, "height": 32, "steps": 3, "guidance_scale": 2.0},
    )  # fmt: skip
    return folder, parts


def test_a_saved_folder_loads_everywhere_with_equal_weights(saved):
    from diffusers import StableDiffusionPipeline

    folder, parts = saved
    model = load_model(resolve_model(str(folder)))
    theirs = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    encoder = model.family.parts.text_encoders[0]
    for mine, other, made in (
        (model.unet, theirs.unet, parts["unet"]),
        (model.vae, theirs.vae, parts["vae"]),
        (encoder, theirs.text_encoder, parts["text_encoder"]),
    ):
        assert equal_state(mine, other)
        for key, value in made.state_dict().items():
            assert torch.equal(mine.state_dict()[key], value.half().float()), key
    prompt = "a corgi playing a trumpet, zebra!"
    expected = parts["tokenizer"](prompt).input_ids
    assert (
        theirs.tokenizer(prompt).input_ids == expected == model.family.parts.tokenizers[0](prompt).input_ids
    )
    assert theirs.safety_checker is None and model.family.name == "pocket" and model.defaults.steps == 3


def test_saved_text_encoders_keep_their_prefix_and_name_their_marks(saved):
    folder, parts = saved
    keys = read_header(folder / "text_encoder" / "model.safetensors").tensors
    assert keys and all(key.startswith("text_model.") for key in keys)
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    assert config["eos_token_id"] == parts["tokenizer"].convert_tokens_to_ids(EOS) != 2
    assert {
        dtype
        for dtype, _ in read_header(folder / "unet" / "diffusion_pytorch_model.safetensors").tensors.values()
    } == {"F16"}


def test_vocab_and_merges_alone_make_the_same_tokenizer(saved, tmp_path):
    folder, parts = saved
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(folder / "tokenizer" / name, tmp_path / name)
    tokenizer, names = load_tokenizer(tmp_path, 32)
    assert "tokenizer.json" not in names and tokenizer.model_max_length == 32
    prompt = "a blue dog on the left of a trumpet, über-zebra 12"
    assert tokenizer(prompt).input_ids == parts["tokenizer"](prompt).input_ids


def test_saving_replaces_only_when_told(saved, tmp_path, monkeypatch):
    folder, parts = saved
    target = tmp_path / "model"
    shutil.copytree(folder, target)
    (target / "old").write_text("")
    with pytest.raises(StorageError, match="already exists"):
        save_folder(target, **parts, scheduler_config={"_class_name": "DDIMScheduler"})
    assert (target / "old").exists()
    save_folder(target, **parts, scheduler_config={"_class_name": "DDIMScheduler"}, overwrite=True)
    assert not (target / "old").exists() and [path.name for path in tmp_path.iterdir()] == ["model"]

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(StorageError, match="no space"):
        save_folder(target, **parts, scheduler_config={"_class_name": "DDIMScheduler"}, overwrite=True)
    assert read_layout(target).pipeline and [path.name for path in tmp_path.iterdir()] == ["model"]


# --- the shipped configs and vocabulary ----------------------------------------------------------------


def test_clip_vocabulary_gives_the_published_ids():
    vocab, merges = clip_vocabulary()
    assert len(vocab) == 49408 and len(merges) == 48894
    tokenizer = make_clip_tokenizer()
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer.pad_token_id == 49407 and make_clip_tokenizer("!").pad_token_id == 0


@pytest.mark.parametrize(
    ("family", "unet", "encoders"),
    [
        ("sd1", 859_520_964, [123_060_480]),
        ("sd2", 865_910_724, [340_387_840]),
        ("sdxl", 2_567_463_684, [123_060_480, 694_659_840]),
    ],
)
def test_shipped_configs_have_the_published_sizes(family, unet, encoders):
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    folder = CONFIGS / family

    def size(network):
        return sum(value.numel() for value in network.parameters())

    with init_empty_weights():
        assert (
            size(UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(str(folder / "unet"))))
            == unet
        )
        assert size(AutoencoderKL.from_config(AutoencoderKL.load_config(str(folder / "vae")))) == 83_653_863
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        names = ("text_encoder", "text_encoder_2")
        for name, kind, count in zip(names, kinds, encoders, strict=False):
            assert (
                size(kind(CLIPTextConfig(**json.loads((folder / name / "config.json").read_text())))) == count
            )


# --- single files --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Narrow models with the real architecture, in the original layout, with their config folders."""
    root = tmp_path_factory.mktemp("originals")
    return {family: write_original(root, family) for family in ("sd1", "sd2", "sdxl")}


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_single_files_load_with_sockets_blocked(family, originals, no_network, monkeypatch):
    from huggingface_hub import constants

    path, configs, parts = originals[family]
    monkeypatch.setattr("t2i.weights.single_file.CONFIGS", configs.parent)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # nothing goes out even if nobody said offline
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    model = load_model(resolve_model(str(path)))
    assert model.family.name == family and model.id == path.name
    assert equal_state(model.unet, parts["unet"]) and equal_state(model.vae, parts["vae"])
    for mine, made in zip(model.family.parts.text_encoders, parts["encoders"], strict=True):
        assert equal_state(mine, made)
    tokenizer, words = load_vocabulary(resolve_model(str(path)))
    assert words == () and tokenizer("a cat").input_ids == model.family.parts.tokenizers[0]("a cat").input_ids
    embeds = model.family.encode_prompts(["a photo of a cat"]).prompt_embeds
    assert embeds.shape[1] == 77 and bool(torch.isfinite(embeds).all())
    assert model.scheduler_config["prediction_type"] == ("v_prediction" if family == "sd2" else "epsilon")
    assert path.name in model.files and "clip_vocabulary/merges.txt.gz" in model.files
    assert "HF_HUB_OFFLINE" not in os.environ and constants.HF_HUB_OFFLINE is False


def test_a_single_file_that_lacks_weights_names_them(originals, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    path, configs, _ = originals["sd1"]
    monkeypatch.setattr("t2i.weights.single_file.CONFIGS", configs.parent)
    state = load_file(path)
    for key, named in (
        ("model.diffusion_model.time_embed.0.weight", r"unet: time_embedding.linear_1.weight is missing"),
        ("first_stage_model.decoder.conv_in.bias", r"vae: decoder.conv_in.bias is missing"),
        (
            "cond_stage_model.transformer.text_model.final_layer_norm.bias",
            r"text_encoder lacks weights: final",
        ),
    ):
        less = {name: value for name, value in state.items() if name != key}
        save_file(less, tmp_path / "less.safetensors")
        with pytest.raises(ModelError, match=named):
            load_model(resolve_model(str(tmp_path / "less.safetensors")))


CONV = ("F32", (8, 4, 3, 3))
FIRST = "model.diffusion_model.input_blocks.0.0.weight"
WHOLE = {FIRST: CONV, "first_stage_model.a": CONV}


@pytest.mark.parametrize(
    ("tensors", "family"),
    [
        ({**WHOLE, "cond_stage_model.transformer.text_model.x": CONV}, "sd1"),
        ({**WHOLE, "cond_stage_model.model.x": CONV}, "sd2"),
        (
            {**WHOLE, "conditioner.embedders.0.transformer.x": CONV, "conditioner.embedders.1.model.x": CONV},
            "sdxl",
        ),
    ],
)
def test_families_are_told_apart_by_their_tensors(tensors, family):
    assert detect_family(Header(tensors, {}), "x.safetensors") == family


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"lora_unet_down.lora_up.weight": CONV}, "LoRA"),
        ({"model.diffusion_model.joint_blocks.0.x": CONV}, "Stable Diffusion 3"),
        ({"double_blocks.0.img_attn.norm.key_norm.scale": CONV}, "Flux"),
        ({"control_model.x": CONV}, "ControlNet"),
        ({"something": CONV}, "not a Stable Diffusion"),
        ({**WHOLE, FIRST: ("F32", (8, 9, 3, 3))}, "inpainting"),
        ({FIRST: CONV, "first_stage_model.a": CONV}, "no text encoder"),
        ({FIRST: CONV, "cond_stage_model.a": CONV}, "no autoencoder"),
        ({**WHOLE, "conditioner.embedders.0.model.x": CONV}, "refiner"),
    ],
)
def test_other_single_files_are_refused_by_name(tensors, reason):
    with pytest.raises(ModelError, match=reason):
        detect_family(Header(tensors, {}), "x.safetensors")


def test_what_a_file_says_about_its_training_is_believed():
    empty = Header({}, {})
    assert scheduler_changes(empty, "sd1", "x") == {}
    assert scheduler_changes(empty, "sd2", "v2-1_768-ema.safetensors")["prediction_type"] == "v_prediction"
    assert scheduler_changes(empty, "sd2", "v2-1_512-ema.safetensors")["prediction_type"] == "epsilon"
    marked = Header({"v_pred": CONV, "ztsnr": CONV}, {})
    assert scheduler_changes(marked, "sdxl", "x") == {
        "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
    }  # fmt: skip
    assert scheduler_changes(Header({}, {"modelspec.prediction_type": "epsilon"}), "sd2", "x") == {
        "prediction_type": "epsilon"
    }


# --- hashes --------------------------------------------------------------------------------------------


def test_hashes_are_remembered_until_a_file_changes(tmp_path, monkeypatch):
    import hashlib

    file, cache = tmp_path / "weights", tmp_path / "cache" / "hashes.json"
    file.write_bytes(b"one")
    assert hash_files({"w": file}, cache) == {"w": hashlib.sha256(b"one").hexdigest()}
    monkeypatch.setattr("t2i.hashes.sha256_file", lambda path: "read again")
    assert hash_files({"w": file}, cache)["w"] != "read again"
    assert hash_files({"w": file}, cache, fresh=True)["w"] == "read again"
    file.write_bytes(b"two!")
    monkeypatch.undo()
    assert hash_files({"w": file}, cache)["w"] == hashlib.sha256(b"two!").hexdigest()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"/x": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_hash_cache_is_only_slow(tmp_path, content):
    file, cache = tmp_path / "weights", tmp_path / "hashes.json"
    file.write_bytes(b"one")
    cache.write_bytes(content)
    assert len(hash_files({"w": file}, cache)["w"]) == 64


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_bytes(b"one")
    (tmp_path / "block").write_bytes(b"")
    assert hash_files({"w": tmp_path / "file"}, tmp_path / "block" / "hashes.json")
    with pytest.raises(ModelError, match="gone cannot be read"):
        hash_files({"w": tmp_path / "gone"}, tmp_path / "h.json")
