"""Pictures that look alike: re-encoded, scaled, made a little brighter.

Two pictures are near-duplicates where the signs of their low frequencies agree but for a few bits, and their
colours agree too. The first is quick to look up among many, the second keeps apart what has only one outline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image as PillowImage

SIDE, BITS = 32, 64
MOST_BITS = 6  # that may differ
BANDS = MOST_BITS + 1  # one of so many parts of the hash is equal wherever at most MOST_BITS differ
COLOUR_SIDE = 16
MOST_COLOUR = 6.0  # root of the mean squared difference of colours, of 255
FAINT = 6.0  # a frequency weaker than this is noise of the encoder, in gray levels times the side
ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Likeness:
    """How a picture looks, roughly.

    Attributes:
        bits: 64 low frequencies of its gray values, one bit each: whether it is strongly positive.
        colours: uint8, 16 x 16 RGB.
    """

    bits: int
    colours: bytes


def likeness_of(picture: PillowImage.Image) -> Likeness:
    """The likeness of an RGB picture.

    The bits are of the discrete cosine transform (Ahmed et al. 1974) of 32 x 32 gray values: the 64 lowest
    frequencies but the mean, 1 where the coefficient is above half of their median size, and above what an
    encoder's noise makes.
    """
    from PIL import Image

    small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    gray = np.asarray(small.convert("L"), dtype=np.float64)
    basis = _cosines()
    vertical, horizontal = _lowest()
    values = (basis @ gray @ basis.T)[vertical, horizontal]
    strong = values > max(FAINT, float(np.median(np.abs(values))) / 2)
    bits = int("".join("1" if bit else "0" for bit in strong), 2)
    colours = small.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)
    return Likeness(bits, colours.tobytes())


def alike(likenesses: Sequence[Likeness]) -> list[tuple[int, int]]:
    """All pairs (i, j), i < j, that look alike, sorted.

    Every pair that agrees in one band of bits is compared, so none is missed. A pair costs about 20 ns.
    """
    if not likenesses:
        return []
    hashes = np.array([one.bits for one in likenesses], dtype=np.uint64)
    colours = np.frombuffer(b"".join(one.colours for one in likenesses), np.uint8)
    colours = colours.reshape(len(likenesses), -1)
    found: set[tuple[int, int]] = set()
    for band in range(BANDS):
        low, high = band * BITS // BANDS, (band + 1) * BITS // BANDS
        keys = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(keys, kind="stable")
        edges: np.ndarray = np.flatnonzero(np.diff(keys[order])) + 1
        for group in np.split(order, edges):
            found |= _alike_in(np.sort(group), hashes, colours)
    return sorted(found)


def _alike_in(group: np.ndarray, hashes: np.ndarray, colours: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of a group, which are few at a time, so that memory stays bounded."""
    found: set[tuple[int, int]] = set()
    for start in range(0, len(group) - 1, ROWS_AT_ONCE):
        rows = group[start : start + ROWS_AT_ONCE]
        differing = np.bitwise_count(hashes[rows][:, None] ^ hashes[group][None, start:])
        near, other = np.nonzero(differing <= MOST_BITS)
        first, second = rows[near], group[start:][other]
        later = first < second
        for one, two in zip(first[later].tolist(), second[later].tolist(), strict=True):
            difference = colours[one].astype(np.float64) - colours[two]
            if math.sqrt(float(np.mean(difference**2))) <= MOST_COLOUR:
                found.add((one, two))
    return found


@cache
def _cosines() -> np.ndarray:
    """The orthonormal cosine basis, (frequency, place)."""
    frequency, place = np.arange(SIDE)[:, None], np.arange(SIDE)[None, :]
    basis = np.cos(math.pi * (2 * place + 1) * frequency / (2 * SIDE)) * math.sqrt(2 / SIDE)
    basis[0] /= math.sqrt(2)
    return np.asarray(basis)


@cache
def _lowest() -> tuple[np.ndarray, np.ndarray]:
    """Vertical and horizontal index of the lowest frequencies without the mean."""
    pairs = [(v, h) for v in range(SIDE) for h in range(SIDE) if v + h]
    pairs.sort(key=lambda pair: (pair[0] + pair[1], pair))
    vertical, horizontal = zip(*pairs[:BITS], strict=True)
    return np.array(vertical), np.array(horizontal)
