"""Aspect-ratio buckets: which size a picture is trained at, and which bucket a step is about.

All pictures of a step have one size. A bucket's turns follow from the step's number: after r passes, a bucket
of n entries has had ⌈r n / B⌉ batches of B, so every picture is seen equally often and nothing has to be
remembered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from t2i.errors import UsageError

WIDEST = 2  # a side is at most so many times, and at least this part of, the square's, unless told


COARSE_FROM = 256  # pixels; below, buckets in steps of 64 would be one or two


def default_bucket_step(resolution: int) -> int:
    """What sides are multiples of where nobody says it, pixels."""
    return 64 if resolution >= COARSE_FROM else 8


@dataclass(frozen=True)
class BucketPlan:
    """Which sizes there are, in pixels.

    Attributes:
        resolution: Side of the square; no bucket has a larger area.
        step: Sides are multiples of it.
        smallest: Shortest side; default: half of `resolution`, rounded up to a multiple of `step`.
        largest: Longest side; default: twice `resolution`.
        upscale: Whether pictures smaller than their bucket are enlarged. If not, they get one that they
            cover, but for the shortest side.

    Raises:
        UsageError: `resolution` is no multiple of `step`, or not between the sides.
    """

    resolution: int
    step: int = 64
    smallest: int | None = None
    largest: int | None = None
    upscale: bool = True

    def __post_init__(self) -> None:
        if self.resolution % self.step:
            raise UsageError(
                f"--resolution {self.resolution}: buckets need a multiple of --bucket-step {self.step}",
                "change either",
            )
        shortest, longest = self.sides
        if not shortest <= self.resolution <= longest:
            raise UsageError(
                f"buckets with sides from {shortest} to {longest} leave out --resolution {self.resolution}"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Shortest and longest side."""
        smallest = self.resolution / WIDEST if self.smallest is None else self.smallest
        largest = self.resolution * WIDEST if self.largest is None else self.largest
        return math.ceil(smallest / self.step) * self.step, int(largest // self.step) * self.step

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of every bucket, sorted: to each short side the longest that the area allows."""
        shortest, longest = self.sides
        found = set()
        for short in range(shortest, self.resolution + 1, self.step):
            long = min(longest, self.resolution**2 // short // self.step * self.step)
            found |= {(short, long), (long, short)}
        return tuple(sorted(found))

    def size_for(self, width: int, height: int) -> tuple[int, int]:
        """The bucket of a picture: the one of the nearest aspect ratio; of two, the one nearer to a square.

        Args:
            width: Upright, pixels.
            height: Upright, pixels.
        """
        ratio = math.log(width / height)
        ratios = {size: math.log(size[0] / size[1]) for size in self.sizes}
        nearest = min(ratios, key=lambda size: (round(abs(ratios[size] - ratio), 9), abs(ratios[size])))
        if self.upscale or (width >= nearest[0] and height >= nearest[1]):
            return nearest
        shortest, longest = self.sides
        fitting = (min(longest, max(shortest, side // self.step * self.step)) for side in (width, height))
        own_width, own_height = fitting
        return (own_width, own_height) if own_width * own_height < nearest[0] * nearest[1] else nearest


@dataclass(frozen=True)
class Turns:
    """Which bucket each step is about.

    Attributes:
        counts: Entries in each bucket: its pictures, each as often as it is repeated.
        batch_size: Pictures in a step.
        seed: Decides the order of the turns.
    """

    counts: tuple[int, ...]
    batch_size: int
    seed: int

    def of(self, step: int) -> tuple[int, int]:
        """The bucket of a step (from 0), and how many batches of it came before."""
        if len(self.counts) == 1:
            return 0, step
        low, high = 0, 1
        while self._steps_before(high) <= step:
            high *= 2
        while high - low > 1:  # the pass in which the step lies: steps before low ≤ step < steps before high
            middle = (low + high) // 2
            low, high = (middle, high) if self._steps_before(middle) <= step else (low, middle)
        before = [self._batches_before(count, low) for count in self.counts]
        batches = [self._batches_before(count, low + 1) for count in self.counts]
        order = _order(tuple(np.subtract(batches, before).tolist()), self.seed, low)
        place = step - sum(before)
        bucket = int(order[place])
        return bucket, before[bucket] + int(np.count_nonzero(order[:place] == bucket))

    def _batches_before(self, count: int, passes: int) -> int:
        return -(-passes * count // self.batch_size)

    def _steps_before(self, passes: int) -> int:
        return sum(self._batches_before(count, passes) for count in self.counts)


def batch_rows(count: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Which examples step `step` (from 0) sees: a fresh shuffle per pass, decided by seed and step alone.

    Because nothing is remembered between steps, a resumed run needs no stored data position.

    Returns:
        int64, (batch_size,).
    """
    return entries_of(count, batch_size, step, seed)[0]


def entries_of(
    count: int, batch_size: int, number: int, seed: int, bucket: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The entries of a bucket in its batch `number` (from 0): a fresh shuffle per pass.

    Args:
        count: Entries in the bucket.
        batch_size: How many of them a batch has; more than there are wrap into further passes.
        number: How many batches of this bucket came before.
        seed: Of the run.
        bucket: Each has its own shuffles.

    Returns:
        Entries, 0 to count − 1, and the pass that each is of; int64, (batch_size,) both.
    """
    positions = np.arange(number * batch_size, (number + 1) * batch_size)
    passes: np.ndarray = positions // count
    entries: np.ndarray = np.empty(batch_size, dtype=np.int64)
    for which in np.unique(passes):
        words = (seed, int(which), bucket) if bucket else (seed, int(which))
        chosen = passes == which
        entries[chosen] = _shuffled(count, words)[positions[chosen] % count]
    return entries, passes


@lru_cache(maxsize=4)  # a pass has many steps
def _shuffled(count: int, words: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(words).permutation(count)


@lru_cache(maxsize=2)
def _order(batches: tuple[int, ...], seed: int, number: int) -> np.ndarray:
    """The bucket of each step of a pass, in which each bucket has so many batches."""
    order = np.random.default_rng((seed, number, 0, 1))
    return order.permutation(np.repeat(np.arange(len(batches)), batches))
