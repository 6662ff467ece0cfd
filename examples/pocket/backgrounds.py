"""Owns what is behind the things: flat colours, and eight with content drawn in code.

No background shows anything that is also a concept (no sun, no palm tree, no house): what is in a picture
must be what its caption names. Contrast within a background is low, so that it hides nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = tuple[float, float]

COLOUR_JITTER = 4  # of 255, per channel and scene
FLAT: dict[str, Colour] = {
    "red": (214, 44, 44),
    "orange": (245, 140, 36),
    "yellow": (250, 224, 72),
    "green": (62, 160, 72),
    "blue": (44, 92, 214),
    "purple": (124, 62, 178),
    "pink": (250, 164, 204),
    "brown": (128, 80, 48),
    "white": (250, 250, 250),
    "black": (18, 18, 18),
    "gray": (140, 140, 140),
    "cyan": (84, 214, 226),
}
"""Name to red, green, blue in 0...255."""
VARIANTS = 48  # of each background with content; each is drawn once per process and kept
FINE = 2  # drawn this many times larger and shrunk, for soft edges


class Canvas:
    """A picture to draw on in shares of its side: (0, 0) is the top left corner, (1, 1) the bottom right one.

    Args:
        side: Side of the picture, px.
        colours: From the upper edge to the lower one, evenly spaced; between them the colour changes evenly.
    """

    def __init__(self, side: int, *colours: Colour) -> None:
        self.side = side
        stops = np.linspace(0, 1, len(colours))
        down = np.linspace(0, 1, side)
        rows = np.stack([np.interp(down, stops, [c[k] for c in colours]) for k in range(3)], axis=1)
        self.image = Image.fromarray(rows.round().astype(np.uint8)[:, None].repeat(side, axis=1))

    def _px(self, points: list[Point]) -> list[Point]:
        return [(x * self.side, y * self.side) for x, y in points]

    def polygon(self, points: list[Point], colour: Colour, opacity: float = 1, blur: float = 0) -> None:
        """Fill a polygon; `blur` is the width of its soft edge, `opacity` 0...1."""
        self._fill(lambda pen: pen.polygon(self._px(points), fill=255), colour, opacity, blur)

    def hill(self, outline: list[Point], colour: Colour) -> None:
        """Fill everything below a line from the left edge to the right one."""
        ImageDraw.Draw(self.image).polygon(self._px([*outline, (1.1, 1.1), (-0.1, 1.1)]), fill=colour)

    def line(self, points: list[Point], colour: Colour, width: float) -> None:
        """Draw a line."""
        pen = ImageDraw.Draw(self.image)
        pen.line(self._px(points), fill=colour, width=max(1, round(width * self.side)), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill a rectangle."""
        ImageDraw.Draw(self.image).rectangle(
            [value * self.side for value in (left, top, right, bottom)], colour
        )

    def ellipses(
        self,
        shapes: list[tuple[float, float, float, float]],
        colour: Colour,
        opacity: float = 1,
        blur: float = 0,
    ) -> None:
        """Fill ellipses, each given by its centre x, y, half its width and half its height."""

        def fill(pen: ImageDraw.ImageDraw) -> None:
            for x, y, a, b in shapes:
                pen.ellipse([value * self.side for value in (x - a, y - b, x + a, y + b)], fill=255)

        self._fill(fill, colour, opacity, blur)

    def _fill(
        self, fill: Callable[[ImageDraw.ImageDraw], None], colour: Colour, opacity: float, blur: float
    ) -> None:
        mask = Image.new("L", self.image.size)
        fill(ImageDraw.Draw(mask))
        if blur:
            mask = mask.filter(ImageFilter.GaussianBlur(blur * self.side))
        self.image.paste(colour, (0, 0), mask.point(lambda value: round(value * opacity)))


def _waves(rng: random.Random, height: float, depth: float, waves: float) -> list[Point]:
    """A smooth line from the left edge to the right one around `height`, up to `depth` away from it."""
    phases = [rng.uniform(0, 2 * math.pi) for _ in range(2)]

    def y(x: float) -> float:
        slow = math.sin(2 * math.pi * waves * x + phases[0])
        fast = math.sin(2 * math.pi * waves * 2.3 * x + phases[1])
        return height + depth * (0.7 * slow + 0.3 * fast)

    return [(x / 32, y(x / 32)) for x in range(-1, 35)]


def _sky(side: int, rng: random.Random) -> Canvas:
    canvas = Canvas(side, (88, 164, 232), (190, 224, 248))
    for _ in range(rng.randint(3, 5)):
        x, y, size = rng.random(), rng.uniform(0.06, 0.94), rng.uniform(0.08, 0.15)
        puffs = [
            (x + rng.uniform(-1, 1) * size, y + rng.uniform(-0.2, 0.2) * size, 0.7 * size, 0.32 * size)
            for _ in range(5)
        ]
        canvas.ellipses([*puffs, (x, y + 0.12 * size, 1.5 * size, 0.25 * size)], (255, 255, 255), 0.55, 0.018)
    return canvas


def _night(side: int, rng: random.Random) -> Canvas:
    canvas = Canvas(side, (16, 22, 62), (36, 48, 104), (64, 76, 138))
    points = [(rng.random(), rng.uniform(0, 0.72), r := rng.uniform(0.003, 0.007), r) for _ in range(34)]
    canvas.ellipses(points, (250, 244, 210), 0.9)
    canvas.hill(_waves(rng, rng.uniform(0.76, 0.82), 0.035, rng.uniform(0.6, 1.2)), (32, 42, 84))
    canvas.hill(_waves(rng, rng.uniform(0.87, 0.92), 0.03, rng.uniform(0.6, 1.2)), (20, 28, 60))
    return canvas


def _beach(side: int, rng: random.Random) -> Canvas:
    horizon, shore = rng.uniform(0.3, 0.38), rng.uniform(0.55, 0.62)
    canvas = Canvas(side, (134, 204, 240), (206, 236, 248))
    canvas.box(0, horizon, 1, 1, (36, 150, 190))
    for k in range(5):
        y = horizon + (shore - horizon) * (k + rng.uniform(0.3, 0.7)) / 5
        x = rng.uniform(0, 0.8)
        canvas.line([(x, y), (x + rng.uniform(0.1, 0.25), y)], (104, 196, 216), 0.008)
    line = _waves(rng, shore, 0.022, rng.uniform(0.8, 1.4))
    canvas.hill(line, (240, 250, 250))
    canvas.hill([(x, y + 0.03) for x, y in line], (214, 186, 128))
    canvas.hill([(x, y + 0.075) for x, y in line], (240, 216, 160))
    grains = [(rng.random(), rng.uniform(0.74, 1), 0.005, 0.004) for _ in range(26)]
    canvas.ellipses(grains, (214, 184, 124))
    return canvas


def _forest(side: int, rng: random.Random) -> Canvas:
    canvas = Canvas(side, (150, 190, 140), (188, 212, 160))
    for colour, count, width in (((128, 168, 114), 9, 0.028), ((98, 138, 88), 6, 0.045)):
        for k in range(count):
            x = (k + rng.uniform(0.1, 0.9)) / count
            lean = rng.uniform(-0.02, 0.02)
            trunk: list[Point] = [
                (x - width / 2, 1),
                (x - width / 3 + lean, 0),
                (x + width / 3 + lean, 0),
                (x + width / 2, 1),
            ]
            canvas.polygon(trunk, colour)
        tops = [
            (k / 11, rng.uniform(-0.04, 0.1), rng.uniform(0.07, 0.12), rng.uniform(0.06, 0.11))
            for k in range(12)
        ]
        canvas.ellipses(tops, colour)
    canvas.hill(_waves(rng, rng.uniform(0.78, 0.84), 0.02, rng.uniform(0.8, 1.5)), (70, 104, 58))
    for _ in range(30):  # blades of grass
        x, y = rng.random(), rng.uniform(0.84, 1)
        canvas.line([(x, y), (x + rng.uniform(-0.012, 0.012), y - 0.03)], (96, 134, 74), 0.008)
    return canvas


def _city(side: int, rng: random.Random) -> Canvas:
    canvas = Canvas(side, (178, 190, 214), (236, 216, 206))
    ground = rng.uniform(0.8, 0.85)
    for colour, window, low, high in (
        ((160, 168, 192), (178, 186, 208), 0.3, 0.55),
        ((112, 122, 154), (232, 214, 150), 0.12, 0.4),
    ):
        x = rng.uniform(-0.1, 0)
        while x < 1:
            width, top = rng.uniform(0.11, 0.2), ground - rng.uniform(low, high)
            canvas.box(x, top, x + width, ground, colour)
            columns = max(2, round(width / 0.045))
            for row in range(int((ground - top) / 0.06)):
                for column in range(columns):
                    if rng.random() < 0.55:
                        left, y = x + width * (column + 0.3) / columns, top + 0.025 + 0.06 * row
                        canvas.box(left, y, left + 0.018, y + 0.026, window)
            x += width + rng.uniform(0.005, 0.03)
    canvas.box(0, ground, 1, 1, (176, 174, 178))
    canvas.box(0, ground + 0.03, 1, 1, (98, 100, 110))
    start = rng.uniform(-0.2, 0)
    for k in range(7):
        canvas.box(start + 0.2 * k, 0.93, start + 0.2 * k + 0.1, 0.945, (232, 230, 220))
    return canvas


def _desert(side: int, rng: random.Random) -> Canvas:
    canvas = Canvas(side, (250, 214, 160), (253, 236, 200))
    for height, colour in ((0.46, (230, 172, 104)), (0.6, (214, 146, 80)), (0.76, (196, 124, 62))):
        line = _waves(rng, height + rng.uniform(-0.03, 0.03), 0.045, rng.uniform(0.5, 1.0))
        canvas.hill(line, colour)
        shade = tuple(round(0.94 * channel) for channel in colour)
        canvas.hill([(x, y + 0.05 + 0.05 * math.sin(5 * x)) for x, y in line], shade)  # type: ignore[arg-type]
    for _ in range(9):  # ripples of the sand
        x, y, length = rng.random(), rng.uniform(0.84, 0.99), rng.uniform(0.06, 0.14)
        canvas.line([(x, y), (x + length / 2, y - 0.008), (x + length, y)], (176, 108, 52), 0.007)
    return canvas


def _space(side: int, rng: random.Random) -> Canvas:
    canvas = Canvas(side, (14, 8, 26), (24, 12, 42), (10, 8, 24))
    for colour in ((92, 34, 120), (30, 70, 140), (130, 40, 110)):
        x, y = rng.random(), rng.random()
        clouds = [
            (
                x + rng.uniform(-0.2, 0.2),
                y + rng.uniform(-0.2, 0.2),
                rng.uniform(0.1, 0.25),
                rng.uniform(0.06, 0.16),
            )
            for _ in range(4)
        ]
        canvas.ellipses(clouds, colour, 0.5, 0.06)
    for count, radius, colour in ((90, 0.003, (190, 190, 214)), (26, 0.006, (255, 255, 255))):
        canvas.ellipses([(rng.random(), rng.random(), radius, radius) for _ in range(count)], colour)
    return canvas


def _underwater(side: int, rng: random.Random) -> Canvas:
    canvas = Canvas(side, (62, 182, 196), (22, 128, 160), (10, 84, 124))
    for _ in range(4):
        x, width, lean = rng.random(), rng.uniform(0.03, 0.08), rng.uniform(0.05, 0.25)
        beam = [(x, -0.05), (x + width, -0.05), (x + 2.2 * width - lean, 1), (x - lean, 1)]
        canvas.polygon(beam, (190, 240, 236), 0.2, 0.015)
    canvas.hill(_waves(rng, rng.uniform(0.86, 0.9), 0.025, rng.uniform(0.7, 1.3)), (96, 138, 118))
    for _ in range(9):  # weed
        x, height, phase = rng.random(), rng.uniform(0.08, 0.2), rng.uniform(0, 6)
        stem = [(x + 0.012 * math.sin(phase + 9 * t / 8), 0.96 - height * t / 8) for t in range(9)]
        canvas.line(stem, (20, 110, 96), 0.016)
    bubbles = [(rng.random(), rng.uniform(0.03, 0.85), rng.uniform(0.008, 0.02)) for _ in range(10)]
    canvas.ellipses([(x, y, r, r) for x, y, r in bubbles], (210, 244, 246), 0.7)
    canvas.ellipses([(x, y, 0.7 * r, 0.7 * r) for x, y, r in bubbles], (60, 160, 184), 0.7)
    return canvas


CONTENT: dict[str, Callable[[int, random.Random], Canvas]] = {
    "sky": _sky,
    "night": _night,
    "beach": _beach,
    "forest": _forest,
    "city": _city,
    "desert": _desert,
    "space": _space,
    "underwater": _underwater,
}
"""Backgrounds with content, by name."""

BACKGROUNDS = (*FLAT, *CONTENT)
"""Names of all backgrounds, the twelve flat colours first."""


@lru_cache(maxsize=VARIANTS * len(CONTENT))
def content(name: str, variant: int, side: int) -> NDArray[np.uint8]:
    """Draw a background with content.

    Args:
        name: A key of `CONTENT`.
        variant: 0...VARIANTS - 1: which of its looks.
        side: Side of the picture, px.

    Returns:
        (side, side, 3), red, green, blue, 0...255; not to be written to.
    """
    canvas = CONTENT[name](FINE * side, random.Random(f"{name}:{variant}"))
    pixels = np.asarray(canvas.image.resize((side, side), Image.Resampling.BOX))
    pixels.flags.writeable = False
    return pixels
