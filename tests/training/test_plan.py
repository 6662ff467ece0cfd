"""`--dry-run`: the figures that can be known, none that cannot, and nothing written."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bases import base_config, make, shapes_data
from small_run import draw, small_config

from t2i import durable
from t2i.dataset import read_folder
from t2i.errors import ModelError, StorageError, UsageError
from t2i.methods.unet import build_unet
from t2i.methods.vae import build_vae
from t2i.training import train
from t2i.training.plan import learning_parameters, plan_run
from t2i.training.validation import hold_out


def plan(dataset: Path, output: Path, **changes: object) -> str:
    before = sorted(output.parent.rglob("*"))
    text = "\n".join(plan_run(small_config(dataset, output, **changes)))
    assert sorted(output.parent.rglob("*")) == before, "it writes nothing"
    return text


def count(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def test_a_run_from_scratch_is_laid_out(shapes: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    changes = {
        "gradient_accumulation_steps": 2,
        "max_train_steps": None,
        "epochs": 3,
        "validation_split": 0.3,
    }
    text = plan(shapes, output, **changes)
    settings = small_config(shapes, output)
    vae, unet = count(build_vae(settings)), count(build_unet(settings, 4, 16, 16))
    out = len(hold_out(read_folder(shapes), 0.3, None))
    assert f"24 pictures, captions: metadata; {24 - out} to learn from, {out} held out" in text
    steps = math.ceil(3 * (24 - out) / 8)
    assert "8 pictures a step = 4 x 2 passes, 32 px" in text and f"unet      {steps} steps, " in text
    assert f"{vae:,} parameters learn" in text and f"{unet:,} parameters learn" in text
    assert text.count("memory of activations: unknown, not measured yet") == 3
    assert text.count("a guess from the size of the network") == 1, "of the UNet"
    assert "are free" in text and "pictures/s" not in text


def test_parts_that_are_there_are_counted_from_their_files(tmp_path: Path, tiny_pocket: Path) -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    settings = small_config(
        Path("unused"), tmp_path, method="unet", model=str(tiny_pocket), train_text_encoder=True
    )
    wanted = count(UNet2DConditionModel.from_pretrained(tiny_pocket / "unet"))
    wanted += count(CLIPTextModel.from_pretrained(tiny_pocket / "text_encoder"))
    assert learning_parameters(settings, "unet", read_folder) == wanted  # type: ignore[arg-type]


def test_time_is_told_as_an_earlier_run_measured_it(shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "vae"
    place = folder / "checkpoints" / "checkpoint-00000006"
    place.mkdir(parents=True)
    settings = small_config(shapes, tmp_path / "run", method="vae")
    durable.write_json(folder / "config.json", settings.to_dict())
    durable.write_json(folder / "journal.json", {"about": {"peak_memory_bytes": 2**30}})
    speeds = [json.dumps({"step": step, "loss": 1.0, "images_per_s": 2.0}) for step in (4, 5, 6)]
    (folder / "metrics.jsonl").write_text("\n".join(speeds) + "\n")
    text = plan(shapes, tmp_path / "run", method="vae", overwrite=True, max_train_steps=100, seed=5)
    assert "time: 3 min 20 s for 100 steps at 2 pictures/s, the median of 3 lines of" in text
    assert "that run held 1.0 GiB at most" in text
    other = plan(shapes, tmp_path / "run", method="vae", overwrite=True, batch_size=8, vae_channels=(8, 8))
    assert "unknown, " in other and "measured with other batch_size, vae_channels" in other
    shutil.rmtree(folder / "checkpoints")


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("lora", {}), ("lora", {"train_text_encoder": True, "dora": True}),
        ("lora", {"target_modules": ("to_q",)}),
        ("full", {}), ("full", {"train_text_encoder": True}), ("dreambooth", {}), ("controlnet", {}),
        ("textual-inversion", {"num_vectors": 3}), ("classifier", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("base", ["tiny_pocket", "tiny_sdxl"])
def test_what_learns_on_a_base_is_counted_from_its_configs(
    base: str,
    method: str,
    changes: dict[str, Any],
    shapes: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    model = request.getfixturevalue(base)
    config = base_config(method, model, shapes, tmp_path / "run", **changes)
    learning = make(method, model, shapes_data(shapes, tmp_path, 32), resolution=32, **changes).trainable()
    expected = sum(value.numel() for value in learning.parameters() if value.requires_grad)
    assert learning_parameters(config, method, read_folder(shapes)) == expected
    text = "\n".join(plan_run(config))
    assert f"{expected:,} parameters learn" in text
    assert ("a guess from the size" in text) == (method != "classifier")
    assert ("100 of 100 class pictures are drawn first" in text) == (method == "dreambooth")
    assert not (tmp_path / "run").exists()


def test_what_a_run_refuses_the_plan_refuses(shapes: Path, tmp_path: Path, tiny_pocket: Path) -> None:
    with pytest.raises(ModelError, match="needs a trained vae"):
        plan(shapes, tmp_path / "run", method="unet")
    (tmp_path / "run" / "parts" / "vae").mkdir(parents=True)
    with pytest.raises(StorageError, match="already exists"):
        plan(shapes, tmp_path / "run", method="vae")
    control = base_config("controlnet", tiny_pocket, shapes, tmp_path / "c", control_kind=None)
    with pytest.raises(UsageError, match="needs --conditioning-images"):
        list(plan_run(control))
    named = base_config("lora", tiny_pocket, shapes, tmp_path / "l", target_modules=("nosuch",))
    for refusing in (plan_run, train):
        with pytest.raises(UsageError, match="--target-modules nosuch"):
            list(refusing(named))
    assert not (tmp_path / "l").exists(), "before anything is encoded"


def test_a_pass_has_each_picture_as_often_as_it_is_repeated(tmp_path: Path) -> None:
    for folder, pictures in (("10_red", 2), ("3_blue", 4)):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(pictures):
            draw("bar", folder[-4:].strip("_")).save(tmp_path / "data" / folder / f"{number}.png")
    text = plan(tmp_path / "data", tmp_path / "run", method="vae", epochs=2, max_train_steps=None)
    assert "vae       16 steps, 2 passes" in text, "2 (10 x 2 + 3 x 4) / 4"
    run = small_config(tmp_path / "data", tmp_path / "run", method="vae", epochs=2, max_train_steps=None)
    assert max(progress.step for progress in train(run)) == 16
