"""Where the pictures come from: a folder with prompts, or a model that draws a list of prompts into one."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from t2i import images, pipeline, recipes
from t2i.config import GenerateConfig
from t2i.config.evaluate import SEEDS_PER_PROMPT
from t2i.dataset import decode, read_folder
from t2i.errors import DatasetError, StorageError
from t2i.evaluation.subject import Picture, Speed
from t2i.jobs import Job
from t2i.weights import LoadedModel

OnStep = Callable[[pipeline.StepDone], None]
Progress = Callable[[str, int], AbstractContextManager[OnStep]]
"""Called with what is being drawn and how many pictures it is; yields what the pipeline calls each step."""

TRUSTED_CAPTIONS = ("metadata", "sidecar")


def read_pictures(folder: Path) -> list[Picture]:
    """The pictures of a folder with their prompts.

    A prompt comes from the picture's own recipe (or another program's `parameters`), else from
    metadata.jsonl, metadata.csv or a .txt beside it. File names say nothing here.

    Raises:
        DatasetError: Not a folder, unreadable, or no picture in it.
    """
    found = read_folder(folder)
    trusted = found.caption_source in TRUSTED_CAPTIONS
    pictures = []
    for example in found.examples:
        prompt, seed, family = _said_by(example.file)
        caption = example.caption if trusted else ""
        pictures.append(Picture(example.file, prompt or caption, seed, family))
    return pictures


def unreadable(pictures: Sequence[Picture]) -> dict[Path, str]:
    """File → why it cannot be decoded, for those that cannot."""
    found = {}
    for picture in pictures:
        try:
            decode(picture.file, 8)
        except DatasetError as error:
            found[picture.file] = error.message
    return found


def plan_drawing(prompts: Sequence[str], num_images: int, seed: int) -> list[Job]:
    """The pictures of an evaluation; more pictures per prompt or more prompts change none of the others.

    Args:
        prompts: Each once.
        num_images: Pictures per prompt, 1 to `SEEDS_PER_PROMPT`.
        seed: Picture k of prompt p has seed + 1000 p + k.
    """
    return [
        Job(number * num_images + k, prompt, number, k, seed + SEEDS_PER_PROMPT * number + k)
        for number, prompt in enumerate(prompts)
        for k in range(num_images)
    ]


def draw_pictures(
    model: LoadedModel,
    config: GenerateConfig,
    jobs: Sequence[Job],
    folder: Path,
    overwrite: bool,
    progress: Progress,
    label: str,
    tell: Callable[[str], None],
) -> tuple[list[Picture], Speed]:
    """Draw every job into `folder`, each picture with its recipe, and time it.

    Args:
        model: Loaded for `config`.
        config: How to draw.
        jobs: What to draw.
        folder: Gets files called 0000-000.png: prompt, picture.
        overwrite: Whether files of these names may be replaced.
        progress: Shows the steps.
        label: What to call this run.
        tell: Called with lines for a person.

    Returns:
        The pictures in the order of the jobs, and the speed. The first batch warms up and is not timed unless
        it is the only one.
    """
    pictures: dict[int, Picture] = {}
    batches: list[tuple[float, int]] = []  # seconds, pictures
    _reset_peak(model.unet.device)
    size = 1
    last: Mapping[str, Any] = {}
    with progress(label, len(jobs)) as on_step:
        drawing = pipeline.generate(config, model, on_step, list(jobs), tell)
        while True:
            started = time.perf_counter()
            picture = next(drawing, None)
            elapsed = time.perf_counter() - started
            if picture is None:
                break
            if picture.recipe["image"]["batch_position"] == 0:
                batches.append((elapsed, 0))
                size = max(size, picture.recipe["image"]["batch_shape"][0])
            batches[-1] = (batches[-1][0], batches[-1][1] + 1)
            job = jobs[picture.index]
            file = folder / f"{job.prompt_index:04d}-{job.image_index:03d}.png"
            images.save(file, picture.pixels, picture.recipe, overwrite=overwrite)
            pictures[picture.index] = Picture(file, picture.prompt, picture.seed, model.family.name)
            last = picture.recipe
    timed = batches[1:] or batches
    memory, whose = _peak_memory(model.unet.device)
    conditions = f"{_conditions(last)}, batches of {size}"
    speed = Speed(sum(s for s, _ in timed), sum(n for _, n in timed), memory, whose, conditions)
    return [pictures[index] for index in sorted(pictures)], speed


def _said_by(file: Path) -> tuple[str, int | None, str]:
    """Prompt, seed and model family in a picture's own metadata; empty where it does not say."""
    try:
        found = images.read_metadata(file)
        if found.recipe is not None:
            config = recipes.config_of(found.recipe)
            family = str(found.recipe["model"].get("family", ""))
            return " ".join(config.prompts), config.seed, family
        if found.parameters is not None:
            values = recipes.from_parameters(found.parameters)
            return " ".join(values["prompts"]), values.get("seed"), "unknown"
    except StorageError:
        pass  # no recipe that can be read; the picture itself may still be fine
    return "", None, ""


def _conditions(recipe: Mapping[str, Any]) -> str:
    """What the speed of a picture depends on, out of its recipe."""
    config, runtime = recipe["config"], recipe["runtime"]
    threads = f", {runtime['threads']} threads" if runtime["device"] == "cpu" else ""
    return (
        f"{runtime['device_name']} {runtime['dtype']}{threads}, {config['width']}x{config['height']},"
        f" {config['steps']} steps of {config['scheduler']}, guidance {config['guidance_scale']:g}"
    )


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> tuple[int | None, str]:
    """Most memory in use, bytes, and whose it is."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "tensors on the GPU"
    try:
        import resource
    except ImportError:  # Windows
        return None, ""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return peak, "the whole process so far"
