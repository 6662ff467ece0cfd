"""The loss of a model on pictures with captions, with rows, noises and timesteps that never change.

Two checkpoints of one model can be compared with few pictures, because the noise is the same for both. Models
with another autoencoder, noise schedule or prediction type have another loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from t2i import diffusion, latents
from t2i.dataset import Example, decode, to_pixels
from t2i.evaluation.figures import Figure, NotMeasured, mean_figure
from t2i.evaluation.subject import Subject
from t2i.sampling import training_levels
from t2i.schedulers import prediction_type
from t2i.weights import LoadedModel

LEVELS = 8  # timesteps of each row, one out of each eighth of the schedule
ROWS_TOGETHER = 4
NOISE_SEED = 20_000


def measure_validation_loss(subject: Subject) -> list[Figure]:
    """Mean loss over fixed captioned pictures of the reference."""
    limit, reference = subject.instruments.config.validation_rows, subject.instruments.reference
    if subject.model is None:
        raise NotMeasured("there is no model, only pictures")
    if limit == 0:
        raise NotMeasured("switched off (--validation-rows 0)")
    if reference is None:
        raise NotMeasured("no captioned reference pictures were given (--reference DIR)")
    captioned = [example for example in reference.examples if example.caption]
    if not captioned:
        raise NotMeasured("the reference pictures have no captions")
    rows = np.linspace(0, len(captioned) - 1, min(limit, len(captioned))).astype(int)
    losses = validation_losses(subject.model, [captioned[row] for row in rows])
    prediction = prediction_type(subject.model.scheduler_config)
    return [
        mean_figure(
            "validation loss", losses, subject.rounds, counted="rows", better="lower",
            how=f"mean square error of the predicted {prediction}, {LEVELS} fixed timesteps a row; comparable"
            " only between models with the same autoencoder and noise schedule",
        )
    ]  # fmt: skip


@torch.inference_mode()
def validation_losses(model: LoadedModel, examples: Sequence[Example]) -> list[float]:
    """Mean square error of the network's prediction for each example, over `LEVELS` timesteps.

    Example number i has its own noises and timesteps, whatever the others are.

    Args:
        model: A loaded model; its own autoencoder and text encoders are used, without guidance.
        examples: Pictures with captions; cut to a square of the model's own size.

    Source: the training loss of Ho et al. 2020, arXiv:2006.11239, eq. (14), without weighting.
    """
    levels = training_levels(model.scheduler_config)
    losses: list[float] = []
    for start in range(0, len(examples), ROWS_TOGETHER):
        some = examples[start : start + ROWS_TOGETHER]
        losses += _losses_of(model, levels, some, start)
    return losses


def _losses_of(model: LoadedModel, levels: Tensor, examples: Sequence[Example], first: int) -> list[float]:
    side = model.defaults.width
    table = np.stack([decode(example.file, side) for example in examples])
    originals = latents.encode(model.vae, to_pixels(table, range(len(table)))).float().cpu()
    kind = prediction_type(model.scheduler_config)
    losses = []
    for number, (original, example) in enumerate(zip(originals, examples, strict=True), first):
        noise, timesteps = fixed_noise(number, original.shape, len(levels))
        repeated = original.expand_as(noise)
        noisy = diffusion.noised(repeated, noise, levels[timesteps], kind)
        target = diffusion.training_target(repeated, noise, levels[timesteps], kind)
        conditioning = model.family.encode_prompts([example.caption] * LEVELS)
        denoiser = model.family.denoiser(conditioning, None, 1.0, side, side)
        device, dtype = model.unet.device, model.unet.dtype
        output = denoiser(noisy.to(device, dtype), timesteps.to(device)).float().cpu()
        losses.append(float((output - target).square().mean()))
    return losses


def fixed_noise(row: int, shape: Sequence[int], count: int) -> tuple[Tensor, Tensor]:
    """The noises (LEVELS, C, h, w) and timesteps (LEVELS,) of one row; always the same.

    Args:
        row: Number of the example.
        shape: Of its latents, (C, h, w).
        count: Training timesteps; one is taken at random out of each of `LEVELS` equal stretches.
    """
    generator = torch.Generator().manual_seed(NOISE_SEED + row)
    noise = torch.randn((LEVELS, *shape), generator=generator)
    within = torch.rand(LEVELS, generator=generator)
    timesteps = ((torch.arange(LEVELS) + within) * count / LEVELS).long().clamp(max=count - 1)
    return noise, timesteps
