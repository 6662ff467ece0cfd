"""Figures of a report: a value with its interval, or the reason why there is none; and their statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Z_95 = 1.959963984540054  # of the normal distribution: 95 % lie within ± this
BOOTSTRAP_SEED = 0


class NotMeasured(Exception):
    """Why a figure cannot be had, in words for the report that stands in its place."""


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        name: What was measured.
        value: The figure; None if it was not measured.
        interval: 95 % interval, lower and upper end, in the unit of the value.
        count: What it rests on: how many of `counted`.
        counted: What was counted: pictures, prompts, rows.
        unit: "%" for shares (the value is then 0...1), else shown behind the value.
        better: "higher", "lower", or empty where neither is.
        how: What was measured with what.
        warning: Why the figure is to be taken with care.
        reason: Why it was not measured.
    """

    name: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    count: int = 0
    counted: str = "pictures"
    unit: str = ""
    better: str = ""
    how: str = ""
    warning: str = ""
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: a measured figure, or the reason why it is none."""
        if self.value is None:
            return {"value": None, "not_measured": self.reason, "how": self.how}
        values: dict[str, Any] = {
            "value": self.value, "count": self.count, "counted": self.counted,
            "unit": "share" if self.unit == "%" else self.unit, "better": self.better, "how": self.how,
        }  # fmt: skip
        if self.interval is not None:
            values["interval_95"] = list(self.interval)
        if self.warning:
            values["warning"] = self.warning
        return values

    def text(self, value: float | None = None) -> str:
        """The value (or another in its unit) for people: "45.0 %", "0.123 s"."""
        shown = self.value if value is None else value
        if shown is None:
            return "not measured"
        if self.unit == "%":
            return f"{100 * shown:.1f} %"
        number = f"{shown:.0f}" if abs(shown) >= 1000 else f"{shown:.4g}"
        return f"{number} {self.unit}".strip()

    def interval_text(self) -> str:
        """The interval for people, empty if there is none."""
        if self.interval is None:
            return ""
        low, high = (self.text(end).removesuffix(self.unit).strip() for end in self.interval)
        return f"{low} … {high}"


def not_measured(name: str, reason: str, how: str = "") -> Figure:
    """A figure that could not be had."""
    return Figure(name, reason=" ".join(reason.split()), how=how)


def share(name: str, answers: Sequence[bool], how: str = "", counted: str = "pictures") -> Figure:
    """The share of right answers with its Wilson interval; not measured if there are no answers."""
    if not answers:
        return not_measured(name, f"no {counted} to judge", how)
    right, of = sum(answers), len(answers)
    return Figure(name, right / of, wilson_interval(right, of), of, counted, "%", "higher", how)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share. It takes the trials as independent of each other.

    Args:
        successes: How often it was right.
        trials: Out of how many, >= 1.

    Returns:
        Lower and upper end, 0...1.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z, part = Z_95, successes / trials
    middle = part + z * z / (2 * trials)
    reach = z * math.sqrt(part * (1 - part) / trials + z * z / (4 * trials * trials))
    below = 1 + z * z / trials
    return max(0.0, (middle - reach) / below), min(1.0, (middle + reach) / below)


def bootstrap_interval(
    statistic: Callable[..., float], sizes: Sequence[int], value: float, rounds: int
) -> tuple[float, float] | None:
    """95 % interval of a statistic of one or more samples, from samples drawn out of them again.

    Drawing with replacement makes copies, and copies shift statistics such as FID upwards. So only the spread
    of the resampled values is used: their percentiles around their own mean are set around `value`. What the
    interval does not hold is a bias that the statistic itself has at this sample size.

    Args:
        statistic: Takes the chosen row numbers of each sample (int64 arrays), returns the figure.
        sizes: Rows of each sample.
        value: The statistic of the whole samples.
        rounds: How many samples are drawn; 0 or 1 gives no interval.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13; here centred.
    """
    if rounds < 2 or min(sizes) < 2:
        return None
    random = np.random.default_rng(BOOTSTRAP_SEED)
    drawn = np.array([statistic(*(random.integers(0, n, n) for n in sizes)) for _ in range(rounds)])
    low, high = np.percentile(drawn - drawn.mean(), [2.5, 97.5])
    return value + float(low), value + float(high)


def mean_figure(name: str, values: Sequence[float], rounds: int, **described: Any) -> Figure:
    """The mean of values that are never negative, one for each thing counted, with a bootstrap interval.

    Args:
        name: Of the figure.
        values: At least one, each >= 0.
        rounds: Of the bootstrap.
        described: Further attributes of `Figure`.
    """
    table = np.asarray(values, dtype=np.float64)
    mean = float(table.mean())
    interval = bootstrap_interval(lambda rows: float(table[rows].mean()), [len(table)], mean, rounds)
    return Figure(name, mean, not_below_zero(interval), len(table), **described)


def not_below_zero(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    """An interval of something that cannot be negative."""
    return None if interval is None else (max(0.0, interval[0]), interval[1])
