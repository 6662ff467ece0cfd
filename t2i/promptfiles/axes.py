"""Axes: options that take several values, every combination of which is drawn for every line.

    --axis steps=20,30 --axis scheduler=euler,"DPM++ 2M Karras" --axis seed=1..4 --axis size=64x64,96x64

The first axis changes slowest. Values are parted by commas as a row of CSV is, so a text that has commas
stands in double quotes; `1..4` is 1, 2, 3, 4.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from t2i.errors import UsageError
from t2i.promptfiles.keys import find_key, read_size, read_value
from t2i.promptfiles.mistakes import Mistakes

MOST_VALUES = 10_000
NO_AXIS = ("prompt", "name", "output")
RANGE = re.compile(r"\s*(\d{1,19})\.\.(\d{1,19})\s*")


@dataclass(frozen=True)
class Axis:
    """One option and its values.

    Attributes:
        name: The option, or `size`.
        points: (text of the value, the fields of `GenerateConfig` it sets) in the order given.
    """

    name: str
    points: tuple[tuple[str, dict[str, Any]], ...]

    @property
    def fields(self) -> frozenset[str]:
        """The fields of `GenerateConfig` it sets."""
        return frozenset(self.points[0][1])


@dataclass(frozen=True)
class Combination:
    """One value of every axis.

    Attributes:
        labels: (option, value) of each axis, as typed.
        fields: The fields of `GenerateConfig` they set.
    """

    labels: tuple[tuple[str, str], ...]
    fields: dict[str, Any]


def combine(axes: Sequence[Axis]) -> list[Combination]:
    """Every combination; one that sets nothing where there are no axes."""
    return [
        Combination(
            tuple((axis.name, text) for axis, (text, _) in zip(axes, chosen, strict=True)),
            {name: value for _, fields in chosen for name, value in fields.items()},
        )
        for chosen in product(*(axis.points for axis in axes))
    ]


def parse_axes(texts: Sequence[str], mistakes: Mistakes) -> list[Axis]:
    """The axes of `--axis NAME=VALUE,VALUE…`, each checked as the option itself is.

    Args:
        texts: As they were typed.
        mistakes: Where an unknown option, a wrong value, a value or an option that comes twice is noted.
    """
    axes: list[Axis] = []
    for text in texts:
        try:
            axis = _parse(text)
            taken = {field for other in axes for field in other.fields}
            if taken & axis.fields:
                raise UsageError(f"--axis {text}: another axis sets {', '.join(sorted(taken & axis.fields))}")
            axes.append(axis)
        except UsageError as error:
            mistakes.add_error(None, error)
    return axes


def _parse(text: str) -> Axis:
    typed, equals, rest = text.partition("=")
    if not equals:
        raise UsageError(f"--axis {text}: not NAME=VALUE,VALUE…", "for example --axis steps=20,30")
    try:
        name = find_key(typed)
    except UsageError as error:
        raise UsageError(f"--axis {typed}: {error.message}", error.hint) from error
    if name in NO_AXIS:
        raise UsageError(f"--axis {typed}: the lines of the file say that")
    points: dict[tuple[Any, ...], tuple[str, dict[str, Any]]] = {}
    for value in split_values(text, rest):
        fields = read_size(value) if name == "size" else {name: read_value(name, value, textual=True)}
        if tuple(fields.values()) in points:
            raise UsageError(f"--axis {text}: {value} is there twice")
        points[tuple(fields.values())] = (value.strip(), fields)
    return Axis(name, tuple(points.values()))


def split_values(text: str, rest: str, separator: str = ",") -> list[str]:
    """The values of an axis, ranges written out; at least one, which may be empty.

    Args:
        text: The axis as it was typed, for messages.
        rest: What stands behind the equals sign.
        separator: One character.

    Raises:
        UsageError: Quotes that do not close, or a range without a value or with too many.
    """
    try:
        values = next(csv.reader([rest], delimiter=separator, skipinitialspace=True, strict=True), [])
    except csv.Error as error:
        raise UsageError(f"--axis {text}: {error}", f'a value with {separator} stands in "quotes"') from error
    written: list[str] = []
    for value in values or [""]:
        between = RANGE.fullmatch(value)
        numbers = range(int(between[1]), int(between[2]) + 1) if between else ()
        if between and not 0 < len(numbers) <= MOST_VALUES:
            raise UsageError(f"--axis {text}: {value} is not 1 to {MOST_VALUES} values")
        written += map(str, numbers) if between else [value]
    return written
