"""Owns a thing's exact box in a picture, and the empty stage on which things are put."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from glyphs import GlyphSource
from plans import Part

DESIGN_PX = 128  # the picture size for which lengths are written


@dataclass(frozen=True)
class Thing:
    """One thing in a picture: centre and size of what is visible, in px; (0, 0) is the top left corner.

    Attributes:
        concept: A name from `glyphs.all_concepts`.
        x: Centre, px from the left edge.
        y: Centre, px from the upper edge.
        width: px.
        height: px.
        size: big, small, tiny, or None for anything between.
        colour: A key of `tints.TINTS`, or None for its own colours.
        mirrored: Whether it looks to the right instead of to the left.
        layer: Things of a higher layer are drawn later and cover those of a lower one.
    """

    concept: str
    x: float
    y: float
    width: int
    height: int
    size: str | None = None
    colour: str | None = None
    mirrored: bool = False
    layer: int = 0

    @property
    def left(self) -> float:
        """Left edge, px."""
        return self.x - self.width / 2

    @property
    def top(self) -> float:
        """Upper edge, px."""
        return self.y - self.height / 2

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the glyph, given in shares of its width and height, lies in the picture, px."""
        return self.left + x * self.width, self.top + y * self.height


class Stage:
    """The empty picture in which things are placed.

    Args:
        glyphs: Gives the shape of each concept.
        picture: Side of the picture, px.
        rng: Source of every choice.
    """

    def __init__(self, glyphs: GlyphSource, picture: int, rng: random.Random) -> None:
        self._glyphs, self.picture, self._rng = glyphs, picture, rng
        self.unit = picture / DESIGN_PX

    def between(self, low: float, high: float) -> float:
        """Draw a length, given in px at 128, in px of this picture."""
        return self._rng.uniform(low, high) * self.unit

    def new(self, part: Part, longer_side: float, layer: int = 0) -> Thing:
        """Make a thing of this size, px, not yet placed."""
        width, height = self._glyphs.full(part.concept).size
        scale = longer_side / max(width, height)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        return Thing(part.concept, 0, 0, width, height, part.size, part.colour, layer=layer)

    def put(
        self, thing: Thing, x: float, y: float, within: tuple[float, float, float, float] | None = None
    ) -> Thing:
        """Place by the wished centre, on whole pixels and fully inside the picture or a part of it.

        Args:
            thing: What to place.
            x: Wished centre, px.
            y: Wished centre, px.
            within: Left, upper, right and lower bound, px; None for the whole picture.
        """
        left, top, right, bottom = within or (0, 0, self.picture, self.picture)
        x0 = round(min(max(x - thing.width / 2, left), right - thing.width))
        y0 = round(min(max(y - thing.height / 2, top), bottom - thing.height))
        x0, y0 = max(0, min(x0, self.picture - thing.width)), max(0, min(y0, self.picture - thing.height))
        return replace(thing, x=x0 + thing.width / 2, y=y0 + thing.height / 2)
