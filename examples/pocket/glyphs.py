"""Owns the concept table and the emoji font: one concept name in, one small picture with transparency out.

Knows nothing of scenes, captions or what is held out.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

CONCEPTS_FILE = Path(__file__).with_name("concepts.tsv")
DEFAULT_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")  # Debian: fonts-noto-color-emoji
STRIKE_PX = 109  # the font holds bitmaps of this one size


@dataclass(frozen=True)
class Concept:
    """One row of concepts.tsv.

    Attributes:
        name: What captions call it, lower case.
        group: animal, plant, food, vehicle, instrument, toy, object, sky or building.
        character: The Unicode character that the font draws.
        is_early: Whether pocket's first weights knew it; see `holdout`.
    """

    name: str
    group: str
    character: str
    is_early: bool


@cache
def all_concepts() -> dict[str, Concept]:
    """Read all concepts, by name, in the order of the file."""
    with CONCEPTS_FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {
        row["name"]: Concept(row["name"], row["group"], chr(int(row["codepoint"], 16)), row["core"] == "1")
        for row in rows
    }


class GlyphSource:
    """Draws concepts at any size and remembers what it has drawn.

    Args:
        font: Path of Noto Color Emoji or of a subset of it.
    """

    def __init__(self, font: Path = DEFAULT_FONT) -> None:
        self._font = ImageFont.truetype(str(font), STRIKE_PX)
        self._full: dict[str, Image.Image] = {}
        self._resized: dict[tuple[str, int], NDArray[np.float32]] = {}

    def full(self, concept: str) -> Image.Image:
        """Draw a concept at the font's own size, cropped to what is visible.

        Args:
            concept: A name from `all_concepts`.

        Returns:
            RGBA picture, longer side about 120 px.

        Raises:
            ValueError: If the font has no picture for this concept.
        """
        if concept not in self._full:
            canvas = Image.new("RGBA", (2 * STRIKE_PX, 2 * STRIKE_PX))
            character = all_concepts()[concept].character
            ImageDraw.Draw(canvas).text((20, 20), character, font=self._font, embedded_color=True)
            box = canvas.getchannel("A").getbbox()
            if box is None:
                raise ValueError(f"the font has no picture for {concept!r} (U+{ord(character):X})")
            self._full[concept] = canvas.crop(box)
        return self._full[concept]

    def resized(self, concept: str, longer_side: int) -> NDArray[np.float32]:
        """Draw a concept so that its longer side has a given length.

        Args:
            concept: A name from `all_concepts`.
            longer_side: Length in px, >= 1.

        Returns:
            (height, width, 4), red, green, blue already multiplied by alpha and in 0...255, alpha in 0...1.
        """
        key = (concept, longer_side)
        if key not in self._resized:
            picture = self.full(concept)
            scale = longer_side / max(picture.size)
            size = tuple(max(1, round(side * scale)) for side in picture.size)
            rgba = np.asarray(picture, dtype=np.float32)
            alpha = rgba[..., 3:] / 255
            # Resize premultiplied: otherwise invisible colours bleed into the edge.
            planes = np.concatenate([rgba[..., :3] * alpha, alpha], axis=2)
            resize = [
                Image.fromarray(np.ascontiguousarray(planes[..., k])).resize(size, Image.Resampling.LANCZOS)
                for k in range(4)
            ]
            result = np.stack([np.asarray(plane) for plane in resize], axis=2)
            # LANCZOS overshoots; a colour beyond its alpha would run over 255 when drawn on white.
            np.clip(result[..., 3:], 0, 1, out=result[..., 3:])
            np.clip(result[..., :3], 0, 255 * result[..., 3:], out=result[..., :3])
            self._resized[key] = result
        return self._resized[key]
