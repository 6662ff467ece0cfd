"""One batch: prompts → latents → pictures with recipes. `t2i.pipeline` decides what goes into a batch.

Rows of a batch do not mix: one that is not made of finite numbers fails alone.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from t2i import devices, latents, memory, recipes, sampling, schedulers
from t2i.conditioning import Conditioning, join
from t2i.config import GenerateConfig
from t2i.config.loras import read_tags
from t2i.devices import Runtime
from t2i.errors import ModelError
from t2i.images import pixels_sha256
from t2i.jobs import Job
from t2i.memory import Room
from t2i.version import __version__
from t2i.weights import Adapters, LoadedModel

if TYPE_CHECKING:
    import numpy as np

MOST_ENCODED = 64  # prompts: of SDXL 20 MB


@dataclass(frozen=True)
class Picture:
    """One finished picture.

    Args:
        pixels: uint8, (H, W, 3).
        prompt: What was asked for.
        seed: Its own seed.
        index: Position in the run.
        recipe: See `t2i.recipes`.
        notes: What a person should know of it, a line each, as the recipe has it; mostly nothing.
    """

    pixels: np.ndarray
    prompt: str
    seed: int
    index: int
    recipe: recipes.Recipe
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failed:
    """A picture that could not be made, which says nothing about the others of its batch."""

    job: Job
    error: ModelError


@dataclass(frozen=True)
class StepDone:
    """One network call of one batch: for progress, previews and films.

    Args:
        jobs: The pictures of this batch.
        step: Latents and outputs after the call; see `t2i.sampling.Step`.
        steps_done: Network calls of the whole run so far.
        steps_total: Network calls of the whole run.
    """

    jobs: tuple[Job, ...]
    step: sampling.Step
    steps_done: int
    steps_total: int


OnStep = Callable[[StepDone], None]


class Progress:
    """Turns the steps of one batch after another into the progress of a run of so many batches."""

    def __init__(self, on_step: OnStep | None, batches: int) -> None:
        self.on_step = on_step
        self.batches = batches
        self.done = 0

    def __call__(self, jobs: Sequence[Job], step: sampling.Step, calls: int) -> None:
        self.done += 1
        if self.on_step is not None:
            self.on_step(StepDone(tuple(jobs), step, self.done, max(self.done, calls * self.batches)))


@dataclass(frozen=True)
class Easel:
    """What all batches of a run have in common.

    Args:
        config: Settled.
        model: Loaded for `runtime`.
        runtime: How to compute.
        hashes: Of the model's files.
        progress: Told of every step.
        room: Of the model.
        adapters: Prompt → what the model carries while it is drawn; whoever calls sees to that.
        encoded: The latest prompts, and what the UNet is told of them.
    """

    config: GenerateConfig
    model: LoadedModel
    runtime: Runtime
    hashes: dict[str, str]
    progress: Progress
    room: Room
    adapters: Mapping[str, Adapters] = field(default_factory=dict)
    encoded: dict[tuple[str, str, str], Conditioning] = field(default_factory=dict)

    def denoise(self, jobs: Sequence[Job]) -> torch.Tensor:
        """The denoised latents of one batch of prompts that need equally many chunks, (B, C, h, w)."""
        family, uncond = self.model.family, None
        own = [self.own_config(job) for job in jobs]
        scales = [config.guidance_scale or 1.0 for config in own]
        carried = str(self.adapters.get(jobs[0].prompt, Adapters()).identity())
        with computing(self.runtime):
            prompts = [read_tags(job.prompt)[0] for job in jobs]
            cond = self._encode(family.encode_prompts, prompts, carried)
            if max(scales) > 1:
                negative = [config.negative_prompt for config in own]
                uncond = self._encode(family.encode_negative_prompts, negative, carried)
            with self.room.computing(*self.model.denoising):
                return self._denoise(jobs, cond, uncond, scales)

    def decode(self, jobs: Sequence[Job], final: torch.Tensor, steps: set[str]) -> list[Picture | Failed]:
        """The pictures of denoised latents (B, C, h, w); `steps` of `memory.STEPS` have been given up."""
        vae = self.model.vae
        with computing(self.runtime), self.room.computing(vae), memory.saving(vae, steps):
            decoded = latents.decode_each(vae, final)
        outcomes: list[Picture | Failed] = []
        for row, (job, outcome) in enumerate(zip(jobs, decoded, strict=True)):
            if isinstance(outcome, ModelError):
                outcomes.append(Failed(job, outcome))
            else:
                placed = recipes.Placed(job.index, job.seed, tuple(final.shape), row)
                outcomes.append(self._picture(job, outcome, placed, steps))
        return outcomes

    def _encode(
        self, encode: Callable[[list[str]], Conditioning], prompts: Sequence[str], carried: str
    ) -> Conditioning:
        """What the UNet is told of each prompt, (B, ...); what was encoded lately is not encoded again."""
        keys = [(encode.__name__, carried, prompt) for prompt in prompts]
        missing = {key: key[-1] for key in keys if key not in self.encoded}
        if missing:
            with self.room.computing(*self.model.family.parts.text_encoders):
                found = {key: encode([prompt]).to(self.runtime.device) for key, prompt in missing.items()}
            self.encoded.update(found)
        told = join([self.encoded[key] for key in keys])
        while len(self.encoded) > MOST_ENCODED:
            del self.encoded[next(iter(self.encoded))]
        return told

    def own_config(self, job: Job) -> GenerateConfig:
        """What one picture is drawn with."""
        own = {"negative_prompt": job.negative_prompt, "guidance_scale": job.guidance_scale}
        own = {name: value for name, value in own.items() if value is not None}
        alone = {"prompts": (job.prompt,), "seed": job.seed, "num_images": 1, "batch_size": None}
        return self.config.replace(**alone, **own)

    def _denoise(
        self,
        jobs: Sequence[Job],
        cond: Conditioning,
        uncond: Conditioning | None,
        scales: Sequence[float],
    ) -> torch.Tensor:
        config, model, device = self.config, self.model, self.runtime.device
        assert config.steps and config.width and config.height
        denoiser = model.family.denoiser(cond, uncond, scales, config.width, config.height)
        scheduler = schedulers.make_scheduler(config.scheduler, model.scheduler_config)
        schedulers.set_timesteps(scheduler, config.steps, device)
        noise, generators = latents.initial_noise(
            [job.seed for job in jobs],
            model.vae.config.latent_channels,
            *latents.latent_size(model.vae, config.width, config.height),
            model.unet.dtype,
        )
        current = sampling.initial_latents(noise.to(device), scheduler)
        for step in sampling.denoise(denoiser, scheduler, current, generators):
            current = step.latents
            self.progress(jobs, step, len(scheduler.timesteps))
        return current

    def _picture(
        self, job: Job, decoded: latents.Decoded, placed: recipes.Placed, steps: set[str]
    ) -> Picture:
        pixels = latents.to_uint8(decoded.pixels[None])[0]
        runtime: dict[str, Any] = {
            **self.runtime.describe(),
            "vae_dtype": devices.DTYPE_NAMES[decoded.vae_dtype],
            "versions": versions(),
        }
        notes = []
        if steps:
            runtime["memory"] = [step for step in memory.STEPS if step in steps]
        if decoded.retried:
            runtime["vae_retried"] = decoded.retried
            notes.append(f"decoded once more, in fp32, because it was {decoded.retried}")
        identity = {"id": self.model.id, "family": self.model.family.name, "files": self.hashes}
        recipe = recipes.make_recipe(self.own_config(job), placed, identity, runtime, pixels_sha256(pixels))
        recipe |= self.adapters.get(job.prompt, Adapters()).recorded()
        if decoded.flat:
            recipe["image"]["flat"] = True
            notes.append("the picture is nearly one colour")
        return Picture(pixels, job.prompt, job.seed, job.index, recipe, tuple(notes))


def recorded_steps(recipe: Mapping[str, Any]) -> set[str]:
    """What had been given up of `memory.STEPS` when the picture of a recipe was made."""
    recorded = recipe["runtime"].get("memory")
    return {step for step in memory.STEPS if isinstance(recorded, list) and step in recorded}


def versions() -> dict[str, str]:
    """What the picture depends on besides files."""
    return {"python": platform.python_version(), **_library_versions(), "t2i": __version__}


@cache
def _library_versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("torch", "diffusers", "transformers")}


@contextmanager
def computing(runtime: Runtime) -> Iterator[None]:
    """Compute as `runtime` says, and leave torch's switches as they were (a training may own them)."""
    before = (
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )
    devices.apply_runtime(runtime)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
        torch.use_deterministic_algorithms(before[2])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[3:]
