"""One config → pictures with recipes. Everything above (doors, training's samples) draws through here.

Pictures are independent of each other: each has its own generator, its own conditioning, and shares a batch
only with prompts of as many chunks as its own. What a batch shape may still change is rounding; the shape
is in the recipe, `redraw` repeats it, and `deterministic` always uses one shape: a batch of one.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch

from t2i import devices, latents, recipes, sampling, schedulers, weights
from t2i.config import GenerateConfig
from t2i.devices import Runtime
from t2i.errors import OutOfMemory, StorageError
from t2i.images import pixels_sha256
from t2i.jobs import Job, plan_jobs
from t2i.settling import settle
from t2i.version import __version__
from t2i.weights import LoadedModel

if TYPE_CHECKING:
    import numpy as np

# Pixels denoised together when nobody says how many pictures: enough to keep the cores busy, little enough
# to fit. A GPU takes four 512 x 512 pictures, a CPU one.
PIXELS_TOGETHER = {"cpu": 512 * 512, "gpu": 4 * 512 * 512}
LARGEST_BATCH = 16
MATMUL_PRECISIONS = ("highest", "high", "medium")
MOST_THREADS = 1024
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


@dataclass(frozen=True)
class Picture:
    """One finished picture.

    Args:
        pixels: uint8, (H, W, 3).
        prompt: What was asked for.
        seed: Its own seed.
        index: Position in the run.
        recipe: See `t2i.recipes`.
    """

    pixels: np.ndarray
    prompt: str
    seed: int
    index: int
    recipe: recipes.Recipe


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


def load(config: GenerateConfig, runtime: Runtime | None = None) -> LoadedModel:
    """Find and load the model of `config` on the device and in the format it asks for.

    Args:
        config: Its model, device, dtype and deterministic are used.
        runtime: How to compute, instead of what this machine would choose.

    Raises:
        ModelError: Missing, incomplete or unsafe.
        UsageError: A device or dtype that is not here.
    """
    source = weights.resolve_model(config.model)
    if runtime is None:
        runtime = devices.choose_runtime(config.device, config.dtype, source.family, config.deterministic)
    model = weights.load_model(source, runtime.device, runtime.dtype)
    devices.prepare_unet(model.unet, runtime)
    return model


def generate(
    config: GenerateConfig,
    model: LoadedModel | None = None,
    on_step: OnStep | None = None,
    jobs: Sequence[Job] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Picture]:
    """Draw every picture of `config`, each yielded as soon as its batch is done.

    Args:
        config: What to draw; None values become the model's defaults.
        model: A loaded model; default: `load(config)`.
        on_step: Called after every network call.
        jobs: The pictures, where they were planned before (file names need the seeds); default: `plan_jobs`.
        tell: Called with a line for a person: what was chosen, and what had to change.

    Yields:
        Pictures, grouped by the length of their prompts; `index` says where each belongs.

    Raises:
        ModelError: The model cannot be used, or made numbers that are not finite.
        OutOfMemory: Not even one picture fits, or not the batch size that was asked for.
        UsageError: A setting that this model cannot do.
    """
    jobs = plan_jobs(config) if jobs is None else jobs
    model = load(config) if model is None else model
    tell = tell or (lambda line: None)
    runtime = _runtime_of(model, config)
    config = settle(config, model.defaults, model.scheduler_config)
    size = 1 if config.deterministic else config.batch_size or default_batch_size(config, runtime.device)
    tell(f"{model.id}: {runtime.reason}; {config.scheduler}, {config.steps} steps, batches of {size}")
    groups = _by_length(jobs, model)
    progress = _Progress(on_step, sum(-(-len(group) // size) for group in groups))
    batch = _Batch(config, model, runtime, weights.hash_files(model.files), progress)
    for waiting in groups:
        while waiting:
            try:
                pictures = batch.draw(waiting[:size])
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                size = _smaller(size, config, error)
                tell(f"out of memory; going on with batches of {size}")
                continue
            del waiting[:size]
            yield from pictures


def redraw(
    recipe: Mapping[str, Any], model: LoadedModel, runtime: Runtime, hashes: dict[str, str]
) -> Picture:
    """Draw one picture in the batch shape and at the position of its recipe, beside copies of itself.

    The other rows of the batch never change a picture's numbers; the shape of the batch may.

    Args:
        recipe: Of the picture.
        model: Loaded with `runtime`.
        runtime: From `recorded_runtime`.
        hashes: Of the model's files.

    Raises:
        StorageError: The recipe's batch is none that t2i makes.
    """
    config = settle(recipes.config_of(recipe), model.defaults, model.scheduler_config)
    image = recipe["image"]
    shape, position, index = image.get("batch_shape"), image.get("batch_position"), image.get("index", 0)
    limit = GenerateConfig.options()["batch_size"].high or 1
    if not (isinstance(shape, list) and isinstance(position, int) and shape and isinstance(shape[0], int)):
        raise StorageError("the recipe does not say in which batch the picture was made")
    if not 0 <= position < shape[0] <= limit or config.seed is None or len(config.prompts) != 1:
        raise StorageError(f"the recipe is not of one picture (row {position} of a batch of {shape[0]})")
    job = Job(index if isinstance(index, int) else 0, config.prompts[0], 0, 0, config.seed)
    return _Batch(config, model, runtime, hashes, _Progress(None, 1)).draw([job] * shape[0])[position]


def recorded_runtime(recipe: Mapping[str, Any], device: str | None = None) -> Runtime:
    """How the picture was computed.

    Args:
        recipe: Of the picture.
        device: Another device than the recorded one.

    Raises:
        UsageError: The device or the dtype is not here.
        StorageError: Values that no t2i wrote.
    """
    recorded = recipe["runtime"]
    kinds = {"device": str, "dtype": str, "threads": int, "deterministic": bool, "matmul_precision": str,
             "channels_last": bool, "attention": str}  # fmt: skip
    wrong = [name for name, kind in kinds.items() if type(recorded.get(name)) is not kind]
    for name, known in (("matmul_precision", MATMUL_PRECISIONS), ("attention", devices.ATTENTION_KINDS)):
        if recorded.get(name) not in known:
            wrong.append(name)
    if wrong or not 1 <= recorded["threads"] <= MOST_THREADS:
        raise StorageError(f"the recipe does not say how it was computed ({', '.join(wrong or ['threads'])})")
    here = devices.choose_runtime(
        device or recorded["device"],
        recorded["dtype"],
        str(recipe["model"].get("family", "")),
        recorded["deterministic"],
        recorded["threads"],
    )
    same = ("matmul_precision", "channels_last", "attention")
    return replace(here, **{name: recorded[name] for name in same})


def versions() -> dict[str, str]:
    """What the picture depends on besides files."""
    libraries = {name: metadata.version(name) for name in ("torch", "diffusers", "transformers")}
    return {"python": platform.python_version(), **libraries, "t2i": __version__}


def default_batch_size(config: GenerateConfig, device: torch.device) -> int:
    """Pictures of the settled size that are denoised together when nobody says how many."""
    assert config.width is not None and config.height is not None
    together = PIXELS_TOGETHER["cpu" if device.type == "cpu" else "gpu"]
    return max(1, min(LARGEST_BATCH, together // (config.width * config.height)))


class _Progress:
    """Turns the steps of one batch after another into the progress of the run."""

    def __init__(self, on_step: OnStep | None, batches: int) -> None:
        self.on_step = on_step
        self.batches = batches
        self.done = 0

    def __call__(self, jobs: Sequence[Job], step: sampling.Step, calls: int) -> None:
        self.done += 1
        if self.on_step is not None:
            self.on_step(StepDone(tuple(jobs), step, self.done, max(self.done, calls * self.batches)))


@dataclass(frozen=True)
class _Batch:
    """What all batches of a run have in common; the config is settled."""

    config: GenerateConfig
    model: LoadedModel
    runtime: Runtime
    hashes: dict[str, str]
    progress: _Progress

    def draw(self, jobs: Sequence[Job]) -> list[Picture]:
        """Denoise and decode one batch of prompts that need equally many chunks."""
        with computing(self.runtime):
            final = self._denoise(jobs)
            decoded = latents.decode_finite(self.model.vae, final)
        described = {
            **self.runtime.describe(),
            "vae_dtype": devices.DTYPE_NAMES[decoded.vae_dtype],
            "versions": versions(),
        }
        identity = {"id": self.model.id, "family": self.model.family.name, "files": self.hashes}
        pictures = []
        for position, (job, pixels) in enumerate(zip(jobs, latents.to_uint8(decoded.pixels), strict=True)):
            own = self.config.replace(prompts=(job.prompt,), seed=job.seed, num_images=1, batch_size=None)
            placed = recipes.Placed(job.index, job.seed, tuple(final.shape), position)
            recipe = recipes.make_recipe(own, placed, identity, described, pixels_sha256(pixels))
            pictures.append(Picture(pixels, job.prompt, job.seed, job.index, recipe))
        return pictures

    def _denoise(self, jobs: Sequence[Job]) -> torch.Tensor:
        """The denoised latents of one batch, (B, C, h, w)."""
        config, model, device = self.config, self.model, self.runtime.device
        assert config.steps and config.width and config.height and config.guidance_scale
        cond = model.family.encode_prompts([job.prompt for job in jobs])
        uncond = None
        if config.guidance_scale > 1:
            uncond = model.family.encode_negative_prompts([config.negative_prompt] * len(jobs))
        denoiser = model.family.denoiser(cond, uncond, config.guidance_scale, config.width, config.height)
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


def _runtime_of(model: LoadedModel, config: GenerateConfig) -> Runtime:
    """The runtime that a model in memory was loaded for."""
    dtype = devices.DTYPE_NAMES[model.unet.dtype]
    return devices.choose_runtime(str(model.unet.device), dtype, model.family.name, config.deterministic)


def _by_length(jobs: Sequence[Job], model: LoadedModel) -> list[list[Job]]:
    """Jobs in groups whose prompts need equally many chunks: only they may share a batch."""
    chunks = {prompt: model.family.count_chunks(prompt) for prompt in {job.prompt for job in jobs}}
    groups: dict[int, list[Job]] = {}
    for job in jobs:
        groups.setdefault(chunks[job.prompt], []).append(job)
    return list(groups.values())


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in OUT_OF_MEMORY)


def _smaller(size: int, config: GenerateConfig, error: BaseException) -> int:
    """Half the batch, unless a person chose it or there is no half.

    Raises:
        OutOfMemory: Then.
    """
    if size == 1 or config.batch_size is not None:
        hint = "a smaller --width and --height" if size == 1 else f"a --batch-size below {size}"
        raise OutOfMemory(f"not enough memory for {config.width}x{config.height}", f"try {hint}") from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return -(-size // 2)
