"""The labels of a sheet: readable at any length, whatever the letters."""

from __future__ import annotations

import pytest
from PIL import ImageFont

from t2i.sweep.grid import _largest, _readable, fitted

FONT = ImageFont.load_default(13)
LONG = "a very long prompt about a corgi that plays a trumpet in front of a castle, " * 5


@pytest.mark.parametrize("width", [20, 60, 180])
@pytest.mark.parametrize("text", [LONG, "x" * 400, "/".join(["folder"] * 40), "short", "", "a\nb\x07 ü×…"])
def test_lines_fit_and_lose_nothing_but_the_end(text: str, width: int) -> None:
    lines = fitted(text, FONT, width, 3)
    assert len(lines) <= 3 and all(FONT.getlength(line) <= width for line in lines)
    whole = fitted(text, FONT, width, 1000)
    assert not any("…" in line for line in whole)
    if len(whole) <= 3:
        assert lines == whole
    else:
        assert lines[:2] == whole[:2] and lines[2].endswith("…")
        assert whole[2].startswith(lines[2][:-1])
    words = " ".join(text.split())
    if words.isascii():
        assert "".join(whole).replace(" ", "") == words.replace(" ", "").replace("\x07", "\\x07")


def test_words_stay_whole_where_they_fit() -> None:
    assert fitted("one two three", FONT, FONT.getlength("one two"), 5) == ["one two", "three"]
    assert fitted("one two three", FONT, 60, 0) == []


def test_letters_that_the_font_lacks() -> None:
    assert fitted("Füchse", FONT, 200, 1) == ["Fuchse"]
    assert _readable("一只狗", 2) == "no. 2" and _readable("", 1) == "(empty)" and _readable("??", 1) == "??"


def test_a_sheet_stays_a_picture_that_can_be_opened() -> None:
    for columns, rows in ((1, 1), (3, 3), (100, 1), (50, 50), (100, 25), (1, 100)):
        side = _largest(columns, rows)
        assert side >= 96 and columns * rows * (side + 8) ** 2 <= 40_000_000
        assert max(columns, rows) * (side + 8) <= 16_000
    assert _largest(3, 3) == 512
