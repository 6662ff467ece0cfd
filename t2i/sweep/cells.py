"""The cells of a sweep: a combination of values each, its place on a sheet, and what a batch draws for it.

All cells have the same seed unless an axis sets it, so that they differ in nothing but their values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from t2i.batch import BatchJob, Records, plan_batch
from t2i.config import GenerateConfig
from t2i.errors import UsageError
from t2i.naming import slug
from t2i.promptfiles import Entry
from t2i.promptfiles.axes import Axis, combine
from t2i.promptfiles.keys import read_items
from t2i.promptfiles.mistakes import Mistakes
from t2i.promptfiles.sources import Item
from t2i.sweep.axes import REPLACE, read_axes, shown_name

PICTURES = "pictures"  # folder of the single pictures
MOST_PICTURES = 2500
PROMPT_LENGTH = 40  # of a file's name


class SweepError(UsageError):
    """A sweep that cannot be drawn; exit code 2.

    Attributes:
        each: An error for everything that is wrong.
    """

    def __init__(self, each: Sequence[UsageError]) -> None:
        super().__init__("; ".join(error.message for error in each), each[0].hint)
        self.each = tuple(each)


@dataclass(frozen=True)
class Cell:
    """One picture of a sweep.

    Attributes:
        number: From 1; the first axis changes slowest.
        place: Its value on each axis, from 0.
        labels: (axis, value) as sheets show them.
        config: One prompt and a seed.
    """

    number: int
    place: tuple[int, ...]
    labels: tuple[tuple[str, str], ...]
    config: GenerateConfig

    @property
    def name(self) -> str:
        """ "steps 5, guidance-scale 4"."""
        return ", ".join(f"{name} {value}" for name, value in self.labels)

    def entry(self, cells: int) -> Entry:
        """What a batch draws; files are named by prompt, values and seed.

        Args:
            cells: How many the sweep has.
        """
        prompt = self.config.prompts[0]
        output = f"{PICTURES}/{slug(prompt)[:PROMPT_LENGTH].strip('-')}.png"
        # A batch cuts what axes add to a name: short, and without what is in it anyway, it is mostly whole.
        axes = tuple((name.split("-")[0], value) for name, value in self.labels if not _in_name(name))
        # A line of one picture must have the name that it asks for, which another sweep may have taken.
        images = max(2, cells)
        return Entry(
            self.number, self.config, prompt, self.config.negative_prompt, None, output, axes, 0, images
        )


@dataclass(frozen=True)
class Sweep:
    """What varies, and what all pictures have in common.

    Attributes:
        axes: 1 to 3: columns, rows, sheets.
        shared: Fields of `GenerateConfig`, and `prompt`, as far as somebody gave them.
    """

    axes: tuple[Axis, ...]
    shared: Mapping[str, Any]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values of each axis."""
        return tuple(len(axis.points) for axis in self.axes)

    @property
    def gives_seed(self) -> bool:
        """Whether somebody gave the seed, or an axis does."""
        return "seed" in self.shared or any("seed" in axis.fields for axis in self.axes)

    def heads(self, axis: int) -> tuple[str, list[str]]:
        """The name of an axis and its values, as sheets show them."""
        return shown_name(self.axes[axis].name), [value for value, _ in self.axes[axis].points]

    def cells(self, seed: int) -> list[Cell]:
        """Every combination.

        Args:
            seed: Of all cells, where nobody gave one.
        """
        places = product(*map(range, self.sizes))
        cells = []
        for number, (place, combination) in enumerate(zip(places, combine(self.axes), strict=True), 1):
            values = {"seed": seed, **self.shared, **combination.fields}
            replaced = {
                name.removeprefix(f"{REPLACE} "): values.pop(name)
                for name in combination.fields
                if name.startswith(REPLACE)
            }
            prompt = replace_words(values.pop("prompt"), replaced)
            labels = tuple((shown_name(name), value) for name, value in combination.labels)
            cells.append(Cell(number, place, labels, GenerateConfig(prompts=(prompt,), **values)))
        return cells


def read_sweep(prompt: str | None, given: Mapping[str, Any], axes: Sequence[str]) -> Sweep:
    """Check everything that a person gave.

    Args:
        prompt: None where an axis has the prompts.
        given: Fields of `GenerateConfig` that all pictures have in common, in their own types.
        axes: The texts of `--axis`; see `t2i.sweep.axes`.

    Raises:
        SweepError: Everything that is wrong.
    """
    mistakes = Mistakes()
    found = read_axes(axes, mistakes)
    items = [Item(name, value, None) for name, value in {**given, "prompt": prompt}.items()]
    shared, wrong = read_items(items, textual=False, mistakes=mistakes)
    for axis in found:
        for name in sorted(axis.fields & (shared.keys() | wrong)):
            typed = "a prompt" if name == "prompt" else f"--{shown_name(name)}"
            mistakes.add(
                None, f"{typed} is given, and --axis {shown_name(axis.name)} too", "keep one of them"
            )
    in_axis = any(text.partition("=")[0].strip(" -").lower() == "prompt" for text in axes)
    if not (in_axis or (prompt or "").strip()):
        mistakes.add(None, "no prompt was given", 'try: t2i sweep "a red fox" --axis steps=5,10')
    prompts = [fields["prompt"] for axis in found if axis.name == "prompt" for _, fields in axis.points]
    _check_replacing(found, prompts or [shared.get("prompt", "")], mistakes)
    count = math.prod(len(axis.points) for axis in found)
    if count > MOST_PICTURES:
        message = f"--axis: {count:,} pictures, at most {MOST_PICTURES:,}"
        mistakes.add(None, message, "`t2i batch` with --axis draws more")
    sweep = Sweep(tuple(found), shared)
    if not mistakes and not all(cell.config.prompts[0].strip() for cell in sweep.cells(seed=0)):
        mistakes.add(None, "--axis replace: it leaves nothing of the prompt")
    if mistakes:
        raise SweepError([UsageError(mistake.message, mistake.hint) for mistake in mistakes])
    return sweep


def replace_words(prompt: str, replaced: Mapping[str, str]) -> str:
    """A prompt with words in place of others, all at once; whole words only: "red" is not in "bored".

    Args:
        prompt: As it was given.
        replaced: Word or words → what comes in their place.
    """
    if not replaced:
        return prompt
    return _pattern(replaced).sub(lambda found: replaced[found.group()], prompt)


def jobs_of(
    cells: Sequence[Cell], jobs: Sequence[BatchJob], records: Records, folder: Path, overwrite: bool = False
) -> list[BatchJob]:
    """The job of each cell. Cells that ask for one picture share it, as two names of one model do.

    Args:
        cells: Of a sweep.
        jobs: What `plan_batch` made of their entries.
        records: It was given these, and the folder and `overwrite` as well.
    """
    by_number, by_id = {job.line: job for job in jobs}, {job.id: job for job in jobs}
    found = []
    for cell in cells:
        job = by_number.get(cell.number)
        if job is None:  # planned alone it gets the id of the one that it shares
            job = by_id[plan_batch([cell.entry(len(cells))], records, folder, overwrite)[0].id]
        found.append(job)
    return found


def _in_name(axis: str) -> bool:
    """Whether a file's name says the value without being told: it begins with prompt and ends with seed."""
    return axis in ("prompt", "seed") or axis.startswith(REPLACE)


def _check_replacing(axes: Sequence[Axis], prompts: Sequence[str], mistakes: Mistakes) -> None:
    words = [axis.name.removeprefix(f"{REPLACE} ") for axis in axes if axis.name.startswith(REPLACE)]
    for word in words:
        for prompt in prompts:
            if prompt and not _pattern([word]).search(prompt):
                mistakes.add(None, f"--axis replace={word}: the prompt {prompt!r} has no such word")


def _pattern(words: Mapping[str, str] | Sequence[str]) -> re.Pattern[str]:
    """Matches any of the words, the longest first. Only ASCII letters make words; others need no spaces."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.ASCII)
