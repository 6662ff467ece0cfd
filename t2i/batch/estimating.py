"""How long the missing pictures will take, and how much disk: by pictures that are there, or guessed.

Pictures of the same settings in the folder were measured. Where there are none, the arithmetic of a denoising
step follows from the UNet's config, and a speed is assumed: right in its order of magnitude, and told as a
guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from t2i import weights
from t2i.batch.manifest import Record
from t2i.batch.plan import BatchJob, in_common
from t2i.config import GenerateConfig
from t2i.errors import T2IError
from t2i.flops import assumed_speed, unet_flop

FILE_BYTES_PER_PIXEL = {".png": 1.8, ".webp": 0.3, ".jpg": 0.3, ".jpeg": 0.3}
RECIPE_BYTES = 6000


@dataclass(frozen=True)
class Estimate:
    """What the missing pictures will take.

    Attributes:
        seconds: Of drawing; None where only a cluster knows how many workers there are, or where nothing is
            known of a model that is not here yet.
        size_bytes: Of files; None where nothing is known of such a model.
        measured: By pictures of the same settings; else at least in part a guess.
    """

    seconds: float | None
    size_bytes: int | None
    measured: bool = True


def estimate(
    todo: Sequence[BatchJob],
    done: Sequence[BatchJob],
    records: Mapping[str, Record],
    folder: Path,
    workers: int | None = 1,
) -> Estimate | None:
    """What `todo` will take; None where nothing is missing.

    Args:
        todo: What is missing.
        done: What is there.
        records: Of the manifest.
        folder: Of the pictures.
        workers: That draw at once, each as fast as those that drew `done`; None: nobody knows.
    """
    if not todo:
        return None
    means = _measured(done, records, folder)
    told = [means.get(in_common(job.config)) for job in todo]
    rows = [row or guess(job.config, job.file) for row, job in zip(told, todo, strict=True)]
    seconds, sizes = [row[0] for row in rows], [row[1] for row in rows]
    total = None if workers is None or None in seconds else sum(filter(None, seconds))
    return Estimate(
        None if total is None or workers is None else total / min(workers, len(todo)),
        None if None in sizes else round(sum(filter(None, sizes))),
        None not in told,
    )


def _measured(
    done: Sequence[BatchJob], records: Mapping[str, Record], folder: Path
) -> dict[tuple[Any, ...], tuple[float, float]]:
    """Settings → mean seconds and bytes of their pictures."""
    found: dict[tuple[Any, ...], list[tuple[float, int]]] = {}
    for job in done:
        seconds = records[job.id].get("seconds")
        if isinstance(seconds, (int, float)):
            row = seconds, (folder / job.file).stat().st_size
            found.setdefault(in_common(job.config), []).append(row)
    return {
        config: (sum(row[0] for row in rows) / len(rows), sum(row[1] for row in rows) / len(rows))
        for config, rows in found.items()
    }


def guess(config: GenerateConfig, file: str) -> tuple[float | None, float | None]:
    """Seconds and bytes of one picture by its settled config; None where that says too little."""
    if config.width is None or config.height is None:
        return None, None
    size = config.width * config.height * FILE_BYTES_PER_PIXEL.get(Path(file).suffix.lower(), 1.8)
    size += RECIPE_BYTES
    flop = _step_flop(config.model, config.width, config.height)
    if flop is None or config.steps is None or config.guidance_scale is None:
        return None, size
    calls = config.steps * (1 if config.guidance_scale == 1 else 2)
    return calls * flop / assumed_speed(config.device), size


@cache
def _step_flop(model: str, width: int, height: int) -> float | None:
    """Of one call of a model's UNet, or None where the model is not on this machine."""
    try:
        source = weights.resolve_model(model)
        configs = source.inspection.contents.configs if source.path is not None else None
    except T2IError:
        return None
    if configs is None:
        return None
    shrink = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
    return unet_flop(configs["unet"], width / shrink, height / shrink)
