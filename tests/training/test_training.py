"""The whole run: three stages, a model that t2i and Diffusers load, resume, handoff, refusals."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_run import small_config

from t2i.checkpoints import Handoff, list_checkpoints, save_handoff
from t2i.config import GenerateConfig, TrainConfig
from t2i.errors import Interrupted, ModelError, StorageError, UsageError
from t2i.methods import METHODS, SCRATCH
from t2i.pipeline import generate
from t2i.training import Progress, train
from t2i.training.start import start_parts


def run(dataset: Path, output: Path, **changes: Any) -> list[Progress]:
    return list(train(small_config(dataset, output, **changes)))


def digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.safetensors"))
    }


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole `--method scratch` run. Read-only."""
    output = tmp_path_factory.mktemp("run") / "shapes"
    run(shapes, output, train_text_encoder=True)
    return output


def test_the_run_folder_holds_what_is_promised(finished: Path) -> None:
    for stage in ("vae", "clip", "unet"):
        lines = [json.loads(line) for line in (finished / stage / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
        assert all(np.isfinite(line["loss"]) for line in lines)
        assert [path.name for path in list_checkpoints(finished / stage / "checkpoints")] == [
            "checkpoint-00000003",
            "checkpoint-00000006",
        ]
        with Image.open(finished / stage / "samples" / "00000006.png") as sheet:
            sheet.load()
    assert not list(finished.rglob(".tmp-*"))


def test_diffusers_and_t2i_draw_the_same_from_it(finished: Path) -> None:
    from diffusers import StableDiffusionPipeline

    folder = finished / "model"
    config = GenerateConfig(("a red circle",), model=str(folder), seed=3, steps=3, device="cpu", dtype="fp32")
    ours = next(iter(generate(config)))
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        "a red circle", num_inference_steps=3, guidance_scale=4.0, width=32, height=32,
        generator=torch.Generator().manual_seed(3), output_type="np",
    ).images[0]  # fmt: skip
    assert np.abs(ours.pixels.astype(float) - theirs * 255).max() <= 2


def test_without_captions_the_model_is_unconditional(shapes: Path, tmp_path: Path) -> None:
    events = run(shapes, tmp_path, captions="none")
    told = "no captions to learn from: the text encoder is saved untrained, for a model without prompts"
    assert [event.stage for event in events if event.notice == told] == ["clip"]
    assert json.loads((tmp_path / "clip" / "done.json").read_text()) == {"step": 0, "exact": True}
    config = GenerateConfig(("",), model=str(tmp_path / "model"), seed=1, device="cpu")
    assert next(iter(generate(config))).pixels.shape == (32, 32, 3)


def test_the_model_knows_its_words_and_settings(finished: Path) -> None:
    assert "circle" in json.loads((finished / "model" / "tokenizer" / "words.json").read_text())
    settings = json.loads((finished / "model" / "t2i.json").read_text())
    assert settings["width"] == 32 and settings["guidance_scale"] == 4.0
    scheduler = json.loads((finished / "model" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["rescale_betas_zero_snr"] and scheduler["prediction_type"] == "v_prediction"


def test_the_tuned_text_encoder_is_in_the_model_and_the_first_one_stays_in_parts(finished: Path) -> None:
    parts, model = digests(finished / "parts"), digests(finished / "model")
    name = "text_encoder/model.safetensors"
    assert parts[name] != model[name]
    assert (
        parts["vae/diffusion_pytorch_model.safetensors"] == model["vae/diffusion_pytorch_model.safetensors"]
    )


def test_stopping_and_resuming_changes_no_bit(shapes: Path, finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "stopped"
    progress = train(small_config(shapes, output, train_text_encoder=True))
    for event in progress:
        if event.stage == "clip" and event.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            break
    with pytest.raises(Interrupted, match="step 4 of 6, checkpoint saved"):
        list(progress)
    with pytest.raises(StorageError, match="already holds a run"):
        run(shapes, output, method="clip")
    events = run(shapes, output, resume="latest", train_text_encoder=True)
    assert any("resumed at step 4" in event.notice for event in events)
    assert digests(output / "model") == digests(finished / "model")
    assert digests(output / "parts") == digests(finished / "parts")
    log = (output / "clip" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_trains_on_when_more_steps_are_asked_for(
    shapes: Path, finished: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "run"))
    same = run(shapes, output, resume="latest", learning_rate=1e-5, train_text_encoder=True)
    told = "already trained, 6 steps; changed since, and not applied to it: learning_rate"
    assert [event.notice for event in same if event.notice][1:] == [told] * 3
    assert digests(output / "model") == digests(finished / "model")

    events = run(shapes, output, resume="latest", max_train_steps=8, train_text_encoder=True)
    notices = {event.stage: event.notice for event in events if "resumed" in event.notice}
    assert notices["vae"] == notices["clip"] == "resumed at step 6; changed: max_train_steps"
    # The latents are now those of another autoencoder.
    assert notices["unet"] == "resumed at step 6; changed: max_train_steps, frozen parts"
    done = {
        stage: json.loads((output / stage / "done.json").read_text()) for stage in ("vae", "clip", "unet")
    }
    assert done == {stage: {"step": 8, "exact": False} for stage in done}
    assert digests(output / "model") != digests(finished / "model")

    shutil.rmtree(output / "vae" / "checkpoints")
    with pytest.raises(ModelError, match=r"no whole checkpoint in .*vae"):
        run(shapes, output, resume="latest", max_train_steps=9, train_text_encoder=True)


def test_an_earlier_stage_trained_in_between_is_no_exact_resume(
    shapes: Path, finished: Path, tmp_path: Path
) -> None:
    """Nothing in the settings differs; only the parts that the stage builds on."""
    output = Path(shutil.copytree(finished, tmp_path / "run"))
    resume = {"method": "unet", "resume": "latest", "train_text_encoder": True}
    run(shapes, output, **resume)
    assert json.loads((output / "unet" / "done.json").read_text())["exact"] is True
    run(shapes, output, method="vae", resume="latest", max_train_steps=7)
    events = run(shapes, output, **resume)
    assert any(event.notice == "resumed at step 6; changed: frozen parts" for event in events)
    assert json.loads((output / "unet" / "done.json").read_text())["exact"] is False


def test_captions_that_are_cut_are_told_once(shapes: Path, tmp_path: Path) -> None:
    events = run(shapes, tmp_path, max_tokens=4, max_train_steps=1)
    told = [event.notice for event in events if "were cut" in event.notice]
    assert len(told) == 1 and told[0].startswith("24 of 24 captions are longer than 4 tokens")


def test_a_stage_writes_what_it_announces(finished: Path) -> None:
    announced = {name for stage in SCRATCH for name in METHODS[stage].results}
    written = {f"parts/{path.name}" for path in (finished / "parts").iterdir()} | {"model"}
    assert announced == written


def test_resuming_with_another_shape_or_data_order_is_refused(shapes: Path, tmp_path: Path) -> None:
    run(shapes, tmp_path, method="vae")
    with pytest.raises(ModelError, match="made with seed 0, this run asks for 1"):
        run(shapes, tmp_path, method="vae", resume="latest", seed=1)
    with pytest.raises(ModelError, match="made with vae_channels"):
        run(shapes, tmp_path, method="vae", resume="latest", vae_channels=(4, 16))


def test_training_longer_is_allowed_and_recorded(shapes: Path, tmp_path: Path) -> None:
    run(shapes, tmp_path, method="vae")
    assert json.loads((tmp_path / "vae" / "done.json").read_text())["exact"]
    events = run(shapes, tmp_path, method="vae", resume="latest", max_train_steps=8)
    assert any("changed: max_train_steps" in event.notice for event in events)
    other: dict[str, Any] = {"optimizer": "muon", "batch_size": 2, "max_train_steps": 10}
    events = run(shapes, tmp_path, method="vae", resume="latest", **other)
    assert any("changed: max_train_steps, batch_size, optimizer" in event.notice for event in events)
    kept = load_file(sorted((tmp_path / "vae" / "checkpoints").iterdir())[-1] / "optimizer.safetensors")
    assert {name.split(".")[0] for name in kept} == {"momentum_buffer", "step", "exp_avg", "exp_avg_sq"}
    assert json.loads((tmp_path / "vae" / "done.json").read_text()) == {"step": 10, "exact": False}


def test_resuming_from_what_is_no_checkpoint_says_so(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a whole checkpoint"):
        run(shapes, tmp_path, method="vae", resume=str(tmp_path / "nothing"))


def test_a_handoff_goes_on_at_its_step_and_is_recorded_as_not_exact(shapes: Path, tmp_path: Path) -> None:
    small = tmp_path / "carry.safetensors"
    run(shapes, tmp_path / "here", method="vae", save_handoff=str(small))
    events = run(shapes, tmp_path / "there", method="vae", handoff=str(small), max_train_steps=8)
    assert any("from handoff at step 6" in event.notice for event in events)
    assert json.loads((tmp_path / "there" / "vae" / "done.json").read_text()) == {"step": 8, "exact": False}
    first = json.loads((tmp_path / "there" / "vae" / "metrics.jsonl").read_text().splitlines()[0])
    start = json.loads((tmp_path / "here" / "vae" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["step"] == 7 and first["loss"] < start["loss"]


def test_a_handoff_of_another_model_is_refused(shapes: Path, tmp_path: Path) -> None:
    save_handoff(tmp_path / "h.safetensors", Handoff({"x": torch.zeros(2)}, {"x": torch.zeros(2)}, 1))
    with pytest.raises(ModelError, match="another model"):
        run(shapes, tmp_path / "out", method="vae", handoff=str(tmp_path / "h.safetensors"))


def test_one_run_folder_one_process(shapes: Path, tmp_path: Path) -> None:
    first = train(small_config(shapes, tmp_path, method="vae"))
    next(first)
    with pytest.raises(StorageError, match="in use by another"):
        run(shapes, tmp_path, method="vae")
    first.close()


def test_the_time_limit_ends_with_a_checkpoint_and_a_model_part(shapes: Path, tmp_path: Path) -> None:
    events = run(shapes, tmp_path, method="vae", max_train_steps=100_000, max_train_time=0.02)
    reached = max(event.step for event in events)
    told = (
        f"stopped by --max-train-time 0.02 minutes at step {reached} of 100000; train on with --resume latest"
    )
    assert told in [event.notice for event in events]
    assert list_checkpoints(tmp_path / "vae" / "checkpoints")
    assert (tmp_path / "parts" / "vae" / "config.json").is_file()
    assert not (tmp_path / "vae" / "done.json").exists()


def test_every_stage_that_the_time_limit_stops_says_so(shapes: Path, tmp_path: Path) -> None:
    events = run(shapes, tmp_path, max_train_time=1e-9)
    told = "stopped by --max-train-time 1e-09 minutes at step 1 of 6; train on with --resume latest"
    assert [event.stage for event in events if event.notice == told] == ["vae", "clip", "unet"]
    again = run(shapes, tmp_path, resume="latest")
    assert not any("stopped by" in event.notice for event in again)
    assert [event.stage for event in again if "resumed at step 1" in event.notice] == ["vae", "clip", "unet"]


def test_from_scratch_the_unet_builds_on_what_was_trained_before_it(finished: Path) -> None:
    """Not on the parts of the start model, of which it takes the UNet."""
    config = small_config(Path("unused"), finished, model=str(finished / "model"))
    parts = start_parts(config, "unet")
    encoder = load_file(finished / "parts" / "text_encoder" / "model.safetensors")
    theirs = load_file(finished / "model" / "text_encoder" / "model.safetensors")
    name = next(name for name in encoder if name.endswith("token_embedding.weight"))
    assert not torch.equal(encoder[name], theirs[name])
    ours = parts["text_encoder"].get_input_embeddings().weight
    assert torch.equal(ours, encoder[name]) and "unet" in parts
    assert "unet" not in start_parts(small_config(Path("unused"), finished, method="unet"), "unet")


def test_a_loss_that_is_not_finite_stops_the_run(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = METHODS["vae"].loss

    def broken(self: Any, rows: Any, generator: Any) -> Any:
        loss, figures = real(self, rows, generator)
        return loss * (float("nan") if rows[0] == 0 else 1.0), figures

    monkeypatch.setattr(METHODS["vae"], "loss", broken)
    with pytest.raises(ModelError, match="no longer finite"):
        run(shapes, tmp_path, method="vae", max_train_steps=60, batch_size=1)


def test_a_config_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no dataset"):
        TrainConfig(output=str(tmp_path))
