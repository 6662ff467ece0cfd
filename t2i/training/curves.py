"""The figures of a stage over its steps, out of metrics.jsonl, as charts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t2i import durable
from t2i.charts import Chart, Curve, smoothed, to_pixels

FILE = "loss.png"
SMOOTHED_FROM = 50  # fewer lines are shown as they are


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl by step, one a step; a line torn by a kill is left out."""
    rows: dict[float, dict[str, Any]] = {}
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            values = json.loads(line)
            rows.setdefault(values["step"], {}).update(values)
        except (ValueError, KeyError, TypeError):
            continue
    return [rows[step] for step in sorted(rows)]


def charts_of(rows: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Loss, learning rate and throughput over the steps; what was not logged is left out."""
    loss, validation = points_of(rows, "loss"), points_of(rows, "val_loss")
    curves = [Curve("loss", loss)]
    if len(loss) > SMOOTHED_FROM:
        curves = [Curve("each step", loss, faint=True), Curve("loss", smoothed(loss))]
    charts = [
        Chart("loss", "step", [*curves, *([Curve("validation", validation)] if validation else [])]),
        Chart("learning rate", "step", [Curve("rate", points_of(rows, "learning_rate"))]),
        Chart("pictures per second", "step", [Curve("pictures/s", points_of(rows, "images_per_s"))]),
    ]
    return [chart for chart in charts if any(curve.points for curve in chart.curves)]


def points_of(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, figure) of the lines that have it."""
    return [(float(row["step"]), float(row[name])) for row in rows if isinstance(row.get(name), (int, float))]


def write_curves(folder: Path) -> None:
    """Draw loss.png in the folder of a stage."""
    from PIL import Image

    charts = charts_of(read_metrics(folder))
    if charts:
        picture = Image.fromarray(to_pixels(charts))
        durable.write_with(folder / FILE, lambda temporary: picture.save(temporary, format="PNG"))
