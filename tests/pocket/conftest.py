"""Ten glyphs of the font, committed under its licence, stand in for all: no font package is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

POCKET = Path(__file__).parents[2] / "examples" / "pocket"
sys.path.insert(0, str(POCKET))  # the example's modules are scripts in a folder, not a package

from glyphs import GlyphSource, all_concepts  # noqa: E402

TEN = ("dog", "cat", "rabbit", "panda", "trumpet", "guitar", "car", "bicycle", "red apple", "rose")


@pytest.fixture(scope="session")
def ten() -> frozenset[str]:
    """Names of the ten concepts that the committed font can draw."""
    return frozenset(TEN)


@pytest.fixture(scope="session")
def ten_font() -> Path:
    """The committed subset of Noto Color Emoji."""
    return Path(__file__).with_name("ten-glyphs.ttf")


@pytest.fixture(scope="session")
def glyphs(ten_font: Path) -> GlyphSource:
    """The ten glyphs, ready to draw."""
    return GlyphSource(ten_font)


class PlainShapes(GlyphSource):
    """A stand-in for the whole font: every concept is an ellipse with proportions of its own."""

    def __init__(self) -> None:
        self._number = {name: number for number, name in enumerate(all_concepts())}

    def full(self, concept: str) -> Image.Image:
        number = self._number[concept]
        narrow = 50 + 7 * (number % 11)
        size = (120, narrow) if number % 2 else (narrow, 120)
        picture = Image.new("RGBA", size)
        ImageDraw.Draw(picture).ellipse(
            (0, 0, size[0] - 1, size[1] - 1), fill=(200, 40 + number % 160, 90, 255)
        )
        return picture


@pytest.fixture(scope="session")
def shapes() -> GlyphSource:
    """Something to draw for each of the 233 concepts, without a font."""
    return PlainShapes()
