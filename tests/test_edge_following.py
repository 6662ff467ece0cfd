"""The measure of examples/controlnet: known answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "controlnet"))

from following import following, means_with_intervals, sheet, widened


def line(column: int, length: int = 16) -> np.ndarray:
    mask = np.zeros((16, 16), bool)
    mask[:length, column] = True
    return mask


def test_a_line_beside_another_counts_within_the_tolerance() -> None:
    assert following(line(5), line(5), 0).f1 == 1
    assert following(line(7), line(5), 2).f1 == 1
    assert following(line(8), line(5), 2).f1 == 0
    assert following(np.zeros((16, 16), bool), line(5), 2) == (0, 0)


def test_precision_is_of_what_was_drawn_and_recall_of_what_was_asked() -> None:
    half = following(line(5, 8), line(5), 0)
    assert half == (1, 0.5) and half.f1 == pytest.approx(2 / 3)
    both = following(line(5) | line(12), line(5), 1)
    assert both == (0.5, 1)


def test_tolerance_is_a_round_distance() -> None:
    point = np.zeros((7, 7), bool)
    point[3, 3] = True
    y, x = np.mgrid[-3:4, -3:4]
    for radius in range(4):
        assert (widened(point, radius) == (x * x + y * y <= radius * radius)).all()


def test_intervals_hold_the_mean_and_shrink_with_the_number_of_pictures() -> None:
    rng = np.random.default_rng(1)
    wide, narrow = (
        means_with_intervals({"a": row, "b": row / 2}, ("a", "b"))
        for row in (rng.uniform(0.2, 0.8, 10), rng.uniform(0.2, 0.8, 1000))
    )
    for found in (wide, narrow):
        assert found["a"]["low"] < found["a"]["mean"] < found["a"]["high"]
        assert found["ratio"] == {"mean": 2, "low": 2, "high": 2}, "the same pictures in both rows"
    spread = narrow["a"]["high"] - narrow["a"]["low"]
    assert spread == pytest.approx(2 * 1.96 * 0.6 / 12**0.5 / 1000**0.5, rel=0.1)


def test_a_sheet_has_every_picture() -> None:
    colours = [np.full((8, 8, 3), value, np.uint8) for value in (10, 90, 170)]
    paper = np.asarray(sheet([(colours, "first")] * 5, ("a", "b", "c")))
    tile = 128 * 128
    assert [int((paper == value).all(2).sum()) // tile for value in (10, 90, 170)] == [5, 5, 5]


def test_training_and_held_out_pictures_are_cuttings_of_other_scenes(tmp_path: Path) -> None:
    from cuttings import HELD_OUT_SEED, TRAINING_SEED, Scenes, edge_mask

    ten = frozenset(("dog", "cat", "trumpet", "car"))
    scenes = Scenes("quick", 64, Path(__file__).parent / "pocket" / "ten-glyphs.ttf", ten)
    assert all(len(edge_mask(one.pixels)) == 64 and one.edges.mean() > 0.01 for one in scenes.held_out(3))
    (first, text), (again, _) = scenes.cutting(0, TRAINING_SEED), scenes.cutting(0, TRAINING_SEED)
    assert (first == again).all() and first.shape == (64, 64, 3) and text
    assert (first != scenes.cutting(0, HELD_OUT_SEED)[0]).any()
    assert json.loads(scenes.write(0, tmp_path)) == {"file_name": "000000.png", "text": text}
