"""Pictures of a class, drawn by the base model itself, for prior preservation.

They are in OUTPUT/class_images with their recipes. What is there already is not drawn again, so a run that
was stopped goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from t2i import images, weights
from t2i.config import GenerateConfig, TrainConfig
from t2i.errors import Interrupted, T2IError
from t2i.jobs import Job, plan_jobs
from t2i.recipes import config_of
from t2i.training.start import base_of

FOLDER = "class_images"
FIRST_SEED = 1_000_000
SHOWN_EVERY = 25


def class_files(config: TrainConfig) -> list[Path]:
    """The pictures of the class, whether they are there yet or not."""
    folder = Path(config.output) / FOLDER
    return [folder / f"{number:05d}.png" for number in range(config.num_class_images)]


def draw_class_images(config: TrainConfig, stopped: threading.Event) -> Iterator[str]:
    """Draw the pictures of `--class-prompt` that are missing, yielding lines for a person.

    Args:
        config: With a `class_prompt`; `seed` decides the pictures.
        stopped: Set when the run shall end.

    Raises:
        Interrupted: It was set; what is drawn stays.
        ModelError: The base model cannot be used, or its pictures are not made of finite numbers.
    """
    assert config.class_prompt is not None
    from t2i.pipeline import generate

    wanted = GenerateConfig(
        prompts=(config.class_prompt,), num_images=config.num_class_images, seed=FIRST_SEED + config.seed,
        model=config.model or "pocket", device=config.device,
    )  # fmt: skip
    files, hashes = class_files(config), weights.hash_files(base_of(config).files)
    missing = [job for job in plan_jobs(wanted) if not _is_there(files[job.index], job, hashes)]
    if not missing:
        return
    yield f"{len(missing)} class pictures to draw: {config.class_prompt}"
    for number, picture in enumerate(generate(wanted, jobs=missing), 1):
        images.save(files[picture.index], picture.pixels, picture.recipe, overwrite=True)
        if stopped.is_set():
            raise Interrupted(f"{number} of {len(missing)} class pictures drawn", "the same command goes on")
        if number % SHOWN_EVERY == 0:
            yield f"{number} of {len(missing)} class pictures drawn"


def _is_there(file: Path, job: Job, hashes: Mapping[str, str]) -> bool:
    """Whether a file holds the picture of a job, drawn by a model of these files, by its recipe."""
    try:
        recipe = images.read_recipe(file)
        drawn = config_of(recipe)
    except T2IError:
        return False
    there = drawn.prompts, drawn.seed, recipe["model"].get("files")
    return there == ((job.prompt,), job.seed, dict(hashes))
