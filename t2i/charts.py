"""Curves on axes, as a picture (Pillow) or inside a page (SVG). Knows nothing of what they show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t2i.pages import text
from t2i.texts import latin

if TYPE_CHECKING:
    import numpy as np

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#000000")
"""Okabe and Ito's colours, which people who cannot tell red from green can tell apart."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 260, 62, 16, 30, 36
INK, FAINT, PAPER = "#222222", "#d8d8d8", "white"
LOG_FROM = 20.0  # the largest value over the smallest from which the axis counts powers of ten
MOST_POINTS = 600

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """One line.

    Attributes:
        name: In the legend.
        points: (x, y), x rising; others than finite numbers are left out.
        faint: Drawn thin and pale, such as raw values behind their average.
    """

    name: str
    points: Points
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves on the same axes; `x_title` and `title` are words around them."""

    title: str
    x_title: str
    curves: Sequence[Curve]


def nice_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers that cover low...high, about that many steps apart."""
    if not high > low:
        spread = abs(low) / 2 or 0.5
        low, high = low - spread, high + spread
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def smoothed(points: Points, share: float = 0.02) -> list[tuple[float, float]]:
    """A running mean over the last `share` of the points, at least 1."""
    window, result, total = max(1, round(share * len(points))), [], 0.0
    for place, (x, y) in enumerate(points):
        total += y - (points[place - window][1] if place >= window else 0.0)
        result.append((x, total / min(place + 1, window)))
    return result


def thinned(points: Points, most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most that many of the points, evenly spread, the last one always."""
    stride = max(1, math.ceil(len(points) / most))
    return [point for place, point in enumerate(points) if (len(points) - 1 - place) % stride == 0]


def to_svg(chart: Chart) -> str:
    """The chart as an `<svg>` element that follows the colours of the page around it."""
    placed = _Placed(chart)
    name = text(f"{chart.title} over {chart.x_title}")
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">']
    parts.append(f'<text class="title" x="{LEFT}" y="18">{text(chart.title)}</text>')
    for y, words in placed.y_ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{words}</text>')
    for x, words in placed.x_ticks:
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{words}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{text(chart.x_title)}</text>')
    for number, (curve, points) in enumerate(placed.curves):
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        colour, kind = COLOURS[number % len(COLOURS)], "faint" if curve.faint else "line"
        parts.append(f'<polyline class="{kind}" stroke="{colour}" points="{line}"/>')
        if len(points) == 1:
            parts.append(f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3" fill="{colour}"/>')
        x = WIDTH - RIGHT - 110 * (len(placed.curves) - number)
        parts.append(f'<rect x="{x}" y="11" width="14" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="17">{text(curve.name)}</text>')
    return "".join(parts) + "</svg>"


def to_pixels(charts: Sequence[Chart]) -> np.ndarray:
    """Charts below each other, uint8 (H, W, 3)."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    sheet = Image.new("RGB", (WIDTH, HEIGHT * max(1, len(charts))), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.font = ImageFont.load_default(12)
    for row, chart in enumerate(charts):
        down, placed = row * HEIGHT, _Placed(chart)
        pen.text((LEFT, down + 6), latin(chart.title), fill=INK)
        for y, words in placed.y_ticks:
            pen.line((LEFT, down + y, WIDTH - RIGHT, down + y), fill=FAINT)
            pen.text((LEFT - 6, down + y), words, fill=INK, anchor="rm")
        for x, words in placed.x_ticks:
            pen.text((x, down + HEIGHT - BOTTOM + 5), words, fill=INK, anchor="ma")
        pen.text(
            ((LEFT + WIDTH - RIGHT) / 2, down + HEIGHT - 15), latin(chart.x_title), fill=INK, anchor="ma"
        )
        for number, (curve, points) in enumerate(placed.curves):
            colour = COLOURS[number % len(COLOURS)]
            line = [(x, down + y) for x, y in points]
            pen.line(line, fill=_pale(colour) if curve.faint else colour, width=1 if curve.faint else 2)
            if len(line) == 1:
                pen.ellipse([line[0][0] - 3, line[0][1] - 3, line[0][0] + 3, line[0][1] + 3], fill=colour)
            x = WIDTH - RIGHT - 110 * (len(placed.curves) - number)
            pen.rectangle((x, down + 11, x + 14, down + 14), fill=colour)
            pen.text((x + 18, down + 5), latin(curve.name), fill=INK)
    return np.asarray(sheet)


class _Placed:
    """A chart in pixels: where ticks and points are."""

    def __init__(self, chart: Chart) -> None:
        kept = [
            (curve, [(x, y) for x, y in curve.points if math.isfinite(x) and math.isfinite(y)])
            for curve in chart.curves
        ]
        kept = [(curve, points) for curve, points in kept if points]
        xs = [x for _, points in kept for x, _ in points] or [0.0, 1.0]
        ys = [y for _, points in kept for _, y in points] or [0.0, 1.0]
        self.log = min(ys) > 0 and max(ys) / min(ys) > LOG_FROM
        rows = self._log_ticks(min(ys), max(ys)) if self.log else nice_ticks(min(ys), max(ys))
        self.y_low, self.y_high = self._scale(rows[0]), self._scale(rows[-1])
        columns = nice_ticks(min(xs), max(xs), 5)
        self.x_low = min(xs) if max(xs) > min(xs) else columns[0]
        self.x_high = max(xs) if max(xs) > min(xs) else columns[-1]
        self.y_ticks = [(self._y(value), f"{value:.4g}") for value in rows]
        shown = [value for value in columns if self.x_low <= value <= self.x_high]
        self.x_ticks = [(self._x(value), f"{value:.6g}") for value in shown]
        self.curves = [
            (curve, [(self._x(x), self._y(y)) for x, y in thinned(points)]) for curve, points in kept
        ]

    @staticmethod
    def _log_ticks(low: float, high: float) -> list[float]:
        return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def _x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        share = (self._scale(value) - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _pale(colour: str) -> str:
    """Halfway to white and further."""
    return "#" + "".join(f"{255 - (255 - int(colour[k : k + 2], 16)) * 2 // 5:02x}" for k in (1, 3, 5))
