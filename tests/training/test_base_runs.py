"""Runs on a tiny base from the first line to the result, and what other programs make of that."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import NEEDS, base_config, make, shapes_data
from PIL import Image
from safetensors.torch import load_file, safe_open
from small_run import small_config

from t2i import weights
from t2i.config import TrainConfig, flag_of
from t2i.config.train import METHODS as NAMES
from t2i.errors import DatasetError, ModelError, T2IError, UsageError
from t2i.images import read_pixels, read_recipe
from t2i.latents import initial_noise
from t2i.recipes import config_of
from t2i.training import train
from t2i.training.class_images import class_files, draw_class_images
from t2i.training.export import export, result_of

FEW: dict[str, Any] = {
    "max_train_steps": 2, "checkpointing_steps": 100, "sample_steps": 100, "memorisation_samples": 0,
    "learning_rate": 0.05, "ema_decay": 0.0, "report_to": "none", "resolution": 32,
}  # fmt: skip


def run(config: TrainConfig) -> list[Any]:
    return list(train(config))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("tiny_pocket", {"train_text_encoder": True}),
        ("tiny_pocket", {"lora_format": "kohya", "lora_alpha": 2.0, "train_text_encoder": True}),
        ("tiny_pocket", {"dora": True}),
        ("tiny_sdxl", {"train_text_encoder": True}),
    ],
)
def test_diffusers_draws_with_a_lora_what_its_training_drew(
    base: str, changes: dict[str, Any], shapes: Path, cache: Path, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """The adapters in memory, and the file read by the library that the file is for."""
    from diffusers import DDIMScheduler, DiffusionPipeline

    folder = request.getfixturevalue(base)
    data = shapes_data(shapes, cache, 32)
    settings = {
        "resolution": 32,
        "guidance_scale": 3.0,
        "sampling_steps": 5,
        "sample_prompts": ("a red circle",),
    }
    method = make("lora", folder, data, **settings, **changes)
    for number, value in enumerate(method.trainable().parameters()):
        if value.requires_grad:
            torch.nn.init.normal_(value, std=0.3, generator=torch.Generator().manual_seed(number))
    for module in method.learning().values():
        module.eval()
    config = base_config("lora", folder, shapes, tmp_path, **settings, **changes)
    made = export(config, method, data)
    assert made.path == result_of(config) == tmp_path / "lora.safetensors" and str(made.path) in made.hint

    pipe = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    own = method.schedule | ({} if base == "tiny_pocket" else {"timestep_spacing": "leading"})
    method.schedule = own
    pipe.scheduler = DDIMScheduler.from_config(own, clip_sample=False)
    method.base = method.base.__class__(**{
        item.name: getattr(method.base, item.name) for item in fields(method.base) if item.name != "defaults"
    }, defaults=type(method.base.defaults)(5, 3.0, "ddim", 32, 32))  # fmt: skip
    drawn = method.draw(["a red circle"], [7])
    size = 32 // (4 if base == "tiny_pocket" else 8)
    noise, _ = initial_noise([7], 4, size, size)

    def pixels() -> torch.Tensor:
        return pipe("a red circle", num_inference_steps=5, guidance_scale=3.0, height=32, width=32,
                    latents=noise.clone(), output_type="pt").images * 2 - 1  # fmt: skip

    plain = pixels()
    pipe.load_lora_weights(str(made.path))
    assert (pixels() - drawn).abs().max() < 1e-3
    assert (plain - drawn).abs().max() > 0.02, "the LoRA does something"


def test_a_lora_file_says_what_it_was_made_of(
    shapes: Path, cache: Path, tmp_path: Path, tiny_pocket: Path
) -> None:
    data = shapes_data(shapes, cache, 32)
    method = make("lora", tiny_pocket, data, resolution=32)
    config = base_config("lora", tiny_pocket, shapes, tmp_path, resolution=32)
    with safe_open(export(config, method, data).path, "pt") as file:
        told = file.metadata()
    assert told["t2i.base"] == "tiny-pocket" and len(told["t2i.base_sha256"]) == 64
    assert '"rank": 4' in told["t2i.settings"] and str(tmp_path) not in "".join(told.values())
    assert "a red circle" in told["t2i.captions"] and "t2i.dataset" in told


def test_a_lora_run_that_was_stopped_ends_in_the_same_bytes(
    shapes: Path, tmp_path: Path, tiny_pocket: Path
) -> None:
    """With dropout inside the adapters, which draws from a stream of its own."""

    def config(output: str, **changes: Any) -> TrainConfig:
        own = FEW | {"max_train_steps": 5, "checkpointing_steps": 2, "lora_dropout": 0.3, "ema_decay": 0.9}
        return base_config("lora", tiny_pocket, shapes, tmp_path / output, **own | changes)

    run(config("whole"))
    stopped = train(config("parted"))
    for progress in stopped:
        if progress.step == 3 and not progress.notice:
            break
    stopped.close()
    told = [progress.notice for progress in run(config("parted", resume="latest")) if progress.notice]
    assert any(line == "resumed at step 2" for line in told)
    whole, parted = (tmp_path / name / "lora.safetensors" for name in ("whole", "parted"))
    assert whole.read_bytes() == parted.read_bytes()
    assert any(value.abs().max() > 0 for name, value in load_file(whole).items() if "lora_B" in name)
    with pytest.raises(ModelError, match="was made with rank 4, this run asks for 8"):
        run(config("parted", resume="latest", rank=8))


@pytest.mark.parametrize("base", ["tiny_sd2", "tiny_sdxl"])
def test_a_fine_tuned_model_is_a_model_of_its_kind(
    base: str, shapes: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from diffusers import DiffusionPipeline

    folder = request.getfixturevalue(base)
    output = [*run(base_config("full", folder, shapes, tmp_path, **FEW | {"train_text_encoder": True}))][-1]
    assert output is not None
    tuned = weights.load_model(weights.resolve_model(str(tmp_path / "model")))
    before = weights.load_model(weights.resolve_model(str(folder)))
    assert tuned.family.name == before.family.name
    assert tuned.scheduler_config["prediction_type"] == before.scheduler_config["prediction_type"]
    assert (tuned.defaults.width, tuned.defaults.steps) == (32, 2)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "model", local_files_only=True)
    for mine, theirs in ((tuned.unet, pipe.unet), (tuned.family.parts.text_encoders[-1],
                         pipe.text_encoder_2 if base == "tiny_sdxl" else pipe.text_encoder)):  # fmt: skip
        states = [{key.removeprefix("text_model."): value for key, value in one.state_dict().items()}
                  for one in (mine, theirs)]  # fmt: skip
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    changed = tuned.unet.state_dict()["conv_in.weight"]
    assert not torch.equal(changed, before.unet.state_dict()["conv_in.weight"])


@pytest.mark.parametrize("base", ["tiny_pocket", "tiny_sdxl"])
def test_a_learned_word_is_read_by_diffusers_and_by_t2i(
    base: str, shapes: Path, cache: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from diffusers import DiffusionPipeline

    from t2i.config import GenerateConfig

    folder = request.getfixturevalue(base)
    data, more = (
        shapes_data(shapes, cache, 32),
        {"resolution": 32, "num_vectors": 2, "initializer_token": "dog"},
    )
    method = make("textual-inversion", folder, data, **more)
    for number, table in enumerate(method.tables.values()):
        torch.nn.init.normal_(table.new, generator=torch.Generator().manual_seed(number))
    made = export(base_config("textual-inversion", folder, shapes, tmp_path, **more), method, data)
    assert made.path == tmp_path / "embedding" / "zorb.safetensors"
    name = "<zorb>" if base == "tiny_pocket" else "zorb"
    prompt = f"a red {name}"
    wanted = method.family.encode_prompts(["a red <zorb>"])

    model = weights.load_model(weights.resolve_model(str(folder)))
    found = weights.find_adapters(GenerateConfig(prompts=(prompt,), embedding=(str(made.path),)), prompt)
    weights.use_adapters(model, found, lambda line: None)
    torch.testing.assert_close(model.family.encode_prompts([prompt]).prompt_embeds, wanted.prompt_embeds)

    if base == "tiny_pocket":
        pipe = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
        pipe.load_textual_inversion(str(made.path))
        theirs = pipe.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)[0]
        torch.testing.assert_close(theirs, wanted.prompt_embeds, atol=1e-5, rtol=1e-5)


def test_a_controlnet_and_a_classifier_are_folders_of_parts(
    shapes: Path, tmp_path: Path, tiny_pocket: Path
) -> None:
    from diffusers import ControlNetModel

    from t2i.methods.classifier import NoisyClassifier

    run(base_config("controlnet", tiny_pocket, shapes, tmp_path / "c", **FEW))
    controlnet = ControlNetModel.from_pretrained(tmp_path / "c" / "parts" / "controlnet")
    assert any(value.abs().max() > 0 for value in controlnet.controlnet_mid_block.parameters())
    own = {name: value for name, value in FEW.items()}
    run(base_config("classifier", tiny_pocket, shapes, tmp_path / "k", **own))
    classifier = NoisyClassifier.from_pretrained(tmp_path / "k" / "parts" / "classifier")
    logits = classifier(torch.zeros(2, 4, 8, 8), torch.tensor([3, 900]))
    assert logits.shape == (2, len(classifier.config["labels"])) == (2, 12)


def test_class_pictures_are_drawn_once_and_go_on_where_they_were_stopped(
    shapes: Path, tmp_path: Path, tiny_pocket: Path, copy_model: Callable[[Path], Path]
) -> None:
    config = base_config("dreambooth", tiny_pocket, shapes, tmp_path, **FEW | {"num_class_images": 3})
    files = class_files(config)
    stopped = threading.Event()
    assert list(draw_class_images(config, stopped)) == ["3 class pictures to draw: a cat"]
    before = [file.read_bytes() for file in files]
    assert [config_of(read_recipe(file)).prompts[0] for file in files] == ["a cat"] * 3
    as_drawn = read_pixels(files[1]).astype(int)
    files[1].write_bytes(b"torn")
    assert list(draw_class_images(config, stopped)) == ["1 class pictures to draw: a cat"]
    assert [file.read_bytes() for file in files[::2]] == before[::2]
    assert np.abs(read_pixels(files[1]).astype(int) - as_drawn).max() <= 1  # alone in its batch now
    other = config.replace(class_prompt="a dog")
    assert list(draw_class_images(other, stopped)) == ["3 class pictures to draw: a dog"]
    run(config)
    assert (tmp_path / "model" / "unet").is_dir()
    told = json.loads((tmp_path / "model" / "training.json").read_text())
    assert told["t2i.base"] == "tiny-pocket" and len(told["t2i.base_sha256"]) == 64
    assert told["t2i.settings"]["class_prompt"] == "a cat" and told["t2i.dataset"]
    assert told["modelspec.title"] == "dreambooth of tiny-pocket"
    changed = copy_model(tiny_pocket)
    values = json.loads((changed / "t2i.json").read_text())
    (changed / "t2i.json").write_text(json.dumps({**values, "guidance_scale": 2.0}))
    elsewhere = config.replace(model=str(changed))
    assert list(draw_class_images(elsewhere, stopped)) == ["3 class pictures to draw: a cat"], "another base"


def test_a_resumed_controlnet_notices_other_conditioning_pictures(
    shapes: Path, tmp_path: Path, tiny_pocket: Path
) -> None:
    for name, grey in (("white", 255), ("black", 0)):
        (tmp_path / name).mkdir()
        for file in shapes.glob("*.png"):
            Image.new("RGB", (32, 32), (grey,) * 3).save(tmp_path / name / file.name)
    shutil.copytree(tmp_path / "white", tmp_path / "moved")

    def told(folder: str, **changes: Any) -> str:
        own = FEW | {"control_kind": None, "conditioning_images": str(tmp_path / folder)} | changes
        config = base_config("controlnet", tiny_pocket, shapes, tmp_path / "run", **own)
        return "\n".join(progress.notice for progress in run(config) if progress.notice)

    told("white")
    assert "changed" not in told("moved", resume="latest"), "the same pictures elsewhere"
    assert "changed: pictures and captions" in told("black", resume="latest")
    written = json.loads((tmp_path / "run" / "parts" / "controlnet" / "training.json").read_text())
    assert written["t2i.base"] == "tiny-pocket"


def other_value(item: Any) -> Any:
    """An allowed value of an option that is not its default."""
    option, default = item.metadata["option"], item.default
    if option.choices:
        return next(choice for choice in option.choices if choice != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, tuple) or "tuple" in str(item.type):
        return ("x",) if "str" in str(item.type) else (16, 24)
    if "str" in str(item.type):
        return "x"
    high = option.high if option.high is not None else 2
    return type(default)(high) if default is not None else int(high)


LIMITED = [item for item in fields(TrainConfig) if item.metadata["option"].only]


@pytest.mark.parametrize("item", LIMITED, ids=lambda item: item.name)
def test_an_option_is_refused_where_it_would_be_ignored(item: Any) -> None:
    only = item.metadata["option"].only
    assert set(only) < set(NAMES)
    for method in set(NAMES) - set(only):
        needs = {
            key: value
            for key, value in NEEDS.get(method, {}).items()
            if key in ("class_prompt", "placeholder_token")
        }
        with pytest.raises(UsageError) as caught:
            TrainConfig(dataset="d", method=method, model="m", **{**needs, item.name: other_value(item)})
        assert flag_of(item.name) in caught.value.message or flag_of(item.name) == "--compile"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rank": 0}, "--rank 0: must be at least 1"),
        ({"method": "dreambooth"}, "--method dreambooth needs --class-prompt"),
        ({"prior_weight": 0.5}, "--prior-weight is for --class-prompt, and there is none"),
        ({"method": "textual-inversion"}, "--method textual-inversion needs --placeholder-token"),
        ({"method": "textual-inversion", "placeholder_token": "two words"}, "one word is needed"),
        ({"instance_prompt": " "}, "--instance-prompt is empty"),
        ({"grow_vae": True, "model": "m"}, "--grow-vae is not for --method lora but for scratch, vae"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig(dataset="d", **changes)
    assert told in caught.value.message


def test_a_base_that_is_none_is_refused_before_anything_is_written(
    shapes: Path, tmp_path: Path, tiny_pocket: Path, copy_model: Any
) -> None:
    import shutil

    without = copy_model(tiny_pocket)
    shutil.rmtree(without / "unet")
    for model, dataset, kind, told in (
        (str(without), shapes, ModelError, "unet"),
        (str(tmp_path / "nothing"), shapes, ModelError, "there is no model at"),
        (str(tiny_pocket), tmp_path / "none", DatasetError, "is not a folder"),
    ):
        config = small_config(dataset, tmp_path / "run", method="lora", model=model)
        with pytest.raises(T2IError, match=told) as caught:
            run(config)
        assert isinstance(caught.value, kind)
        assert not (tmp_path / "run").exists()


def test_conditioning_pictures_are_found_by_name(shapes: Path, tmp_path: Path, tiny_pocket: Path) -> None:
    from PIL import Image

    folder = tmp_path / "steering"
    folder.mkdir()
    config = base_config(
        "controlnet", tiny_pocket, shapes, tmp_path / "run",
        **FEW | {"control_kind": None, "conditioning_images": str(folder)},
    )  # fmt: skip
    for number in range(23):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(folder / f"{number:02d}.webp", lossless=True)
    with pytest.raises(DatasetError, match=r"no conditioning picture for .*23\.png"):
        run(config)
    Image.new("RGB", (32, 32), (23, 0, 0)).save(folder / "23.png")
    from t2i.dataset import read_folder
    from t2i.training.inputs import check_inputs, with_inputs

    data = shapes_data(shapes, tmp_path / "cache", 32, conditioning=None)
    found = with_inputs(config, check_inputs(config, read_folder(shapes)), data).conditioning
    assert found is not None and np.array_equal(found[:, 0, 0, 0], np.arange(24))
    with pytest.raises(UsageError, match="needs --conditioning-images DIR or --control-kind"):
        check_inputs(config.replace(conditioning_images=None), read_folder(shapes))
