"""What became of a sweep, arranged in sheets of rows and columns; and what all its pictures share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from t2i.batch import BatchJob
from t2i.batch.rows import Row
from t2i.recipes import base_name
from t2i.sweep.axes import shown_name
from t2i.sweep.cells import Cell, Sweep

SCALE = "guidance_scale"
TOLD = ("model", "scheduler", "steps", SCALE, "width", "height", "negative_prompt")


@dataclass(frozen=True)
class Shown:
    """A cell and its picture, or why there is none."""

    cell: Cell
    row: Row


@dataclass(frozen=True)
class Sheet:
    """One grid.

    Attributes:
        title: The value of the third axis; empty without one.
        rows: Cells by the second axis, each row by the first; one row without a second axis.
    """

    title: str
    rows: list[list[Shown]]


@dataclass(frozen=True)
class Outcome:
    """A sweep and what became of each of its cells.

    Attributes:
        sweep: Its axes.
        cells: In its order.
        jobs: Of each cell.
        rows: Of each cell.
    """

    sweep: Sweep
    cells: Sequence[Cell]
    jobs: Sequence[BatchJob]
    rows: Sequence[Row]

    @property
    def shown(self) -> list[Shown]:
        """Every cell."""
        return [Shown(cell, row) for cell, row in zip(self.cells, self.rows, strict=True)]

    def sheets(self) -> list[Sheet]:
        """One for each value of the third axis."""
        columns, rows, sheets = (*self.sweep.sizes, 1, 1)[:3]
        shown = self.shown
        titles = [""]
        if len(self.sweep.axes) == 3:
            name, values = self.sweep.heads(2)
            titles = [f"{name}: {value or '(empty)'}" for value in values]
        return [
            Sheet(
                titles[k], [[shown[(x * rows + y) * sheets + k] for x in range(columns)] for y in range(rows)]
            )
            for k in range(sheets)
        ]

    def title(self) -> str:
        """The prompt, where all pictures have one, else what varies."""
        prompts = {row.prompt for row in self.rows}
        if len(prompts) == 1:
            return prompts.pop()
        return " x ".join(shown_name(axis.name) for axis in self.sweep.axes)

    def settings(self) -> str:
        """What all pictures have in common, in words."""
        parts = []
        for name in TOLD:
            values = {getattr(job.config, name) for job in self.jobs}
            if len(values) == 1 and not values & {None, ""}:
                (value,) = values
                text = base_name(value) if name == "model" else f"{value:g}" if name == SCALE else str(value)
                parts.append(f"{shown_name(name)} {text}")
        seeds = {job.seed for job in self.jobs}
        if len(seeds) == 1:
            parts.append(f"seed {seeds.pop()}")
        return ", ".join(parts)
