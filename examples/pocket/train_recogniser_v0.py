"""Train the judge of version 0 on fresh renderings and write its weights and figures.

    python examples/pocket/train_recogniser_v0.py

About ten minutes of CPU time. Its training scenes hold every combination, those held out from pocket
included, and no picture that pocket made; nothing of it flows back into pocket.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from captions import BACKGROUNDS
from glyphs import DEFAULT_FONT, GlyphSource, core_concepts
from judging import judge_renderings
from numpy.typing import NDArray
from scenes import draw, scene_at
from spoiling import empty_some, move, spoil
from torch import Tensor
from torch.nn import functional as F

from t2i.catalog import ASSETS
from t2i.evaluation.recogniser import GRID, PICTURE_PX, GridRecogniser, load_recogniser, save_recogniser
from t2i.evaluation.recogniser_networks import NOTHING

FOLDER = ASSETS / "recogniser"
WEIGHTS_FILE, VOCABULARY_FILE = FOLDER / "recogniser.safetensors", FOLDER / "vocabulary.json"

DATA_SEED = 77_000  # far from the seeds with which pocket's scenes are rendered
CHUNK = 1000
MIDDLE = 0.27  # a cell belongs to a thing if it is within this share of the thing's sides from its centre
CELL_PX = PICTURE_PX / GRID

Examples = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]
"""Pictures (N, 64, 64, 3); boxes (N, 2, 5): class (0 = none), x, y, width, height in px; colours (N,)."""


def render_examples(start: int, count: int = CHUNK) -> Examples:
    """Render scenes `start` to `start + count` with what they show."""
    glyphs = GlyphSource(DEFAULT_FONT)
    classes = {name: index + 1 for index, name in enumerate(core_concepts())}
    colours = {name: index for index, name in enumerate(BACKGROUNDS)}
    pictures: NDArray[np.uint8] = np.empty((count, PICTURE_PX, PICTURE_PX, 3), dtype=np.uint8)
    boxes: NDArray[np.float32] = np.zeros((count, 2, 5), dtype=np.float32)
    backgrounds: NDArray[np.int64] = np.empty(count, dtype=np.int64)
    for row in range(count):
        scene = scene_at(start + row, DATA_SEED, glyphs, PICTURE_PX, allow_held_out=True)
        pictures[row] = draw(scene, glyphs, PICTURE_PX)
        for slot, placed in enumerate(scene.objects):
            boxes[row, slot] = classes[placed.concept], placed.x, placed.y, placed.width, placed.height
        backgrounds[row] = colours[scene.background]
    return pictures, boxes, backgrounds


def label_cells(boxes: Tensor) -> Tensor:
    """Say for each cell which concept's middle it lies in.

    Args:
        boxes: (B, 2, 5), class, x, y, width, height in px.

    Returns:
        (B, 8, 8) classes, 0 = nothing.
    """
    middles = (torch.arange(GRID) + 0.5) * CELL_PX
    labels = torch.full((len(boxes), GRID, GRID), NOTHING)
    for slot in range(boxes.shape[1]):
        kind, x, y, width, height = boxes[:, slot].unbind(dim=1)
        # At least the cell that holds the centre, however thin the thing is.
        near_x = (middles - x[:, None]).abs() <= (MIDDLE * width).clamp(min=CELL_PX / 2)[:, None]
        near_y = (middles - y[:, None]).abs() <= (MIDDLE * height).clamp(min=CELL_PX / 2)[:, None]
        inside = near_y[:, :, None] & near_x[:, None, :] & (kind > 0)[:, None, None]
        labels = torch.where(inside, kind.long()[:, None, None], labels)
    return labels


def train(
    model: GridRecogniser, steps: int, batch_size: int, scenes: int, learning_rate: float
) -> GridRecogniser:
    """Train a judge.

    Args:
        model: New, or trained before.
        steps: Number of updates.
        batch_size: Pictures per update.
        scenes: How many renderings to hold in memory (12 kB each); each is spoilt anew every time.
        learning_rate: Peak of the one-cycle schedule.
    """
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        chunks = list(pool.map(render_examples, range(0, scenes, CHUNK)))
    pictures, boxes, colours = (
        torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*chunks, strict=True)
    )
    model = model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    weight = torch.ones(1 + len(model.concepts))
    weight[NOTHING] = 0.5  # nine cells in ten hold nothing
    started, order = time.monotonic(), torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < batch_size:
            order = torch.randperm(len(pictures))
        rows, order = order[:batch_size], order[batch_size:]
        pixels = pictures[rows].permute(0, 3, 1, 2).float() / 127.5 - 1
        pixels, shown, _ = empty_some(pixels, boxes[rows])
        pixels, moved = move(pixels, shown)
        pixels = spoil(pixels).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            cells, background = model(pixels)
        loss_cells = F.cross_entropy(cells.float(), label_cells(moved), weight=weight)
        loss = loss_cells + 0.1 * F.cross_entropy(background.float(), colours[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.4f} {time.monotonic() - started:.0f} s", flush=True)
    return model


def new_recogniser() -> GridRecogniser:
    """An untrained judge with a class for each concept and each background."""
    return GridRecogniser(tuple(core_concepts()), tuple(BACKGROUNDS))


def earlier_stages(weights: Path | None) -> list[dict[str, float]]:
    """Read how weights were trained before, from the record beside them."""
    if weights is None:
        return []
    stages: list[dict[str, float]] = json.loads(weights.with_suffix(".json").read_text("utf-8"))["training"]
    return stages


def main() -> None:
    """Read the command line, train, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1200, help="number of updates")
    parser.add_argument("--batch-size", type=int, default=128, help="pictures per update")
    parser.add_argument("--scenes", type=int, default=40000, help="renderings held in memory")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak of the one-cycle schedule")
    parser.add_argument("--output", type=Path, default=WEIGHTS_FILE, help="where the weights go")
    parser.add_argument("--start-from", type=Path, help="go on from these weights; default: from nothing")
    options = parser.parse_args()
    started = time.monotonic()
    torch.manual_seed(0)
    model = new_recogniser()
    if options.start_from:
        model.load_state_dict(load_recogniser(options.start_from, VOCABULARY_FILE).state_dict())
    train(model, options.steps, options.batch_size, options.scenes, options.learning_rate)
    save_recogniser(model, options.output)
    stage = {
        "steps": options.steps,
        "batch_size": options.batch_size,
        "scenes": options.scenes,
        "learning_rate": options.learning_rate,
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    record = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": "renderings of all combinations, held-out ones included; no generated picture",
        "training": [*earlier_stages(options.start_from), stage],
        # Measured with the weights as stored, not as trained.
        "held_out_renderings": judge_renderings(
            load_recogniser(options.output, VOCABULARY_FILE), GlyphSource(DEFAULT_FONT)
        ),
    }
    options.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
