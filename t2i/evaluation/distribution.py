"""Distances between two sets of pictures, taken between their features: FID, KID, CMMD.

FID and KID are torchmetrics' own, given t2i's features; figures are comparable only with figures of the same
extractor, so every one names it. CMMD is always taken on CLIP embeddings.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from t2i.evaluation.figures import Figure, NotMeasured, bootstrap_interval, not_below_zero
from t2i.evaluation.instruments import Extractor
from t2i.evaluation.subject import Subject

FID_PICTURES_PER_FEATURE = 10
KERNEL_PICTURES = 100
"""Below these sample counts a figure carries a warning."""

FAST_WIDTH, FEW_ROUNDS = 256, 40
"""Above this many features one FID takes seconds, and its interval is made of fewer resamples."""

KID_BLOCK = 1000
CMMD_SIGMA, CMMD_SCALE, CMMD_MOST = 10.0, 1000.0, 5000
INSTALL = "needs torchmetrics: python -m pip install 't2i[eval]'"


class Computed(nn.Module):
    """A feature extractor for torchmetrics that is handed the features instead of pictures."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        """(N, width) as it is."""
        return features


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½) of two sets of features, (N, d) and (M, d).

    Biased upwards, the more so the fewer pictures there are (Chong & Forsyth 2020, arXiv:1911.07023).

    Raises:
        NotMeasured: torchmetrics is not installed.

    Source: Heusel et al. 2017, arXiv:1706.08500 (FID), eq. (6).
    """
    metric = _metric("fid", "FrechetInceptionDistance", feature=Computed(first.shape[1]))
    metric.update(first.double(), real=True)
    metric.update(second.double(), real=False)
    return max(0.0, float(metric.compute()))


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """Unbiased squared MMD with the kernel (x·y / d + 1)³ of two sets of features; may fall below 0.

    Both sets are cut to the smaller one's size and into blocks of at most 1000 pictures, whose distances are
    averaged; rows should be in random order.

    Args:
        first: (N, d), N >= 2.
        second: (M, d), M >= 2.

    Raises:
        NotMeasured: torchmetrics is not installed.

    Source: Bińkowski et al. 2018, arXiv:1801.01401 (KID), section 4.
    """
    count = min(len(first), len(second))
    blocks = -(-count // KID_BLOCK)
    size = count // blocks
    distances = []
    for start in range(0, size * blocks, size):
        metric = _metric(
            "kid", "KernelInceptionDistance",
            feature=Computed(first.shape[1]), subsets=1, subset_size=size,
        )  # fmt: skip
        metric.update(first[start : start + size].double(), real=True)
        metric.update(second[start : start + size].double(), real=False)
        with torch.random.fork_rng(devices=[]):  # it shuffles with torch's global generator
            distances.append(float(metric.compute()[0]))
    return sum(distances) / len(distances)


class GaussianDistance:
    """CMMD of two sets of embeddings: 1000 times the unbiased squared MMD with exp(−‖x − y‖² / (2 · 10²)).

    The kernel matrices are computed once, so that resampling costs three products with a vector. The authors'
    program computes the biased estimator, which is larger by about 1000 (1 − k̄) (1/N + 1/M).

    Args:
        first: CLIP embeddings of length 1, (N, d), N >= 2.
        second: The same, (M, d), M >= 2.

    Source: Jayasumana et al. 2024, arXiv:2401.09603, eq. (4).
    """

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.within_first = _gaussian(first, first)
        self.within_second = _gaussian(second, second)
        self.between = _gaussian(first, second)

    def __call__(self, rows_first: np.ndarray, rows_second: np.ndarray) -> float:
        """The distance of the chosen rows of each set; a row may be chosen more than once."""
        first = _counts(rows_first, len(self.within_first))
        second = _counts(rows_second, len(self.within_second))
        between = first @ self.between @ second / (first.sum() * second.sum())
        within = _within(self.within_first, first) + _within(self.within_second, second)
        return CMMD_SCALE * float(within - 2 * between)

    def whole(self) -> float:
        """The distance of all rows."""
        return self(np.arange(len(self.within_first)), np.arange(len(self.within_second)))


def measure_fid(subject: Subject) -> list[Figure]:
    """FID against the reference, on the chosen features."""
    first, second, extractor = _pair(subject)
    value = frechet_distance(first, second)
    rounds = subject.rounds if extractor.width <= FAST_WIDTH else min(subject.rounds, FEW_ROUNDS)
    interval = bootstrap_interval(
        lambda mine, theirs: frechet_distance(first[mine], second[theirs]),
        [len(first), len(second)], value, rounds,
    )  # fmt: skip
    interval = not_below_zero(interval)
    minimum = FID_PICTURES_PER_FEATURE * extractor.width
    return [_figure("FID", value, interval, first, second, extractor, minimum, "biased upwards below that")]


def measure_kid(subject: Subject) -> list[Figure]:
    """KID against the reference, on the chosen features."""
    first, second, extractor = _pair(subject)
    random = np.random.default_rng(0)
    first, second = first[random.permutation(len(first))], second[random.permutation(len(second))]
    value = kernel_distance(first, second)
    interval = bootstrap_interval(
        lambda mine, theirs: kernel_distance(first[mine], second[theirs]),
        [len(first), len(second)], value, subject.rounds,
    )  # fmt: skip
    return [_figure("KID", value, interval, first, second, extractor, KERNEL_PICTURES, "see the interval")]


def measure_cmmd(subject: Subject) -> list[Figure]:
    """CMMD against the reference, on CLIP embeddings."""
    clip = subject.instruments.clip
    first = _spread(subject.embeddings)
    second = _spread(subject.instruments.reference_features(clip))
    _enough(first, second)
    distance = GaussianDistance(first, second)
    value = distance.whole()
    interval = bootstrap_interval(distance, [len(first), len(second)], value, subject.rounds)
    return [_figure("CMMD", value, interval, first, second, clip, KERNEL_PICTURES, "see the interval")]


def _pair(subject: Subject) -> tuple[Tensor, Tensor, Extractor]:
    extractor = subject.instruments.extractor
    reference = subject.instruments.reference_features(extractor)
    _enough(subject.features, reference)
    return subject.features, reference, extractor


def _enough(first: Tensor, second: Tensor) -> None:
    for count, whose in ((len(first), "pictures"), (len(second), "reference pictures")):
        if count < 2:
            raise NotMeasured(f"{count} {whose}; at least 2 are needed")


def _figure(
    name: str,
    value: float,
    interval: tuple[float, float] | None,
    first: Tensor,
    second: Tensor,
    extractor: Extractor,
    minimum: int,
    why: str,
) -> Figure:
    """A distance with what it is comparable with, and a warning where there are few pictures."""
    few = min(len(first), len(second))
    return Figure(
        name, value, interval, len(first), better="lower",
        how=f"against {len(second)} reference pictures, on {extractor.described}; comparable only with"
        f" figures on the same features; wants at least {minimum} pictures",
        warning=f"{few} pictures, at least {minimum} are wanted: {why}" if few < minimum else "",
    )  # fmt: skip


def _metric(module: str, name: str, **arguments: Any) -> Any:
    """One of torchmetrics' classes, made."""
    try:
        found = importlib.import_module(f"torchmetrics.image.{module}")
    except ImportError as error:
        raise NotMeasured(INSTALL) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it keeps the features, which we have anyway
        return getattr(found, name)(**arguments)


def _gaussian(first: Tensor, second: Tensor) -> Tensor:
    return torch.exp(-torch.cdist(first.double(), second.double()).square() / (2 * CMMD_SIGMA**2))


def _counts(rows: np.ndarray, count: int) -> Tensor:
    return torch.from_numpy(np.bincount(rows, minlength=count)).double()


def _within(kernel: Tensor, counts: Tensor) -> Tensor:
    """Mean of the kernel over ordered pairs of two different draws."""
    drawn = counts.sum()
    return (counts @ kernel @ counts - counts @ kernel.diagonal()) / (drawn * (drawn - 1))


def _spread(features: Tensor) -> Tensor:
    """At most as many rows as kernel matrices fit into memory, spread evenly."""
    rows = np.linspace(0, len(features) - 1, min(len(features), CMMD_MOST)).astype(int)
    return features[rows]
