"""Edges: known answers on drawn pictures."""

from __future__ import annotations

import numpy as np
import pytest

from t2i.edges import edges


def square(inside: int = 255, outside: int = 0) -> np.ndarray:
    """A square of side 12 in a picture of side 32, uint8 (3, 32, 32)."""
    picture = np.full((3, 32, 32), outside, np.uint8)
    picture[:, 10:22, 10:22] = inside
    return picture


@pytest.mark.parametrize(("inside", "outside"), [(255, 0), (0, 255), (200, 100)])
def test_a_square_has_four_lines_one_pixel_wide(inside: int, outside: int) -> None:
    found = edges(square(inside, outside))
    assert found.dtype == np.uint8 and found.shape == (3, 32, 32) and set(np.unique(found)) == {0, 255}
    assert (found == found[0]).all()
    for line in (found[0, 16], found[0, :, 16]):  # across the middle: two crossings, each one pixel
        where = np.flatnonzero(line)
        assert len(where) == 2
        assert abs(where[0] - 9.5) <= 1 and abs(where[1] - 21.5) <= 1
    assert not found[0, :7].any() and not found[0, 14:18, 14:18].any()


def test_a_plain_picture_has_no_edges_and_a_faint_one_neither() -> None:
    assert not edges(np.full((3, 16, 16), 90, np.uint8)).any()
    assert not edges(square(104, 100)).any()


def test_a_turned_picture_has_turned_edges() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 8, 8), dtype=np.uint8)
    picture = np.repeat(np.kron(noise, np.ones((1, 8, 8), np.uint8)), 3, axis=0)
    found = edges(picture)[0] > 0
    turned = edges(np.ascontiguousarray(picture.transpose(0, 2, 1)))[0].T > 0
    assert found.any() and (found != turned).mean() < 0.03  # ties go to the first of two neighbours


def test_weak_lines_stay_where_they_hang_on_strong_ones() -> None:
    picture = np.zeros((3, 32, 64), np.uint8)
    picture[:, 16:] = np.linspace(20, 255, 64).astype(np.uint8)[None, None, :]  # fades to the left
    alone = np.zeros((3, 32, 64), np.uint8)
    alone[:, 16:] = 30
    assert not edges(alone).any()
    columns = edges(picture)[0].any(axis=0)
    assert columns[63] and columns[:63].sum() > 30
    first = int(np.flatnonzero(columns)[0])
    brightness = picture[0, 20, first]
    assert brightness < 60, "weaker than a line that would stand alone"
