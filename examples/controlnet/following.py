"""How well pictures follow given edges: precision and recall of edge pixels, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

RESAMPLES = 10_000
SHEET_GROUPS, TILE_PX, LABEL_PX = 4, 128, 14

Mask = NDArray[np.bool_]


class Following(NamedTuple):
    """How the edges of one picture lie to the edges that were asked for; shares, 0…1.

    Attributes:
        precision: Of the edge pixels that were drawn, those near one that was asked for.
        recall: Of the edge pixels that were asked for, those near one that was drawn.
    """

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        """The harmonic mean of both; 0 where one of them is."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def following(drawn: Mask, asked: Mask, tolerance: int) -> Following:
    """Compare two maps of edge pixels.

    Args:
        drawn: Edges of the picture, (H, W).
        asked: Edges that it was to follow, (H, W), at least one.
        tolerance: How far apart two pixels may be that count as one, Euclidean, px.
    """

    def share(of: Mask, near: Mask) -> float:
        return float(of[widened(near, tolerance)].sum() / of.sum()) if of.any() else 0.0

    return Following(share(drawn, asked), share(asked, drawn))


def widened(mask: Mask, radius: int) -> Mask:
    """Every pixel that is at most `radius` px from one of the mask, (H, W)."""
    height, width = mask.shape
    padded = np.pad(mask, radius)
    near = np.zeros_like(mask)
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if x * x + y * y <= radius * radius:
                near |= padded[radius + y : radius + y + height, radius + x : radius + x + width]
    return near


def means_with_intervals(
    values: Mapping[str, Sequence[float]], ratio: tuple[str, str], seed: int = 0
) -> dict[str, dict[str, float]]:
    """Mean of each row with its 95 % interval, and that of the ratio of two means.

    Pictures are drawn with replacement, the same ones for all rows (percentile bootstrap, Efron 1979).

    Args:
        values: Name → one value for each picture, all rows equally many.
        ratio: Names of the numerator and the denominator.
        seed: Of the bootstrap.

    Returns:
        Name → "mean", "low", "high"; the ratio under "ratio".
    """
    rows = {name: np.asarray(row, float) for name, row in values.items()}
    count = len(next(iter(rows.values())))
    chosen = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    again = {name: row[chosen].mean(1) for name, row in rows.items()}
    again["ratio"] = again[ratio[0]] / np.maximum(again[ratio[1]], 1e-9)
    means = {name: float(row.mean()) for name, row in rows.items()}
    means["ratio"] = means[ratio[0]] / max(means[ratio[1]], 1e-9)
    return {
        name: {
            "mean": round(means[name], 4),
            "low": round(float(np.quantile(row, 0.025)), 4),
            "high": round(float(np.quantile(row, 0.975)), 4),
        }
        for name, row in again.items()
    }


def sheet(rows: Sequence[tuple[Sequence[NDArray[np.uint8]], str]], titles: Sequence[str]) -> Image.Image:
    """Groups of pictures side by side, four groups a line, each with its label below.

    Args:
        rows: Pictures (H, W, 3) of each group, as many as there are titles, and the group's label.
        titles: Stand above each column of pictures.
    """
    across, group_px = len(titles), len(titles) * (TILE_PX + 2) + 10
    lines = -(-len(rows) // SHEET_GROUPS)
    paper = Image.new("RGB", (SHEET_GROUPS * group_px, LABEL_PX + lines * (TILE_PX + LABEL_PX + 6)), "white")
    pen = ImageDraw.Draw(paper)
    for column in range(min(SHEET_GROUPS, len(rows)) * across):
        x = column // across * group_px + column % across * (TILE_PX + 2)
        pen.text((x + 2, 1), titles[column % across], fill="black")
    for number, (pictures, label) in enumerate(rows):
        left = number % SHEET_GROUPS * group_px
        top = LABEL_PX + number // SHEET_GROUPS * (TILE_PX + LABEL_PX + 6)
        for column, pixels in enumerate(pictures):
            tile = Image.fromarray(pixels).resize((TILE_PX, TILE_PX), Image.Resampling.NEAREST)
            paper.paste(tile, (left + column * (TILE_PX + 2), top))
        pen.text((left + 2, top + TILE_PX + 1), label[:66], fill="black")
    return paper
