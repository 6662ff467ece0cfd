"""Charts of a report as one picture, drawn with Pillow: bars for one run, curves for a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from t2i.charts import COLOURS, nice_ticks
from t2i.evaluation.figures import Figure
from t2i.evaluation.questions import CATEGORIES
from t2i.evaluation.report import Report, Run, shown_value
from t2i.texts import latin

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

PANEL_WIDTH, PANEL_HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 300, 62, 16, 34, 44
COLUMNS = 2
INK, FAINT, PAPER = "#222222", "#d8d8d8", "white"
CURVES = ("adherence", "CLIPScore", "FID", "KID", "CMMD", "diversity", "seconds per image")
MOST_LINES = len(COLOURS)


@dataclass(frozen=True)
class Panel:
    """One chart.

    Attributes:
        title: Above it; for shares the axis is in percent.
        x_title: Below it.
        ticks: Names of the places along the x axis.
        lines: Name of each line → (place, figure) pairs.
        bars: Draw bars instead of lines.
        joined: Draw lines from place to place, since something lies between them.
    """

    title: str
    x_title: str
    ticks: Sequence[str]
    lines: Mapping[str, Sequence[tuple[int, Figure]]]
    bars: bool = False
    joined: bool = True


def draw_plot(report: Report) -> np.ndarray:
    """The charts of a report, uint8 (H, W, 3)."""
    from PIL import Image, ImageDraw, ImageFont

    panels = sweep_panels(report.runs) if len(report.runs) > 1 else [bar_panel(report.runs[0])]
    names = [name for name in panels[0].lines if name] if panels else []
    legend = 20 * len(names) + 10 if names else 0
    columns = min(COLUMNS, max(1, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    sheet = Image.new("RGB", (columns * PANEL_WIDTH, rows * PANEL_HEIGHT + legend), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.font = ImageFont.load_default(12)
    if not panels:
        pen.text((LEFT, TOP), "nothing to draw: no figure was measured", fill=INK)
    for number, panel in enumerate(panels):
        _draw_panel(pen, panel, number % columns * PANEL_WIDTH, number // columns * PANEL_HEIGHT)
    for number, name in enumerate(names):
        y = rows * PANEL_HEIGHT + 20 * number
        pen.rectangle((LEFT, y + 3, LEFT + 18, y + 9), fill=COLOURS[number % len(COLOURS)])
        pen.text((LEFT + 26, y - 1), latin(name), fill=INK)
    return np.asarray(sheet)


def bar_panel(run: Run) -> Panel:
    """Adherence by category with intervals, of one run."""
    names = [name for name in ("adherence", *CATEGORIES) if run.figure(name) is not None]
    figures = [
        (place, figure) for place, name in enumerate(names) if (figure := run.figure(name)) is not None
    ]
    title = "adherence by category" if figures else "adherence was not measured"
    return Panel(title, "", names, {"": figures}, bars=True)


def sweep_panels(runs: Sequence[Run]) -> list[Panel]:
    """A chart for each figure that was measured, along the setting with the most values."""
    axes: dict[str, list[Any]] = {}
    for run in runs:
        for name, value in run.settings.items():
            values = axes.setdefault(name, [])
            if value not in values:
                values.append(value)
    numeric = [name for name, values in axes.items() if len(values) > 1 and not isinstance(values[0], str)]
    along = max(numeric or axes, key=lambda name: len(axes[name]))
    places = sorted(axes[along]) if along in numeric else axes[along]
    labels = {id(run): Run(_without(run.settings, along), ()).label for run in runs}
    names = list(dict.fromkeys(labels.values()))
    more = f" (the first {MOST_LINES} of {len(names)} curves)" if len(names) > MOST_LINES else ""
    panels = []
    for figure_name in CURVES:
        lines: dict[str, list[tuple[int, Figure]]] = {name: [] for name in names[:MOST_LINES]}
        for run in sorted(runs, key=lambda run: places.index(run.settings[along])):
            figure = run.figure(figure_name)
            if figure is not None and labels[id(run)] in lines:
                lines[labels[id(run)]].append((places.index(run.settings[along]), figure))
        if any(lines.values()):
            ticks = [shown_value(place) for place in places]
            panels.append(
                Panel(figure_name + more, along.replace("_", " "), ticks, lines, joined=along in numeric)
            )
    return panels


def _draw_panel(pen: ImageDraw, panel: Panel, left: int, top: int) -> None:
    """Axes, then bars or lines with their intervals."""
    figures = [figure for points in panel.lines.values() for _, figure in points]
    pen.text((left + LEFT, top + 10), latin(panel.title), fill=INK)
    if not figures:
        return
    ends = [end for figure in figures for end in (figure.interval or (figure.value or 0.0,) * 2)]
    ends += [figure.value or 0.0 for figure in figures]
    ticks = nice_ticks(0.0, 1.0) if panel.bars else nice_ticks(min(ends), max(ends))
    x0, x1 = left + LEFT, left + PANEL_WIDTH - RIGHT
    y0, y1 = top + PANEL_HEIGHT - BOTTOM, top + TOP
    slot = (x1 - x0) / max(1, len(panel.ticks))

    def x_of(place: int) -> float:
        return x0 + (place + 0.5) * slot

    def y_of(value: float) -> float:
        return y0 - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (y0 - y1)

    for tick in ticks:
        pen.line((x0, y_of(tick), x1, y_of(tick)), fill=FAINT)
        pen.text((x0 - 6, y_of(tick)), figures[0].text(tick), fill=INK, anchor="rm")
    crowded = any(pen.textlength(latin(name)) > 0.95 * slot for name in panel.ticks)
    for place, name in enumerate(panel.ticks):
        rows = latin(name).split(" ") if panel.bars else [latin(name)]
        for row, word in enumerate(rows):
            lower = row + (place % 2 if crowded and not panel.bars else 0)
            pen.text((x_of(place), y0 + 6 + 12 * lower), word, fill=INK, anchor="ma")
    pen.text(((x0 + x1) / 2, y0 + 30), latin(panel.x_title), fill=INK, anchor="ma")
    for number, points in enumerate(panel.lines.values()):
        colour = COLOURS[number % len(COLOURS)]
        aside = 5 * (number - (len(panel.lines) - 1) / 2)  # curves that agree stay visible side by side
        drawn = [(x_of(place) + aside, y_of(figure.value or 0.0)) for place, figure in points]
        if panel.bars:
            for x, y in drawn:
                pen.rectangle((x - 0.3 * slot, y, x + 0.3 * slot, y0), fill=colour)
        elif panel.joined and len(drawn) > 1:
            pen.line(drawn, fill=colour, width=2)
        for (x, y), (_, figure) in zip(drawn, points, strict=True):
            if not panel.bars:
                pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
            if figure.interval is not None:
                low, high = (y_of(end) for end in figure.interval)
                pen.line((x, low, x, high), fill=INK if panel.bars else colour, width=1)
                for end in (low, high):
                    pen.line((x - 4, end, x + 4, end), fill=INK if panel.bars else colour, width=1)


def _without(settings: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {other: value for other, value in settings.items() if other != name}
