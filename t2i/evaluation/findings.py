"""Owns what the recogniser can say of a picture.

Standard library only. Lengths are px of a picture of 64 x 64, whatever size a network looks at.
"""

from __future__ import annotations

from dataclasses import dataclass

PICTURE_PX = 64


@dataclass(frozen=True)
class Found:
    """One thing that the recogniser sees.

    Attributes:
        concept: Its name.
        score: Probability that it is there and is called so, 0...1.
        x: Centre, px of a 64 px picture from the left.
        y: Centre, px of a 64 px picture from the top.
        colour: The colour that it has been given; None for its own colours.
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
        found: Every single thing, by falling score.
        background: Name of the background.
        style: Name of the style; None for none.
    """

    found: tuple[Found, ...]
    background: str
    style: str | None = None

    def of(self, concept: str) -> Found | None:
        """The clearest finding of this thing, or None."""
        return next((one for one in self.found if one.concept == concept), None)

    def count(self, concept: str) -> int:
        """How many of this thing there are."""
        return sum(one.concept == concept for one in self.found)

    def scores(self) -> dict[str, float]:
        """Concept → score of its clearest finding, the clearest first."""
        best: dict[str, float] = {}
        for one in self.found:
            best.setdefault(one.concept, one.score)
        return best
