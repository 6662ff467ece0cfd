"""Owns what a recogniser can say of a picture, and which questions that suffices for.

Standard library only. Lengths are px of a picture of 64 x 64, whatever size a network looks at.
"""

from __future__ import annotations

from dataclasses import dataclass

PICTURE_PX = 64
GRID = 8  # places are told apart by an eighth of the picture

TELLS_OF: dict[int, frozenset[str]] = {
    0: frozenset({"things", "places", "background"}),
    1: frozenset({"things", "places", "background", "counts", "colours of things", "style"}),
}
"""Version of the recogniser → what it can be asked about."""


@dataclass(frozen=True)
class Found:
    """One thing that the recogniser sees.

    Attributes:
        concept: Its name.
        score: Highest probability of any cell, 0...1.
        x: Centre, px of a 64 px picture from the left.
        y: Centre, px of a 64 px picture from the top.
        colour: The colour that it has been given; None for its own colours, and always in version 0.
    """

    concept: str
    score: float
    x: float
    y: float
    colour: str | None = None


@dataclass(frozen=True)
class Findings:
    """What the recogniser says of one picture.

    Attributes:
        found: Things by falling score; version 0 names each concept once, version 1 each thing.
        background: Name of the background.
        style: Name of the style; None for none, and always in version 0.
        tells: What can be asked of these findings, out of `TELLS_OF`.
    """

    found: tuple[Found, ...]
    background: str
    style: str | None = None
    tells: frozenset[str] = TELLS_OF[0]

    def of(self, concept: str) -> Found | None:
        """The clearest finding of this thing, or None."""
        return next((one for one in self.found if one.concept == concept), None)

    def count(self, concept: str) -> int:
        """How many of this thing there are; only where `tells` has "counts"."""
        return sum(one.concept == concept for one in self.found)

    def scores(self) -> dict[str, float]:
        """Concept → score of its clearest finding, the clearest first."""
        best: dict[str, float] = {}
        for one in self.found:
            best.setdefault(one.concept, one.score)
        return best
