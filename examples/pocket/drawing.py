"""Draws a scene: background, things, style."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from backgrounds import content
from composing import Scene
from glyphs import GlyphSource
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from stage import Thing
from styles import STYLES
from tints import tint

# Behind whoever runs: share of its height, px from it at 128, length in px at 128.
STREAKS = ((0.3, 1, 9), (0.5, 3, 12), (0.7, 1, 9))


class Painter:
    """Draws scenes with one font and remembers the tinted glyphs.

    Args:
        glyphs: The font.
    """

    def __init__(self, glyphs: GlyphSource) -> None:
        self._glyphs = glyphs
        self._tinted = lru_cache(maxsize=1024)(self._tint)

    def _tint(self, concept: str, colour: str | None) -> Image.Image:
        picture = self._glyphs.full(concept)
        return picture if colour is None else tint(picture, colour)

    def _glyph(self, thing: Thing) -> Image.Image:
        # Pillow resizes RGBA with premultiplied colours: invisible ones do not bleed into the edge.
        glyph = self._tinted(thing.concept, thing.colour).resize(
            (thing.width, thing.height), Image.Resampling.LANCZOS
        )
        return glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if thing.mirrored else glyph

    def draw(self, scene: Scene, picture: int) -> NDArray[np.uint8]:
        """Draw a scene.

        Args:
            scene: What to draw.
            picture: Side of the picture, px: the one for which the scene was made.

        Returns:
            (picture, picture, 3), red, green, blue, 0...255.
        """
        if scene.colour is not None:
            canvas = Image.new("RGB", (picture, picture), scene.colour)
        else:
            canvas = Image.fromarray(content(scene.background, scene.variant, picture))
        style = STYLES[scene.style] if scene.style else None
        coverage = Image.new("L", canvas.size) if style else None
        if scene.verb == "chasing":
            _draw_streaks(canvas, scene)
        for thing in sorted(scene.objects, key=lambda thing: thing.layer):
            glyph, corner = self._glyph(thing), (round(thing.left), round(thing.top))
            canvas.paste(glyph, corner, glyph)
            if coverage is not None:
                coverage.paste(255, corner, glyph.getchannel("A"))
        if style is not None and coverage is not None:
            canvas = style.apply(canvas, coverage, scene.variant)
        return np.array(canvas)


def _draw_streaks(canvas: Image.Image, scene: Scene) -> None:
    """Lines behind whoever runs, as comics draw speed."""
    unit = canvas.width / 128
    pen = ImageDraw.Draw(canvas)
    for thing in scene.objects:
        for share, end, length in STREAKS:
            x, y = thing.left - end * unit, thing.top + share * thing.height
            under = np.array(canvas.getpixel((max(round(x), 0), round(y))), dtype=np.float32)
            shade = under * 0.55 if under.mean() > 150 else under + (255 - under) * 0.65
            red, green, blue = (round(float(channel)) for channel in shade)
            pen.line([(x - length * unit, y), (x, y)], (red, green, blue), max(1, round(1.6 * unit)))
