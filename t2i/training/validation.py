"""The loss on pictures that are held out, and the weights at which it was lowest.

A picture is held out by its bytes alone, so it stays on its side when others come or go, or when it is
copied or renamed. Its noise and timesteps come from its bytes too and never change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from t2i import durable
from t2i.dataset import HASHES, ImageFolder
from t2i.errors import DatasetError
from t2i.hashes import hash_files
from t2i.methods import TrainingData
from t2i.methods.draws import Draws

Forward = Callable[[np.ndarray, Draws], tuple[Tensor, dict[str, float]]]
FILE = "best.safetensors"
DRAWS = 4  # noises and timesteps for each picture
MOST_PICTURES = 256  # that take part; more are held out and cost no time


def hold_out(folder: ImageFolder, share: float, cache: Path | None) -> dict[int, int]:
    """Pictures that are not trained on: those of the dataset's own val/, else a share.

    Args:
        folder: The dataset.
        share: `--validation-split`.
        cache: Remembers the digests of the files; None remembers nothing.

    Returns:
        Row → a seed that goes with the picture.

    Raises:
        DatasetError: There is val/ and a share too, or nothing would be left on one side.
    """
    parted = [row for row, example in enumerate(folder.examples) if example.part == "val"]
    if not parted and share == 0:
        return {}
    if parted and share > 0:
        raise DatasetError(
            f"--validation-split {share:g}: {folder.root} has pictures for validation in a folder of its own",
            "leave the option out",
        )
    files = {str(row): example.file for row, example in enumerate(folder.examples)}
    if cache is None:
        return held_out([durable.sha256_file(file) for file in files.values()], share, parted)
    return held_out(list(hash_files(files, cache / HASHES).values()), share, parted)


def held_out(digests: Sequence[str], share: float, always: Iterable[int] = ()) -> dict[int, int]:
    """Row → seed of the pictures that are held out.

    Args:
        digests: SHA-256 of every picture file, hexadecimal, by row.
        share: Of the pictures, 0…1: those whose digest, as a number, is in the lowest share of all numbers.
        always: Rows that are held out whatever their digest.

    Raises:
        DatasetError: All or none of the pictures would be held out.
    """
    kept = set(always)
    out = {
        row: int(digest[16:31], 16)
        for row, digest in enumerate(digests)
        if row in kept or int(digest[:16], 16) < share * 2**64
    }
    if not out or len(out) == len(digests):
        which = "all" if out else "none"
        raise DatasetError(
            f"{which} of {len(digests)} pictures would be held out for validation",
            "give another --validation-split, or more pictures",
        )
    return out


@torch.no_grad()
def validation_loss(forward: Forward, together: bool, data: TrainingData, batch_size: int) -> float:
    """Mean loss of the held-out pictures; the networks must be in evaluation mode.

    Each picture is alone, with `DRAWS` noises from its own seed; where a loss compares the pictures of a
    batch with each other, they are taken together, in an order that is always the same.

    Args:
        forward: Rows and draws → loss, as `Method.loss`.
        together: The loss compares the pictures of a batch.
        data: With at least one picture held out.
        batch_size: Pictures that are compared with each other.
    """
    rows = sorted(data.held_out, key=lambda row: data.held_out[row])[:MOST_PICTURES]
    if together:
        batches = [
            rows_of_bucket[first : first + batch_size]
            for rows_of_bucket in _by_bucket(data, rows)
            for first in range(0, len(rows_of_bucket), batch_size)
        ]
    else:
        batches = [np.full(DRAWS, row) for row in rows]
    total = 0.0
    for batch in batches:
        draws = Draws.seeded(data.held_out[int(batch[0])])
        total += forward(batch, draws)[0].item() * len(batch)
    return total / sum(map(len, batches))


def _by_bucket(data: TrainingData, rows: Sequence[int]) -> list[np.ndarray]:
    """Rows of one size each, in their order."""
    found: dict[int, list[int]] = {}
    for row in rows:
        found.setdefault(data.bucket_of(np.array([row])), []).append(row)
    return [np.array(found[bucket]) for bucket in sorted(found)]


@dataclass(frozen=True)
class Best:
    """When the validation loss was lowest."""

    step: int
    loss: float


def save_best(folder: Path, best: Best, average: Mapping[str, Tensor]) -> None:
    """Replace the best weights of a stage in one step."""
    tensors = {name: value.detach().contiguous() for name, value in average.items()}
    # One entry: the library writes several in another order each time, and equal weights are equal files.
    header = {"best": json.dumps({"step": best.step, "validation_loss": best.loss})}
    durable.fault_point("best.save")
    durable.write_with(folder / FILE, lambda file: save_file(tensors, file, metadata=header))


def read_best(folder: Path) -> Best | None:
    """Of which step the best weights of a stage are; None where there are none."""
    try:
        with safe_open(folder / FILE, "pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})["best"])
        return Best(int(header["step"]), float(header["validation_loss"]))
    except (OSError, KeyError, TypeError, ValueError, SafetensorError):
        return None


def load_best(folder: Path) -> dict[str, Tensor]:
    """The best weights of a stage, by name."""
    return load_file(folder / FILE)
