"""The fixed-noise loss against a transcription with Diffusers' own parts; drawing plans and speed."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from t2i import pipeline
from t2i.config import GenerateConfig
from t2i.dataset import read_folder
from t2i.evaluation.pictures import draw_pictures, plan_drawing, read_pictures
from t2i.evaluation.validation import LEVELS, fixed_noise, validation_losses
from t2i.weights import LoadedModel


@pytest.fixture(scope="module")
def model(tiny_pocket: Path) -> LoadedModel:
    return pipeline.load(GenerateConfig(model=str(tiny_pocket)))


def test_the_loss_is_that_of_the_training_objective(renderings: Path, model: LoadedModel) -> None:
    from diffusers import DDIMScheduler

    examples = list(read_folder(renderings).examples[:5])
    losses = validation_losses(model, examples)
    scheduler = DDIMScheduler.from_config(model.scheduler_config)
    parts = model.family.parts
    for row in (0, 4):
        pixels = torch.from_numpy(np.asarray(Image.open(examples[row].file)).copy()).permute(2, 0, 1)[None]
        mean = model.vae.encode(pixels.float() / 127.5 - 1).latent_dist.mean * model.vae.config.scaling_factor
        noise, timesteps = fixed_noise(row, mean.shape[1:], 1000)
        ids = parts.tokenizers[0](
            examples[row].caption, padding="max_length", max_length=32, return_tensors="pt"
        ).input_ids
        words = parts.text_encoders[0](ids).last_hidden_state.expand(LEVELS, -1, -1)
        originals = mean.expand_as(noise)
        noisy = scheduler.add_noise(originals, noise, timesteps)
        output = model.unet(noisy, timesteps, words).sample
        wanted = (output - scheduler.get_velocity(originals, noise, timesteps)).pow(2).mean()
        assert losses[row] == pytest.approx(float(wanted), rel=1e-3)


def test_the_noise_of_a_row_never_changes_and_covers_the_schedule() -> None:
    noise, timesteps = fixed_noise(3, (4, 8, 8), 1000)
    again, _ = fixed_noise(3, (4, 8, 8), 1000)
    other, _ = fixed_noise(4, (4, 8, 8), 1000)
    assert torch.equal(noise, again) and not torch.equal(noise, other)
    assert (timesteps // 125).tolist() == list(range(8))


def test_more_pictures_or_prompts_change_no_other_picture() -> None:
    few = {(job.prompt, job.image_index): job.seed for job in plan_drawing(["a", "b"], 2, 7)}
    many = {(job.prompt, job.image_index): job.seed for job in plan_drawing(["a", "b", "c"], 5, 7)}
    assert few.items() <= many.items()
    assert len(set(many.values())) == 15
    assert [job.index for job in plan_drawing(["a", "b"], 2, 7)] == [0, 1, 2, 3]


def test_speed_is_that_of_the_batches_after_the_first(model: LoadedModel, tmp_path: Path) -> None:
    @contextmanager
    def silent(label: str, pictures: int) -> Any:
        yield lambda step: None

    jobs = plan_drawing(["a dog", "a cat"], 2, 0)
    config = GenerateConfig(model="tiny", steps=1, batch_size=3)
    pictures, speed = draw_pictures(model, config, jobs, tmp_path, False, silent, "", lambda line: None)
    assert [picture.seed for picture in pictures] == [0, 1, 1000, 1001]
    assert (speed.pictures, speed.seconds > 0) == (1, True)  # 3 + 1, the first batch warms up
    assert "1 steps of ddim" in speed.conditions and "batches of 3" in speed.conditions
    assert speed.peak_memory_bytes is not None and speed.peak_memory_bytes > 50e6
    read = read_pictures(tmp_path)
    assert [(p.prompt, p.seed, p.family) for p in read] == [(p.prompt, p.seed, "pocket") for p in pictures]
