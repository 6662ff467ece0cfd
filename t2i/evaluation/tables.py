"""The report for a terminal: one table of figures, or one row for each setting of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from t2i.evaluation.figures import Figure
from t2i.evaluation.report import Report, Run, shown_value

PIPED_WIDTH = 180  # columns when stdout is no terminal: no line is broken
SWEEP_COLUMNS = (
    "adherence", "CLIPScore", "FID", "KID", "CMMD", "diversity", "seconds per image", "peak memory",
)  # fmt: skip


def print_report(report: Report) -> None:
    """Print a report to stdout."""
    console = Console(markup=False, highlight=False, emoji=False, file=sys.stdout)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    swept = len(report.runs) > 1
    if swept:
        console.print(sweep_table(report))
    else:
        console.print(figures_table(report.runs[0]))
    console.print()
    console.print(trilemma_table(report))
    for line in remarks(report):
        console.print(line, soft_wrap=True)


def figures_table(run: Run) -> Table:
    """Every figure of one run: value, interval, count."""
    table = Table("figure", "value", "95 % interval", "of", box=None, pad_edge=False)
    for figure in run.figures:
        if figure.value is None:
            table.add_row(figure.name, "not measured", "", "")
        else:
            counted = f"{figure.count} {figure.counted}"
            table.add_row(figure.name, figure.text(), figure.interval_text(), counted)
    for column in table.columns[:2]:
        column.no_wrap = True
    return table


def sweep_table(report: Report) -> Table:
    """One row for each setting, one column for each figure that any of them has."""
    columns = [name for name in SWEEP_COLUMNS if any(run.figure(name) for run in report.runs)]
    settings = list(report.runs[0].settings)
    table = Table(*[name.replace("_", "-") for name in settings], *columns, box=None, pad_edge=False)
    for run in report.runs:
        chosen = [shown_value(value) for value in run.settings.values()]
        figures = ["failed" if run.failure else _with_interval(run.figure(name)) for name in columns]
        table.add_row(*chosen, *figures)
    return table


def trilemma_table(report: Report) -> Table:
    """Quality, diversity and speed side by side, a row for each run."""
    swept = len(report.runs) > 1
    table = Table(*(["setting"] if swept else []), "quality", "diversity", "speed", box=None, pad_edge=False)
    for run in report.runs:
        cells = [
            "not measured" if figure is None else f"{figure.name} {figure.text()}"
            for figure in run.trilemma().values()
        ]
        table.add_row(*([run.label] if swept else []), *cells)
    return table


def remarks(report: Report) -> Iterator[str]:
    """What was measured with what, warnings, and why some figures are missing; each said once."""
    said: set[str] = set()
    for run in report.runs:
        where = f" ({run.label})" if run.label else ""
        lines = [f"failed{where}: {run.failure}"] if run.failure else []
        for figure in run.figures:
            if figure.value is None:
                lines.append(f"not measured: {figure.name}: {figure.reason}")
                continue
            if figure.name in ("FID", "KID", "CMMD", "CLIPScore", "validation loss", "diversity"):
                lines.append(f"{figure.name}: {figure.how}")
            if figure.warning:
                lines.append(f"warning: {figure.name}: {figure.warning}")
        for line in lines:
            if line not in said:
                said.add(line)
                yield line
    yield from report.notes


def _with_interval(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    interval = figure.interval_text()
    return f"{figure.text()} ({interval})" if interval else figure.text()
