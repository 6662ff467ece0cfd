"""What is read of LoRA files and refused, by header and by tensors; what a prompt may say of them."""

from __future__ import annotations

import json
import math
import pickle
import struct
from pathlib import Path

import pytest
import torch
from command_line import Run
from made_loras import networks_with_adapters
from safetensors.torch import load_file, save_file

from t2i import weights
from t2i.config import GenerateConfig
from t2i.config.loras import parse_lora, read_tags
from t2i.errors import ModelError, StorageError, UsageError
from t2i.weights.safety import read_header

NAME = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


def pair(rank: int = 2, width: int = 32, key: str = NAME) -> dict[str, torch.Tensor]:
    return {f"{key}.lora_A.weight": torch.ones(rank, width), f"{key}.lora_B.weight": torch.ones(32, rank)}


@pytest.mark.parametrize(
    ("text", "name", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1),
        ("dir/a.safetensors:0.8", "dir/a.safetensors", 0.8),
        ("a:-2", "a", -2),
        (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", 1),
        (r"C:\loras\a.safetensors:0.5", r"C:\loras\a.safetensors", 0.5),
        ("odd:name.safetensors", "odd:name.safetensors", 1),
    ],
)
def test_path_and_scale(text: str, name: str, scale: float) -> None:
    spec = parse_lora(text)
    assert (spec.name, spec.scale) == (name, scale)


@pytest.mark.parametrize("text", ["a:nan", "a:inf", "a:-inf", "a:strong", "a:1e9", "a:", ":1", "", "a\0b"])
def test_scales_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        parse_lora(text)


def test_tags() -> None:
    text, specs = read_tags("a corgi<lora:fur:0.8>, red <LORA:b.c>")
    assert text == "a corgi, red "
    assert [(spec.name, spec.scale) for spec in specs] == [("fur", 0.8), ("b.c", 1)]
    assert read_tags("a < b > c") == ("a < b > c", ())


@pytest.mark.parametrize(
    "tag", ["<lora:>", "<lora:a:b>", "<lora:../a:1>", "<lora:/etc/a:1>", "<lora:a:nan>", "<lora:a><lora:a:2>"]
)
def test_tags_that_are_none(tag: str) -> None:
    with pytest.raises(UsageError):
        GenerateConfig(prompts=(f"a corgi {tag}",))


def test_a_tag_in_the_negative_prompt_is_refused() -> None:
    with pytest.raises(UsageError, match="negative"):
        GenerateConfig(negative_prompt="<lora:a:1>")


def hostile(kind: str, path: Path) -> Path:
    whole = pair()
    if kind == "pickle":
        path.write_bytes(pickle.dumps(whole, protocol=2))
    elif kind == "torch zip":
        torch.save(whole, path)
    elif kind == "cut short":
        save_file(whole, str(path))
        path.write_bytes(path.read_bytes()[:-9])
    elif kind == "huge header":
        path.write_bytes(struct.pack("<Q", 2**40) + b"{}" + b" " * 100)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no tensors":
        save_file({}, str(path))
    elif kind == "NaN":
        whole[f"{NAME}.lora_B.weight"][3, 1] = math.nan
        save_file(whole, str(path))
    elif kind == "half a pair":
        del whole[f"{NAME}.lora_B.weight"]
        save_file(whole, str(path))
    elif kind == "ranks":
        whole[f"{NAME}.lora_A.weight"] = torch.ones(5, 32)
        save_file(whole, str(path))
    elif kind == "width":
        save_file(pair(width=31), str(path))
    elif kind == "vector":
        whole[f"{NAME}.lora_A.weight"] = torch.ones(2)
        save_file(whole, str(path))
    elif kind == "a model":
        save_file({"model.diffusion_model.out.2.weight": torch.ones(2, 2)}, str(path))
    elif kind == "LoHa":
        save_file({"lora_unet_x.hada_w1_a": torch.ones(2, 2)}, str(path))
    elif kind == "metadata":
        save_file(whole, str(path), metadata={"lora_adapter_metadata": '{"unet.lora_alpha": "os.system"}'})
    elif kind == "metadata, not JSON":
        save_file(whole, str(path), metadata={"lora_adapter_metadata": "{" * 10_000})
    elif kind == "columns":
        base = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
        save_file({f"{base}.lora_down.weight": torch.ones(2, 32), f"{base}.lora_up.weight": torch.ones(32, 2),
                   f"{base}.dora_scale": torch.ones(1, 32)}, str(path))  # fmt: skip
    return path


EARLY = {  # known by the header
    "pickle": "pickled", "torch zip": "zip archive", "cut short": "cut short", "huge header": "claims",
    "folder": "is a folder", "empty": "not a safetensors", "no tensors": "no tensors", "vector": "no factor",
    "a model": "is no LoRA", "LoHa": "a LoHa", "missing": "no such file",
}  # fmt: skip
LATE = {  # known by the tensors, or by the model
    "NaN": "lora_B.weight has numbers that are not finite",
    "half a pair": "lora_A.weight is a part of a layer",
    "ranks": r"\[5, 32\].*do not fit", "width": r"to_k.lora_A.weight has the shape \[2, 31\]",
    "metadata": "alpha of .*lora_A.weight is no number", "metadata, not JSON": "is damaged",
    "columns": "not one number for each row",
}  # fmt: skip


@pytest.mark.parametrize("kind", [*EARLY])
def test_a_dry_run_refuses_what_is_no_lora(kind: str, run: Run, tmp_path: Path) -> None:
    path = hostile(kind, tmp_path / "a.safetensors")
    done = run("generate", "a corgi", "--lora", path, "--dry-run", "--offline")
    assert done.code == 4 and done.out == ""
    assert EARLY[kind] in done.err and len(done.err.strip().splitlines()) <= 2
    assert "unexpected" not in done.err


@pytest.mark.parametrize("kind", [*LATE])
def test_tensors_that_cannot_be_used_are_named(kind: str, tiny_pocket: Path, tmp_path: Path) -> None:
    from made_loras import load

    path = hostile(kind, tmp_path / "a.safetensors")
    found = weights.find_adapters(GenerateConfig(lora=(str(path),)), "")
    model = load(tiny_pocket)
    with pytest.raises(ModelError, match=LATE[kind]) as refused:
        weights.use_adapters(model, found, print)
    assert str(path) in refused.value.message
    assert not hasattr(model.unet, "peft_config")


def test_usage_errors_have_their_exit_code(run: Run) -> None:
    for arguments in (
        ("--lora", "a:nan"),
        ("--lora-scale", "inf"),
        ("--lora-scale", "0.5"),
        ("--lora", ":1"),
    ):
        done = run("generate", "a corgi", *arguments, "--dry-run", "--offline")
        assert done.code == 2 and len(done.err.strip().splitlines()) <= 2, done.err


def test_names_are_looked_for_in_the_places_that_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, beside, own = tmp_path / "here", tmp_path / "beside", tmp_path / "own" / "loras"
    for folder in (here, beside, own):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("T2I_DATA", str(tmp_path / "own"))
    save_file(pair(2), str(own / "fur.safetensors"))
    save_file(pair(3), str(beside / "given.safetensors"))

    def rank(prompt: str, *given: str) -> list[tuple[int, float]]:
        found = weights.find_adapters(GenerateConfig(lora=given), prompt)
        return [(use.file.ranks[0], use.scale) for use in found.loras]

    assert rank("<lora:fur:0.5>") == rank("", "fur:0.5") == rank("", "fur.safetensors:0.5") == [(2, 0.5)]
    save_file(pair(4), str(here / "fur.safetensors"))
    assert rank("<lora:fur>") == rank("", "fur") == [(4, 1)]
    save_file(pair(5), str(beside / "fur.safetensors"))
    given = str(beside / "given.safetensors")
    assert rank("<lora:fur:2>", given) == [(3, 1), (5, 2)]
    assert rank("<lora:given:0.3>", f"{given}:0.9") == [(3, 0.3)], "the tag says the scale"
    with pytest.raises(ModelError, match=r"no file nowhere\.safetensors") as missing:
        rank("<lora:nowhere:1>")
    assert str(own) in missing.value.hint
    with pytest.raises(UsageError, match="twice"):
        rank("", given, given)


def test_what_a_file_says_of_itself(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(pair(width=768), str(path), metadata={"modelspec.title": "Corgi"})
    shown = run("models", "show", path)
    assert shown.code == 0
    said = {line[:15].strip(): line[16:] for line in shown.lines if "modelspec" not in line}
    assert said == {"file": "a.safetensors", "kind": "LoRA", "format": "peft", "networks": "unet (1 layers)",
                    "rank": "2", "base model": "Stable Diffusion 1"}  # fmt: skip
    assert "Corgi" in shown.out
    save_file(pair(), str(path), metadata={"ss_base_model_version": "sdxl_base_v1-0"})
    assert run("models", "show", path, "--json").events[0]["base_model"] == "sdxl_base_v1-0"
    assert run("models", "show", tmp_path / "none.safetensors").code == 4


def test_saving(tiny_pocket: Path, tmp_path: Path) -> None:
    networks = networks_with_adapters(tiny_pocket, alpha_pattern={"conv1": 3})
    path = tmp_path / "a.safetensors"
    weights.save_lora(path, networks, metadata={"modelspec.title": "Corgi", "steps": 7}, dtype=torch.float16)
    header = read_header(path)
    assert {dtype for dtype, _ in header.tensors.values()} == {"F16"}
    assert header.metadata["modelspec.title"] == "Corgi" and header.metadata["steps"] == "7"
    settings = json.loads(header.metadata["lora_adapter_metadata"])
    assert settings["unet.r"] == 4 and settings["unet.lora_alpha"] == 8
    assert set(settings["unet.alpha_pattern"].values()) == {3} and set(
        settings["unet.rank_pattern"].values()
    ) == {2}
    assert all(key.startswith(("unet.", "text_encoder.text_model.")) for key in header.tensors)
    with pytest.raises(StorageError, match="already exists"):
        weights.save_lora(path, networks, overwrite=False)
    weights.save_lora(path, networks, file_format="kohya")
    tensors = load_file(str(path))
    assert {float(value) for key, value in tensors.items() if key.endswith(".alpha")} == {3.0, 8.0}
    with pytest.raises(ValueError, match="carries no adapter"):
        weights.save_lora(path, {"unet": torch.nn.Linear(2, 2)})
    with pytest.raises(ValueError, match="not one of"):
        weights.save_lora(path, networks, file_format="pickle")
    assert list(tmp_path.iterdir()) == [path]
