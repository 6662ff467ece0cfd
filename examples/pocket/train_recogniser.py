"""Train the judge on fresh renderings and write its weights and figures.

    python examples/pocket/train_recogniser.py

About ten minutes of CPU time. Its training scenes hold every combination, those held out from pocket
included, and no picture that pocket made; nothing of it flows back into pocket.
"""

from __future__ import annotations

import argparse
import json
import math
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
from torch import Tensor
from torch.nn import functional as F

from t2i.evaluation.recogniser import (
    GRID,
    NOTHING,
    PICTURE_PX,
    WEIGHTS_FILE,
    Recogniser,
    load_recogniser,
    save_recogniser,
)

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


def _uniform(count: int, low: float, high: float) -> Tensor:
    return torch.rand(count, 1, 1, 1) * (high - low) + low


def move(pixels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Turn up to 8 degrees, scale by 0.88...1.12, shift up to 3 px; the boxes' centres and sizes follow."""
    count = len(pixels)
    angle = _uniform(count, -8, 8).flatten() * math.pi / 180
    scale = _uniform(count, 0.88, 1.12).flatten()
    shift = (torch.rand(count, 2) * 2 - 1) * 3 / (PICTURE_PX / 2)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    forward = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    inverse = torch.linalg.inv(forward)
    # affine_grid asks where each output pixel comes from, so it wants the inverse.
    theta = torch.cat([inverse, -(inverse @ shift[:, :, None])], dim=2)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    centre = boxes[..., 1:3] / (PICTURE_PX / 2) - 1
    centre = torch.einsum("bij,bkj->bki", forward, centre) + shift[:, None]
    centre = (centre + 1) * (PICTURE_PX / 2)
    return moved, torch.cat([boxes[..., :1], centre, boxes[..., 3:] * scale[:, None, None]], dim=2)


def empty_some(pixels: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Turn an eighth of the examples into pictures of nothing: half plain, half with shuffled 8 px tiles.

    Without them the judge names something in every picture, and colours alone would do as an answer.
    """
    pixels, boxes = pixels.clone(), boxes.clone()
    chosen = torch.randperm(len(pixels))[: max(2, len(pixels) // 8)]
    plain, shuffled = chosen.chunk(2)
    pixels[plain] = pixels[plain][:, :, :1, :1].expand(-1, -1, PICTURE_PX, PICTURE_PX)  # a corner's colour
    tiles = F.unfold(pixels[shuffled], 8, stride=8)
    tiles = tiles[:, :, torch.randperm(tiles.shape[2])]
    pixels[shuffled] = F.fold(tiles, (PICTURE_PX, PICTURE_PX), 8, stride=8)
    boxes[chosen] = 0
    return pixels, boxes


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """Blur with a Gaussian of `sigma` px."""
    reach = max(1, math.ceil(2 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1)
    wide = F.conv2d(F.pad(pixels, (reach, reach, 0, 0), mode="replicate"), weights, groups=3)
    return F.conv2d(F.pad(wide, (0, 0, reach, reach), mode="replicate"), weights.transpose(2, 3), groups=3)


def coarsen(pixels: Tensor, size: int) -> Tensor:
    """Shrink to `size` px and enlarge again."""
    small = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(small, pixels.shape[-2:], mode="bicubic", align_corners=False)


def compress(pixels: Tensor, coarseness: float) -> Tensor:
    """Quantise the cosine coefficients of 8 x 8 blocks, high frequencies more, as JPEG does."""
    k = torch.arange(8.0)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * 0.5
    basis[0] /= math.sqrt(2)
    blocks = pixels.unfold(2, 8, 8).unfold(3, 8, 8)
    step = coarseness * (1 + k[None] + k[:, None])
    coefficients = (basis @ blocks @ basis.T / step).round() * step
    back = basis.T @ coefficients @ basis
    return back.transpose(3, 4).reshape(pixels.shape)


def spoil(pixels: Tensor) -> Tensor:
    """Make renderings look like generated pictures: soft, blotchy, a little off in colour.

    Args:
        pixels: (B, 3, 64, 64), -1...1, in random order (each eighth of the batch is spoilt in its own way).

    Returns:
        Same shape, still about -1...1.
    """
    parts = list(pixels.chunk(8))
    for index, part in enumerate(parts):
        if index in (0, 1, 2):
            parts[index] = blur(part, 0.4 + 0.4 * index + 0.4 * float(torch.rand(())))
        elif index in (3, 4):
            parts[index] = coarsen(part, int(torch.randint(24, 52, ())))
        elif index == 5:
            parts[index] = compress(part, 0.02 + 0.06 * float(torch.rand(())))
    pixels = torch.cat(parts)
    count = len(pixels)
    # Blotches: noise at an eighth and at half of the resolution, as a weak decoder leaves behind.
    for size in (8, 32):
        noise = torch.randn(count, 3, size, size) * _uniform(count, 0, 0.10)
        pixels = pixels + F.interpolate(noise, pixels.shape[-2:], mode="bilinear", align_corners=False)
    pixels = pixels + torch.randn_like(pixels) * _uniform(count, 0, 0.08)
    contrast = _uniform(count, 0.85, 1.15)
    tint = (torch.rand(count, 3, 1, 1) * 2 - 1) * 0.08 + _uniform(count, -0.08, 0.08)
    return (pixels * contrast + tint).clamp(-1, 1)


def train(model: Recogniser, steps: int, batch_size: int, scenes: int, learning_rate: float) -> Recogniser:
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
        pixels, moved = move(*empty_some(pixels, boxes[rows]))
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


def new_recogniser() -> Recogniser:
    """An untrained judge with a class for each concept and each background."""
    return Recogniser(tuple(core_concepts()), tuple(BACKGROUNDS))


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
    model = load_recogniser(options.start_from) if options.start_from else new_recogniser()
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
        "held_out_renderings": judge_renderings(load_recogniser(options.output), GlyphSource(DEFAULT_FONT)),
    }
    options.output.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
