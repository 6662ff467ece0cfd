"""Whether a model draws its training pictures again: each drawn picture beside the nearest one.

Pictures are compared as thumbnails of 16x16 cells in luminance and colour. A distance is the root of the mean
square difference, 0…1. As in Carlini et al. 2023 (arXiv:2301.13188, section 5.1), it is also told relative
to the distances of the training pictures that come next: near to one and far from all others is a copy, near
to many is a common sight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from t2i import durable
from t2i.config import TrainConfig
from t2i.dataset import to_pixels
from t2i.errors import ModelError
from t2i.latents import to_uint8
from t2i.methods import TrainingData

FILE, SHEET = "memorisation.json", "memorisation.png"
CELLS = 16
NEIGHBOURS = 50
SAME = 0.03  # about 8 of 255 levels: the same picture, whatever else is in the dataset
NEAR, ALONE = 0.1, 0.5  # near, and at most half as far as its neighbours are on average: a copy too
ROWS_TOGETHER = 2048
LUMA = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
"""Y, Cb and Cr of RGB (ITU-R BT.601, as in JPEG)."""

COMPARED = ("unet", "lora", "full", "dreambooth")  # methods whose pictures shall be new ones
SEED = 2000  # other noise than that of the sample sheets

Draw = Callable[[Sequence[str], Sequence[int]], Tensor]


def report_memorisation(folder: Path, data: TrainingData, draw: Draw, config: TrainConfig) -> str:
    """Draw pictures, compare them with the training pictures, and write what was found.

    Args:
        folder: Of the stage; gets memorisation.json and memorisation.png.
        data: Of the run; pictures that are held out are not compared with.
        draw: Prompts and seeds → pixels (B, 3, H, W), -1…1.
        config: How many, and the prompts.

    Returns:
        One line for a person.
    """
    prompts = _prompts(data, config)
    try:
        drawn = to_uint8(draw(prompts, range(SEED, SEED + len(prompts))))  # (B, H, W, 3)
    except ModelError as error:
        return f"no comparison with the training pictures: {error.message}"
    rows = data.training_rows()
    found = nearest(drawn, data.pixels, rows)
    pairs: list[dict[str, Any]] = [
        {
            "prompt": prompt,
            "copy": is_copy(distance, ratio),
            "distance": round(distance, 5),
            "ratio": round(ratio, 5),
            "training_picture": _name(data, row),
            "caption": data.captions[row],
        }
        for prompt, (row, distance, ratio) in zip(prompts, found, strict=True)
    ]
    copies = sum(pair["copy"] for pair in pairs)
    durable.write_json(
        folder / FILE,
        {
            "copies": copies,
            "pictures": len(pairs),
            "training_pictures": len(rows),
            "measure": f"root mean square difference of {CELLS}x{CELLS} cells in luminance and colour, "
            f"0 to 1; ratio: over the mean distance of the {NEIGHBOURS} next training pictures",
            "copy_means": f"distance < {SAME}, or distance < {NEAR} and ratio < {ALONE}",
            "pairs": pairs,
        },
    )
    _write_sheet(folder / SHEET, drawn, data, [row for row, _, _ in found])
    if not copies:
        return f"memorisation: none of {len(pairs)} drawn pictures is a copy of a training picture"
    return (
        f"memorisation: {copies} of {len(pairs)} drawn pictures are copies of training pictures, see "
        f"{folder / SHEET}"
    )


def thumbnails(pixels: np.ndarray) -> np.ndarray:
    """Mean luminance and colour of the cells of pictures.

    Args:
        pixels: uint8, (B, 3, H, W).

    Returns:
        float32, (B, 3 x 16 x 16), luminance 0…1 and colours -0.5…0.5.
    """
    count, _, height, width = pixels.shape
    rows = np.linspace(0, height, CELLS + 1).astype(int)[:-1]
    columns = np.linspace(0, width, CELLS + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.float32), rows, axis=2), columns, axis=3)
    sizes = np.diff([*rows, height])[:, None] * np.diff([*columns, width])[None, :]
    cells: np.ndarray = np.einsum("dc,bchw->bdhw", LUMA, sums / sizes / 255.0)
    return cells.reshape(count, -1).astype(np.float32)


def nearest(drawn: np.ndarray, pixels: np.ndarray, rows: np.ndarray) -> list[tuple[int, float, float]]:
    """The training picture nearest to each picture.

    Args:
        drawn: uint8, (B, H, W, 3).
        pixels: uint8, (N, 3, H', W').
        rows: Which of them were trained on.

    Returns:
        Row, distance, and the distance over the mean of the next `NEIGHBOURS` training pictures, 1 where
        there are none; pictures equal to the nearest one do not count among these.
    """
    wanted = thumbnails(drawn.transpose(0, 3, 1, 2))
    found: list[np.ndarray] = []
    for start in range(0, len(rows), ROWS_TOGETHER):
        some = thumbnails(np.asarray(pixels[rows[start : start + ROWS_TOGETHER]]))
        found.append(np.stack([np.sqrt(np.square(some - one).mean(1)) for one in wanted]))
    distances = np.concatenate(found, axis=1)  # (B, N)
    result = []
    for one in distances:
        order = np.argsort(one, kind="stable")
        best = float(one[order[0]])
        others = one[order][one[order] > best + 1e-6][:NEIGHBOURS]
        result.append((int(rows[order[0]]), best, best / float(others.mean()) if len(others) else 1.0))
    return result


def is_copy(distance: float, ratio: float) -> bool:
    """Whether a drawn picture is a training picture again; see `nearest`."""
    return distance < SAME or (distance < NEAR and ratio < ALONE)


def _prompts(data: TrainingData, config: TrainConfig) -> list[str]:
    """As many prompts as pictures are asked for: those of the sheet, else captions spread over the data."""
    count = config.memorisation_samples
    rows = data.training_rows()
    spread = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    given = [] if config.instance_prompt is None else [config.instance_prompt]
    known = list(config.sample_prompts) or given or [data.captions[row] for row in spread]
    return [known[number % len(known)] for number in range(count)]


def _name(data: TrainingData, row: int) -> str:
    return data.names[row] if row < len(data.names) else f"row {row}"


def _write_sheet(path: Path, drawn: np.ndarray, data: TrainingData, rows: Sequence[int]) -> None:
    """Pairs of pictures, the drawn one over the training picture, eight pairs a line."""
    from t2i.methods.sheet import save_sheet

    ours = to_pixels(drawn.transpose(0, 3, 1, 2), range(len(drawn)))
    theirs = to_pixels(data.pixels, rows)
    lines = []
    for start in range(0, len(ours), 8):
        lines += [ours[start : start + 8], theirs[start : start + 8]]
    save_sheet(path, lines)


def summary(folder: Path) -> dict[str, Any]:
    """What `report_memorisation` wrote in the folder of a stage; empty where it did not."""
    import json

    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
