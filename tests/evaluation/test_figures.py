"""Intervals against known values and a second implementation; figures as people and programs read them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from t2i.evaluation.figures import (
    Figure,
    NotMeasured,
    bootstrap_interval,
    mean_figure,
    not_measured,
    share,
    wilson_interval,
)
from t2i.evaluation.metrics import Metric, measure


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (100, 100, 0.9630, 1.0), (1, 2, 0.0945, 0.9055)],
)
def test_wilson_of_known_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (3, 7), (45, 100), (599, 600)])
def test_wilson_equals_scipy(successes: int, trials: int) -> None:
    theirs = binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_the_bootstrap_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    interval = bootstrap_interval(lambda rows: float(values[rows].mean()), [400], values.mean(), 2000)
    assert interval is not None
    reach = 1.96 * values.std() / math.sqrt(400)
    assert interval == pytest.approx((values.mean() - reach, values.mean() + reach), abs=0.1 * reach)


def test_the_bootstrap_holds_the_value_of_a_statistic_that_copies_shift() -> None:
    values = np.random.default_rng(2).normal(size=30)

    def largest(rows: np.ndarray) -> float:  # never above the whole sample's
        return float(values[rows].max())

    low, high = bootstrap_interval(largest, [30], values.max(), 500) or (0, 0)
    assert low < values.max() < high


def test_no_interval_from_one_row_or_no_rounds() -> None:
    assert bootstrap_interval(lambda rows: 0.0, [1], 0.0, 100) is None
    assert bootstrap_interval(lambda rows: 0.0, [9], 0.0, 0) is None
    assert mean_figure("x", [3.0], 100).interval is None


def test_intervals_of_means_do_not_fall_below_zero() -> None:
    interval = mean_figure("x", [0.0, 0.0, 0.0, 9.0], 200).interval
    assert interval is not None and interval[0] == 0 and interval[1] > 2.25


def test_figures_for_people_and_programs() -> None:
    figure = share("adherence", [True, True, False, True])
    assert (figure.text(), figure.interval_text()) == ("75.0 %", "30.1 … 95.4")
    assert figure.to_dict()["value"] == 0.75 and figure.to_dict()["unit"] == "share"
    assert Figure("speed", 1234.5, (1.0, 2.0), unit="s").text() == "1234 s"
    assert Figure("KID", -0.01234, (-0.02, 0.5)).interval_text() == "-0.02 … 0.5"
    missing = not_measured("FID", "no\nreference")
    assert missing.text() == "not measured"
    assert missing.to_dict() == {"value": None, "not_measured": "no reference", "how": ""}
    assert share("adherence", []).value is None


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (NotMeasured("no reference"), "no reference"),
        (ZeroDivisionError("by zero"), "failed: ZeroDivisionError: by zero"),
    ],
)
def test_a_metric_that_fails_leaves_its_reason(failure: Exception, reason: str) -> None:
    def fail(subject: object) -> list[Figure]:
        raise failure

    (figure,) = measure(Metric("FID", "quality", fail), None)  # type: ignore[arg-type]
    assert (figure.name, figure.value, figure.reason) == ("FID", None, reason)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_result_that_is_no_number_is_not_measured(value: float) -> None:
    (figure,) = measure(Metric("FID", "quality", lambda subject: [Figure("FID", value)]), None)  # type: ignore[arg-type]
    assert figure.value is None and "finite" in figure.reason
