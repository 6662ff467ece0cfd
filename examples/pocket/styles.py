"""Owns the styles: operations on a whole picture, each with a name for captions.

A style that shows no colours is only drawn where no colour has been promised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from backgrounds import BACKGROUNDS, CONTENT
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

Pixels = NDArray[np.float32]
Operation = Callable[[Image.Image, Image.Image, int], Image.Image]
"""(picture RGB, coverage of the things L, variant) → picture RGB."""

PAPER: NDArray[np.float32] = np.array([252, 250, 244], dtype=np.float32)
DARK: NDArray[np.float32] = np.array([10, 8, 20], dtype=np.float32)
PAPERS = 16  # sheets, each with its own grain and run of the paint
PIXEL_ART_CELLS = 43  # squares along a side


def _pixel_art(picture: Image.Image, things: Image.Image, variant: int) -> Image.Image:
    cell = -(-picture.width // PIXEL_ART_CELLS)
    cells = -(-picture.width // cell)
    coarse = picture.resize((cells, cells), Image.Resampling.BOX)
    coarse = ImageOps.posterize(coarse.filter(ImageFilter.UnsharpMask(1, 80, 0)), 4)
    return coarse.resize((cells * cell,) * 2, Image.Resampling.NEAREST).crop((0, 0, *picture.size))


def _black_and_white(picture: Image.Image, things: Image.Image, variant: int) -> Image.Image:
    return ImageOps.grayscale(picture).convert("RGB")


def _silhouette(picture: Image.Image, things: Image.Image, variant: int) -> Image.Image:
    result = picture.copy()
    result.paste((12, 12, 14), (0, 0), things)
    return result


def _sketch(picture: Image.Image, things: Image.Image, variant: int) -> Image.Image:
    """Dodge the gray picture with its own blurred negative: what changes fast stays dark."""
    unit = picture.width / 128
    gray = ImageOps.grayscale(picture)
    sharp, soft = _floats(gray), _floats(gray.filter(ImageFilter.GaussianBlur(2 * unit)))
    drawn = _floats(things) / np.float32(255)
    ratio = np.clip(sharp / np.maximum(soft, 1), 0, 1)
    inside, outside = 1 - ratio**1.7, np.minimum(1 - ratio**4, 0.4)  # the background faintly
    lines = np.maximum(np.where(drawn > 0.5, inside, outside), 0.8 * _difference(drawn) ** 1.5)
    shade = drawn * (1 - sharp / 255) * (0.30 + 0.08 * _grain(picture.width, variant % PAPERS))
    light = np.clip(1 - lines - shade, 0.12, 1)[..., None]
    return _picture(light * PAPER)


def _watercolour(picture: Image.Image, things: Image.Image, variant: int) -> Image.Image:
    side, paper = picture.width, variant % PAPERS
    wet = _floats(picture.filter(ImageFilter.GaussianBlur(0.5 * side / 128)))[_run(side, paper)]
    soft = _floats(_picture(wet).filter(ImageFilter.GaussianBlur(2 * side / 128)))
    rim = np.clip(np.abs(wet - soft).max(axis=2, keepdims=True) / 255, 0, 0.3)  # pigment gathers at edges
    strength = 0.72 + 0.13 * _wash(side, paper) + 0.8 * rim
    covered = np.maximum(_painted(side, paper), _floats(things) / 255)[..., None]
    washed = PAPER - (PAPER - wet) * strength * covered
    return _picture(washed + 3 * _grain(side, paper)[..., None])


def _neon(picture: Image.Image, things: Image.Image, variant: int) -> Image.Image:
    """Bright lines in the colours of the picture, with a glow, on near black."""
    unit = picture.width / 128
    pixels = _floats(picture.filter(ImageFilter.GaussianBlur(0.6 * unit)))
    brightest = _spread(pixels, np.maximum)
    contrast = (brightest - _spread(pixels, np.minimum)).max(axis=2) / 255
    edge = np.maximum(np.clip(contrast * 2.2 - 0.25, 0, 1), _difference(_floats(things) / np.float32(255)))
    colour = brightest + 25
    colour -= 0.75 * colour.min(axis=2, keepdims=True)  # strong colours only
    lines = edge[..., None] * colour * (255 / colour.max(axis=2, keepdims=True))
    glow = _floats(_picture(lines).filter(ImageFilter.GaussianBlur(3 * unit)))
    return _picture(DARK + lines + 0.9 * glow)


def _floats(picture: Image.Image) -> Pixels:
    return np.asarray(picture, dtype=np.float32)


def _picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))


def _spread(pixels: Pixels, of: Callable[[Pixels, Pixels], Pixels]) -> Pixels:
    """The largest or smallest value among each pixel and its eight neighbours."""
    for axis in (0, 1):
        padding = [(1, 1) if k == axis else (0, 0) for k in range(pixels.ndim)]
        wide = np.pad(pixels, padding, mode="edge").swapaxes(0, axis)
        pixels = of(of(wide[:-2], wide[1:-1]), wide[2:]).swapaxes(0, axis)
    return pixels


def _difference(coverage: Pixels) -> Pixels:
    """How much coverage differs between neighbours, 0...1: the outline of the things."""
    return _spread(coverage, np.maximum) - _spread(coverage, np.minimum)


def _noise(side: int, cells: int, seed: str) -> NDArray[np.float32]:
    """Smooth noise of mean 0 and deviation about 1 with so many cells along a side; (side, side)."""
    generator = np.random.default_rng(list(seed.encode()))
    coarse = Image.fromarray(generator.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))


@cache
def _grain(side: int, paper: int) -> NDArray[np.float32]:
    return _noise(side, 64, f"grain {paper}")


@cache
def _wash(side: int, paper: int) -> NDArray[np.float32]:
    return np.clip(_noise(side, 7, f"wash {paper}"), -1, 1)[..., None]


@cache
def _painted(side: int, paper: int) -> NDArray[np.float32]:
    """How much paint the paper takes: none at its ragged border; (side, side), 0...1."""
    place = np.minimum(np.arange(side), np.arange(side)[::-1]) / side
    margin = np.minimum(place[:, None], place[None, :]) - 0.055 - 0.022 * _noise(side, 14, f"border {paper}")
    return np.clip(margin / 0.02, 0, 1).astype(np.float32)


@cache
def _run(side: int, paper: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each pixel the row and the column from which the paint has run."""
    reach = 0.9 * side / 128
    places = np.indices((side, side)).astype(np.float32)
    moved = [places[k] + reach * _noise(side, 24, f"run {k} {paper}") for k in (0, 1)]
    rows, columns = (np.clip(m.round(), 0, side - 1).astype(np.int64) for m in moved)
    return rows, columns


@dataclass(frozen=True)
class Style:
    """One style.

    Attributes:
        apply: The operation.
        backgrounds: On which it looks right; for a style without colours these are its only grounds.
        shows_colours: Whether a coloured thing keeps its colour.
        outline_alone: Whether only the outline of a thing is left.
    """

    apply: Operation
    backgrounds: tuple[str, ...]
    shows_colours: bool = True
    outline_alone: bool = False


STYLES: dict[str, Style] = {
    "pixel art": Style(_pixel_art, BACKGROUNDS),
    "sketch": Style(_sketch, ("white", "beach", "city", "desert", "forest"), shows_colours=False),
    "silhouette": Style(
        _silhouette,
        ("red", "orange", "yellow", "green", "pink", "white", "cyan", "gray", "sky", "beach", "desert"),
        shows_colours=False,
        outline_alone=True,
    ),
    "black and white": Style(_black_and_white, ("white", "gray", "black", *CONTENT), shows_colours=False),
    "watercolour": Style(
        _watercolour,
        (
            *("red", "orange", "yellow", "green", "blue", "purple", "pink", "cyan"),
            *("sky", "beach", "forest", "city", "desert", "underwater"),
        ),
    ),
    "neon": Style(_neon, ("black",), shows_colours=False),  # brown would glow orange
}
"""Styles by name."""
