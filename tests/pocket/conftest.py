"""Ten glyphs of the font, committed under its licence, stand in for all 125: no font package is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

POCKET = Path(__file__).parents[2] / "examples" / "pocket"
sys.path.insert(0, str(POCKET))  # the example's modules are scripts in a folder, not a package

from glyphs import GlyphSource  # noqa: E402

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
