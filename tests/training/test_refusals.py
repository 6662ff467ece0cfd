"""What a training cannot use is refused before a picture is decoded and before anything is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import small_config

from t2i.checkpoints import save_checkpoint
from t2i.errors import T2IError
from t2i.training import train

Refused = Callable[..., T2IError]


@pytest.fixture
def refused(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Begin a run, which must fail and leave everything as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("t2i.training.load_data", lambda *_: pytest.fail("decoding had begun"))

    def begin(dataset: Path = shapes, **changes: Any) -> T2IError:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(T2IError) as caught:
            list(train(small_config(dataset, Path("run"), **changes)))
        assert sorted(tmp_path.rglob("*")) == before
        return caught.value

    return begin


@pytest.mark.parametrize(
    ("changes", "told", "exit_code"),
    [
        ({"device": "xpu:7"}, "--device xpu:7: not available here", 2),
        ({"device": "toaster"}, "--device toaster: not a device", 2),
        ({"num_processes": 3}, "batch size 4 cannot be shared by 3 processes", 2),
        ({"method": "vae", "resume": "nope"}, "nope is not a whole checkpoint", 4),
        ({"method": "unet"}, "--method unet needs a trained vae, and run/parts has none", 4),
        ({"model": "nope"}, "model folder nope is missing", 4),
        ({"method": "clip", "model": "nope"}, "model folder nope is missing", 4),
        ({"dataset": Path("nope")}, "dataset nope is not a folder", 4),
    ],
)
def test_nothing_is_decoded_or_made(
    refused: Refused, changes: dict[str, Any], told: str, exit_code: int
) -> None:
    error = refused(**changes)
    assert (error.message, error.exit_code) == (told, exit_code)


def test_a_folder_that_is_there_stays_as_it_is(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "run" / "parts" / "vae").mkdir(parents=True)
    assert refused(method="unet").message == "run/parts/vae/config.json: no such file, or it cannot be read"
    shutil.rmtree(tmp_path / "run" / "parts" / "vae")
    assert refused(method="unet").message.endswith("needs a trained vae, and run/parts has none")


def test_a_model_without_the_parts_of_the_stage_is_not_passed_over(
    refused: Refused, tmp_path: Path, tiny_pocket: Path
) -> None:
    """Else a stage would begin with random weights although a start was given."""
    (tmp_path / "old" / "model").mkdir(parents=True)
    error = refused(method="vae", model="old")
    assert (error.message, error.hint) == ("--model old holds no vae", "did you mean old/model?")
    assert refused(model="old/model").message.startswith("--model old/model holds no vae or tokenizer or")
    shutil.copytree(tiny_pocket / "vae", tmp_path / "old" / "model" / "vae")
    assert refused(method="clip", model="old/model").message.endswith("holds no tokenizer or text_encoder")
    error = refused(method="unet", model="old/model")
    assert error.message == "--method unet needs a trained text_encoder, and old/model has none"
    weights = tmp_path / "old" / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    message = refused(method="vae", model="old/model").message
    assert message.startswith("old/model/vae/diffusion_pytorch_model.safetensors is cut short")


def test_an_autoencoder_that_does_not_divide_the_pictures(
    refused: Refused, tmp_path: Path, tiny_pocket: Path
) -> None:
    config = json.loads((tiny_pocket / "vae" / "config.json").read_text())
    shutil.copytree(tiny_pocket, tmp_path / "old")
    config["block_out_channels"] *= 6
    (tmp_path / "old" / "vae" / "config.json").write_text(json.dumps(config))
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    error = refused(method="unet", model="old", resolution=40)
    assert error.message == f"--resolution 40: this VAE shrinks pictures by {factor}"
    assert error.hint == f"give a multiple of it, such as {factor}"


def test_a_checkpoint_that_does_not_fit(refused: Refused, tmp_path: Path) -> None:
    settings = small_config(Path("unused"), Path("run"), method="vae").to_dict()
    made = tmp_path / "old" / "vae" / "checkpoints"
    path = save_checkpoint(made, 3, {}, {"stage": "vae", "step": 3, "config": settings}, 1)
    error = refused(method="clip", resume=str(path))
    assert error.message == f"{path} is a checkpoint of vae, this run trains clip"
    error = refused(method="vae", resume=str(path), resolution=64)
    assert error.message == "the checkpoint was made with resolution 32, this run asks for 64"
    shutil.copytree(tmp_path / "old", tmp_path / "run")
    state = tmp_path / "run" / "vae" / "checkpoints" / path.name / "state.json"
    state.write_text(json.dumps({"torn": True}))
    (tmp_path / "run" / "vae" / "config.json").write_text(json.dumps(settings))
    assert refused(method="vae", resume="latest").message == "no whole checkpoint in run/vae/checkpoints"
