"""Every scheduler from the same start noise, compared with a solution of a thousand steps.

A deterministic scheduler is a numerical method for one differential equation, the probability-flow ODE
(Song et al. 2021, arXiv:2011.13456, eq. 13), from x_T to x_0. DDIM with η = 0 is such a method, of first
order (Song et al. 2020, arXiv:2010.02502, eq. 14; Lu et al. 2022, arXiv:2206.00927, section 4.1), so DDIM
over every training timestep stands for the solution, and the others are measured by their distance to it.
A scheduler that draws noise follows another equation, which has other solutions: it is measured and marked.

`figures` holds what was measured, `sheet` draws it. They know no terminal, and import without torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from t2i import images, schedulers
from t2i.comparison.figures import Cell, Comparison, relative_distance
from t2i.config import GenerateConfig
from t2i.config.compare import CompareConfig
from t2i.config.loras import read_tags
from t2i.errors import ModelError, UsageError
from t2i.jobs import plan_jobs
from t2i.schedulers import Row

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from t2i.sampling import Denoiser
    from t2i.weights import LoadedModel

REFERENCE = "ddim"
# Over every training timestep and down to no noise at all, whatever the checkpoint says of its own spacing.
REFERENCE_SPACING = {"timestep_spacing": "trailing", "set_alpha_to_one": True}

OnCall = Callable[[int, int], None]
"""(network calls done, network calls in all) of the whole comparison."""


def compare(config: CompareConfig, on_call: OnCall | None = None) -> Comparison:
    """Draw the prompt of `config` with every row and number of steps, and measure.

    The model is loaded once and the prompt encoded once; each picture is denoised by itself.

    Args:
        config: With a prompt.
        on_call: Called after every network call.

    Raises:
        UsageError: No prompt, an unknown scheduler, or not one picture that can be drawn.
        ModelError: The model cannot be used.
    """
    rows = chosen_rows(config)
    drawing = config.drawing().replace(scheduler=REFERENCE)
    drawing = drawing.replace(seed=plan_jobs(drawing)[0].seed)

    from t2i import devices, pipeline, weights
    from t2i.settling import settle

    adapters = weights.find_adapters(drawing, drawing.prompts[0])
    family = weights.resolve_model(drawing.model).family
    runtime = devices.choose_runtime(drawing.device, drawing.dtype, family)
    model = pipeline.load(drawing, runtime)
    weights.use_adapters(model, adapters, lambda line: None)
    drawing = settle(drawing, model.defaults, model.scheduler_config)
    planned = [
        _plan(row, steps, model.scheduler_config, runtime.device)
        for row in rows
        for steps in config.step_counts
    ]
    able = [plan.scheduler for plan in planned if plan.error is None]
    if not able and planned[0].error:
        raise planned[0].error
    fine, coarse = references(model.scheduler_config, runtime.device)
    total = sum(len(scheduler.timesteps) for scheduler in (fine, coarse, *able))
    with pipeline.computing(runtime):
        easel = _Easel(drawing, model, on_call or (lambda done, total: None), total)
        reference, half = easel.draw(fine), easel.draw(coarse)
        cells = [
            plan.cell() if plan.error else _measured(plan.cell(), easel, plan.scheduler, reference)
            for plan in planned
        ]
    own = Cell(REFERENCE, len(fine.timesteps), network_calls=len(fine.timesteps))
    return Comparison(drawing, model.id, _against(own, reference, half), tuple(cells))


def chosen_rows(config: CompareConfig) -> list[Row]:
    """The rows to compare, each once; all where none is named.

    Raises:
        UsageError: An unknown name.
    """
    names = config.schedulers or tuple(schedulers.SCHEDULERS)
    return list({row.name: row for row in map(schedulers.find_row, names)}.values())


def references(scheduler_config: Mapping[str, Any], device: Any) -> tuple[Any, Any]:
    """DDIM over every training timestep, and over every second one; both down to no noise at all."""
    config = {**scheduler_config, **REFERENCE_SPACING}
    fine, coarse = (schedulers.make_scheduler(REFERENCE, config) for _ in range(2))
    schedulers.set_timesteps(fine, fine.config.num_train_timesteps, device)
    schedulers.set_timesteps(coarse, max(1, fine.config.num_train_timesteps // 2), device)
    return fine, coarse


def start_latents(noise: Tensor, scheduler: Any) -> Tensor:
    """The common x_T in the scheduler's own scale, (B, C, h, w).

    Most schedulers hold x_t = √ᾱ x_0 + √(1−ᾱ) ε, the Euler family holds that over √ᾱ. Its own
    `init_noise_sigma` would, for some spacings, start it from an x_T smaller by √(1−ᾱ_T) than the others'
    (0.2 % on Stable Diffusion), which is no error of the method.

    Args:
        noise: x_T, (B, C, h, w), of unit variance.
        scheduler: After `set_timesteps`.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1 (the scaling s(t) of the VP column).
    """
    from t2i.sampling import noise_levels

    if scheduler.init_noise_sigma == 1:
        return noise
    return noise * float(noise_levels(scheduler)[0]) ** -0.5


@dataclass(frozen=True)
class _Plan:
    """A cell to be drawn: a scheduler that is ready for it, or why there is none."""

    row: Row
    steps: int
    scheduler: Any = None
    error: UsageError | None = None

    def cell(self) -> Cell:
        left_out = self.error.message if self.error else ""
        return Cell(self.row.name, self.steps, self.row.stochastic, left_out=left_out)


@dataclass(frozen=True)
class _Drawn:
    latents: Tensor  # (1, C, h, w)
    pixels: np.ndarray  # uint8, (H, W, 3)
    seconds: float


class _Easel:
    """The model with the prompt encoded: schedulers in, pictures out, all from one seed."""

    def __init__(self, config: GenerateConfig, model: LoadedModel, on_call: OnCall, total: int) -> None:
        from t2i import latents

        assert config.seed is not None and config.width and config.height and config.guidance_scale
        self.model, self.on_call, self.total, self.done = model, on_call, total, 0
        self.noise = (
            [config.seed],
            model.vae.config.latent_channels,
            *latents.latent_size(model.vae, config.width, config.height),
            model.unet.dtype,
        )
        cond, uncond = model.family.encode_prompts([read_tags(text)[0] for text in config.prompts]), None
        if config.guidance_scale > 1:
            uncond = model.family.encode_negative_prompts([config.negative_prompt])
        self.denoiser: Denoiser = model.family.denoiser(
            cond, uncond, config.guidance_scale, config.width, config.height
        )

    def draw(self, scheduler: Any) -> _Drawn:
        """One picture.

        Raises:
            ModelError: It is not made of finite numbers.
        """
        from t2i import latents, sampling

        began = time.perf_counter()
        noise, generators = latents.initial_noise(*self.noise)
        current = start_latents(noise.to(self.model.unet.device), scheduler)
        for step in sampling.denoise(self.denoiser, scheduler, current, generators):
            current = step.latents
            self.done += 1
            self.on_call(self.done, self.total)
        pixels = latents.to_uint8(latents.decode_finite(self.model.vae, current))[0]
        return _Drawn(current, pixels, time.perf_counter() - began)


def _plan(row: Row, steps: int, scheduler_config: Mapping[str, Any], device: Any) -> _Plan:
    try:
        scheduler = schedulers.make_scheduler(row.name, scheduler_config)
        schedulers.set_timesteps(scheduler, steps, device)
    except UsageError as error:
        return _Plan(row, steps, error=error)
    return _Plan(row, steps, scheduler)


def _measured(cell: Cell, easel: _Easel, scheduler: Any, reference: _Drawn) -> Cell:
    try:
        drawn = easel.draw(scheduler)
    except ModelError as error:  # other rows may well draw finite numbers
        return replace(cell, left_out=error.message)
    return _against(replace(cell, network_calls=len(scheduler.timesteps)), drawn, reference)


def _against(cell: Cell, drawn: _Drawn, reference: _Drawn) -> Cell:
    return replace(
        cell,
        distance=relative_distance(drawn.latents, reference.latents),
        psnr=images.psnr(drawn.pixels, reference.pixels),
        seconds=drawn.seconds,
        pixels=drawn.pixels,
    )
