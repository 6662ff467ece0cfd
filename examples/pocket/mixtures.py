"""Owns the mixtures: how often a data set shows what. Plain data, chosen by name on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backgrounds import CONTENT, FLAT
from glyphs import all_concepts

TEN = frozenset(("dog", "cat", "rabbit", "panda", "trumpet", "guitar", "car", "bicycle", "red apple", "rose"))
"""What the ten-glyph font of the tests draws."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Shares of a data set.

    Attributes:
        kinds: Kind of scene (a key of `plans.CASTS`) → weight.
        concepts: What may be in a picture.
        backgrounds: Name → weight.
        styles: Name → share of all scenes; the rest has no style.
        size: A key of `placing.ALONE` that every thing has; None: sizes are drawn.
    """

    kinds: Mapping[str, float]
    concepts: frozenset[str]
    backgrounds: Mapping[str, float]
    styles: Mapping[str, float]
    size: str | None = None


MIXTURES = {
    "pocket": Mixture(
        kinds={
            "single": 0.115,
            "coloured": 0.09,
            "placed": 0.02,
            "counted": 0.19,
            "pair": 0.15,
            "coloured pair": 0.19,
            "in front of": 0.015,
            "on top of": 0.02,
            "between": 0.015,
            "playing": 0.04,
            "riding": 0.08,
            "wearing": 0.045,
            "holding": 0.015,
            "chasing": 0.015,
        },
        concepts=frozenset(all_concepts()),
        backgrounds={**dict.fromkeys(FLAT, 1.0), **dict.fromkeys(CONTENT, 1.0)},
        styles={
            "pixel art": 0.015,
            "sketch": 0.015,
            "silhouette": 0.015,
            "black and white": 0.015,
            "watercolour": 0.015,
            "neon": 0.015,
        },
    ),
    "quick": Mixture(
        kinds={"single": 1.0},
        concepts=TEN,
        backgrounds=dict.fromkeys(("white", "yellow", "green", "blue"), 1.0),
        styles={},
        size="big",
    ),
}
