"""How long the missing pictures will take, and how much disk: by pictures that are there, or guessed.

Pictures of the same settings in the folder were measured. Where there are none, the arithmetic of a denoising
step follows from the UNet's config, and a speed is assumed: right in its order of magnitude, and told as a
guess.
"""

from __future__ import annotations

import os
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

CORE_FLOP_S = 60e9
"""Of one core of a CPU, in a batch of pictures; 0.9 to 1.8 times that on the CPUs that were measured."""

GPU_FLOP_S = 3e13
"""Of a GPU in half precision without a compiled UNet: 22 steps of SD 1.5 a second are 3.5e13."""

FILE_BYTES_PER_PIXEL = {".png": 1.8, ".webp": 0.3, ".jpg": 0.3, ".jpeg": 0.3}
RECIPE_BYTES = 6000
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd")  # asking torch costs two seconds


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
    return calls * flop / _speed(config.device), size


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


def unet_flop(unet: Mapping[str, Any], width: float, height: float) -> float:
    """About how many floating point operations one call of a `UNet2DConditionModel` is, for one picture.

    A level of C channels on P places has 2 layers + 1 blocks on its two ways, of about 27 C² P products in
    the convolutions (those on the way up see twice the channels) and 20 C² P in each transformer layer. A
    quarter more is the rest. SD 1.5 at 512 px: 0.80e12, SDXL at 1024 px: 6.8e12.

    Args:
        unet: Its config.
        width: Of the latents, places.
        height: Of the latents, places.
    """
    channels: Sequence[int] = unet["block_out_channels"]
    layers, depths = (_per_level(unet.get(name, 1), len(channels))
                      for name in ("layers_per_block", "transformer_layers_per_block"))  # fmt: skip
    kinds = unet.get("down_block_types", ("CrossAttnDownBlock2D",) * len(channels))
    total = 0.0
    for level, kind in enumerate(kinds):
        places = width * height / 4**level
        depth = depths[level] if "Attn" in kind else 0
        total += (2 * layers[level] + 1) * (27 + 20 * depth) * channels[level] ** 2 * places
    return 2.5 * total


def _per_level(value: Any, levels: int) -> list[int]:
    return [value] * levels if isinstance(value, int) else [int(one) for one in value]


def _speed(device: str) -> float:
    """Assumed floating point operations a second of what will draw."""
    if device != "cpu" and (device != "auto" or any(map(os.path.exists, GPU_FILES))):
        return GPU_FLOP_S
    return CORE_FLOP_S * (os.cpu_count() or 1)
