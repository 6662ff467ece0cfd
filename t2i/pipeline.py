"""One config → pictures with recipes. Everything above (doors, training's samples) draws through here.

Pictures are independent of each other: each has its own generator, its own conditioning and guidance, and
shares a batch only with prompts of the same LoRAs and as many chunks as its own. What a batch shape may
still change is rounding; the shape is in the recipe, `redraw` repeats it, and `deterministic` has but one: a
batch of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from t2i import devices, memory, weights
from t2i.config import GenerateConfig
from t2i.config.loras import read_tags
from t2i.devices import Runtime
from t2i.errors import StorageError
from t2i.families.prompts import unknown_lines, unknown_words
from t2i.jobs import Job, plan_jobs
from t2i.memory import Room
from t2i.pictures import (
    Easel,
    Failed,
    OnStep,
    Picture,
    Progress,
    StepDone,
    computing,
    recorded_steps,
    versions,
)
from t2i.recipes import config_of
from t2i.settling import settle
from t2i.weights import Adapters, LoadedModel

__all__ = [
    "Failed", "OnStep", "Picture", "Room", "StepDone", "computing", "default_batch_size", "generate",
    "generate_each", "load", "recorded_runtime", "redraw", "versions",
]  # fmt: skip

# Pixels denoised together when nobody says how many pictures: enough to keep the cores busy, little enough
# to fit. A GPU takes four 512 x 512 pictures, a CPU one.
PIXELS_TOGETHER = {"cpu": 512 * 512, "gpu": 4 * 512 * 512}
LARGEST_BATCH = 16
MATMUL_PRECISIONS = ("highest", "high", "medium")
MOST_THREADS = 1024


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
        Pictures, grouped by LoRAs and the length of their prompts; `index` says where each belongs.

    Raises:
        ModelError: The model cannot be used, or made numbers that are not finite.
        OutOfMemory: Not even one picture fits, or not the batch size that was asked for.
        UsageError: A setting that this model cannot do.
    """
    for outcome in generate_each(config, model, on_step, jobs, tell):
        if isinstance(outcome, Failed):
            raise outcome.error
        yield outcome


def generate_each(
    config: GenerateConfig,
    model: LoadedModel | None = None,
    on_step: OnStep | None = None,
    jobs: Sequence[Job] | None = None,
    tell: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
    room: Room | None = None,
) -> Iterator[Picture | Failed]:
    """`generate` that goes on with the rest where a picture is not made of finite numbers.

    Args:
        config: This, `model`, `on_step` and `jobs` as `generate` has them.
        model: See there.
        on_step: See there.
        jobs: See there.
        tell: Called with a line about what was chosen.
        warn: Called with a line about each thing that had to change, and each word of a prompt that the model
            has never seen; default: `tell`.
        room: Of the model, with what an earlier run has learnt of it. Whoever gives one restores it.

    Yields:
        As `generate`, and what failed in its place.

    Raises:
        ModelError: The model cannot be used.
        OutOfMemory: As `generate`.
        UsageError: As `generate`.
    """
    jobs = plan_jobs(config) if jobs is None else jobs
    adapters = weights.find_all(config, (job.prompt for job in jobs))
    model = load(config) if model is None else model
    tell = tell or (lambda line: None)
    own_room = Room(model)
    room = room or own_room
    runtime = _runtime_of(model, config, room)
    config = settle(config, model.defaults, model.scheduler_config)
    wanted = 1 if config.deterministic else config.batch_size or default_batch_size(config, runtime.device)
    fit = memory.Fit(room, config, wanted, warn or tell)
    size = fit.batch_size
    tell(f"{model.id}: {runtime.reason}; {config.scheduler}, {config.steps} steps, batches of {size}")
    carry = partial(weights.use_adapters, model, tell=warn or tell)
    carry(adapters[jobs[0].prompt] if jobs else Adapters())  # their tokens decide how long a prompt is
    groups = _that_may_share(jobs, model, adapters, config)
    progress = Progress(on_step, sum(-(-len(group) // size) for group in groups))
    easel = Easel(config, model, runtime, weights.hash_files(model.files), progress, room, adapters)
    told = set[str]()
    try:
        for waiting in groups:
            carry(adapters[waiting[0].prompt])
            for line in _never_seen([job.prompt for job in waiting], model, adapters):
                if line not in told:
                    (warn or tell)(line)
                told.add(line)
            while waiting:
                together = waiting[: fit.batch_size]
                final = fit.attempt(partial(easel.denoise, together), len(together))
                if final is None:
                    continue
                outcomes = None
                while outcomes is None:
                    decode = partial(easel.decode, together, final, fit.steps)
                    outcomes = fit.attempt(decode, len(together), decoding=True)
                del waiting[: len(together)]
                yield from outcomes
    finally:
        own_room.restore()


def _never_seen(
    prompts: Sequence[str], model: LoadedModel, adapters: Mapping[str, Adapters]
) -> Iterator[str]:
    """A line for each word that the model has never seen; what a LoRA has seen nobody knows."""
    for prompt in dict.fromkeys(prompts):
        if not adapters[prompt].loras:
            yield from unknown_lines(unknown_words(read_tags(prompt)[0], model.family.parts.known_words))


def redraw(
    recipe: Mapping[str, Any],
    model: LoadedModel,
    runtime: Runtime,
    hashes: dict[str, str],
    adapters: Adapters | None = None,
    tell: Callable[[str], None] | None = None,
) -> Picture:
    """Draw one picture in the batch shape and at the position of its recipe, beside copies of itself.

    The other rows of the batch never change a picture's numbers; the shape of the batch may.

    Args:
        recipe: Of the picture.
        model: Loaded with `runtime`.
        runtime: From `recorded_runtime`.
        hashes: Of the model's files.
        adapters: The LoRAs and textual inversions of the recipe; default: found by their names.
        tell: Called with a line about each of them.

    Raises:
        StorageError: The recipe's batch is none that t2i makes.
        ModelError: The picture is not made of finite numbers, or a LoRA is not here or does not fit.
    """
    config = settle(config_of(recipe), model.defaults, model.scheduler_config)
    image = recipe["image"]
    shape, position, index = image.get("batch_shape"), image.get("batch_position"), image.get("index", 0)
    limit = GenerateConfig.options()["batch_size"].high or 1
    if not (isinstance(shape, list) and isinstance(position, int) and shape and isinstance(shape[0], int)):
        raise StorageError("the recipe does not say in which batch the picture was made")
    if not 0 <= position < shape[0] <= limit or config.seed is None or len(config.prompts) != 1:
        raise StorageError(f"the recipe is not of one picture (row {position} of a batch of {shape[0]})")
    job = Job(index if isinstance(index, int) else 0, config.prompts[0], 0, 0, config.seed)
    steps = recorded_steps(recipe)
    room = Room(model, memory.OFFLOAD in steps)
    steps -= set() if room.offloading else {memory.OFFLOAD}
    adapters = weights.find_adapters(config, job.prompt) if adapters is None else adapters
    weights.use_adapters(model, adapters, tell or (lambda line: None))
    carried = {job.prompt: adapters}
    easel, jobs = Easel(config, model, runtime, hashes, Progress(None, 1), room, carried), [job] * shape[0]
    try:
        outcome = easel.decode(jobs, easel.denoise(jobs), steps)[position]
    finally:
        room.restore()
    if isinstance(outcome, Failed):
        raise outcome.error
    return outcome


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


def default_batch_size(config: GenerateConfig, device: torch.device) -> int:
    """Pictures of the settled size that are denoised together when nobody says how many."""
    assert config.width is not None and config.height is not None
    together = PIXELS_TOGETHER["cpu" if device.type == "cpu" else "gpu"]
    return max(1, min(LARGEST_BATCH, together // (config.width * config.height)))


def _runtime_of(model: LoadedModel, config: GenerateConfig, room: Room) -> Runtime:
    """The runtime that a model in memory was loaded for."""
    dtype = devices.DTYPE_NAMES[model.unet.dtype]
    return devices.choose_runtime(str(room.device), dtype, model.family.name, config.deterministic)


def _that_may_share(
    jobs: Sequence[Job], model: LoadedModel, adapters: Mapping[str, Adapters], config: GenerateConfig
) -> list[list[Job]]:
    """Jobs in groups that may share a batch: same LoRAs, as many chunks of both prompts, guidance or not."""
    kinds = {
        prompt: (str(own.identity()), model.family.count_chunks(read_tags(prompt)[0]))
        for prompt, own in adapters.items()
    }
    groups: dict[tuple[tuple[str, int], int], list[Job]] = {}
    for job in jobs:
        scale = config.guidance_scale if job.guidance_scale is None else job.guidance_scale
        negative = config.negative_prompt if job.negative_prompt is None else job.negative_prompt
        chunks = 0 if scale == 1 else model.family.count_chunks(negative)
        groups.setdefault((kinds[job.prompt], chunks), []).append(job)
    return list(groups.values())
