"""FID, KID and CMMD against second implementations and closed forms."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from t2i.evaluation.distribution import GaussianDistance, frechet_distance, kernel_distance
from t2i.evaluation.diversity import cosine_distance, root_mean_square_distance
from t2i.evaluation.figures import NotMeasured


def draw(count: int, mean: list[float], covariance: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).multivariate_normal(mean, covariance, count)


def gaussian_distance(mean_1, covariance_1, mean_2, covariance_2) -> float:  # type: ignore[no-untyped-def]
    """The closed form, with scipy's matrix square root."""
    root = scipy.linalg.sqrtm(covariance_1 @ covariance_2)
    shift = np.square(np.asarray(mean_1) - np.asarray(mean_2)).sum()
    return float(shift + np.trace(covariance_1 + covariance_2 - 2 * np.real(root)))


MEANS = [0.0, 1.0, -2.0], [0.5, 0.0, -1.0]
COVARIANCES = (
    np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.5]]),
    np.array([[1.0, -0.3, 0.1], [-0.3, 0.7, 0.0], [0.1, 0.0, 1.5]]),
)


def test_fid_of_a_set_with_itself_is_zero() -> None:
    features = torch.from_numpy(draw(60, MEANS[0], COVARIANCES[0], 1))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


def test_fid_equals_the_closed_form_on_the_samples_moments() -> None:
    first, second = (
        draw(50, mean, cov, k) for k, (mean, cov) in enumerate(zip(MEANS, COVARIANCES, strict=True))
    )
    moments = [(values.mean(0), np.cov(values.T)) for values in (first, second)]
    wanted = gaussian_distance(*moments[0], *moments[1])
    assert frechet_distance(torch.from_numpy(first), torch.from_numpy(second)) == pytest.approx(
        wanted, rel=1e-8
    )


def test_fid_of_many_draws_comes_near_the_distance_of_the_gaussians() -> None:
    first, second = (
        draw(40_000, mean, cov, k) for k, (mean, cov) in enumerate(zip(MEANS, COVARIANCES, strict=True))
    )
    wanted = gaussian_distance(MEANS[0], COVARIANCES[0], MEANS[1], COVARIANCES[1])
    assert frechet_distance(torch.from_numpy(first), torch.from_numpy(second)) == pytest.approx(
        wanted, rel=0.03
    )


def unbiased_mmd(kernel, first: Tensor, second: Tensor) -> float:  # type: ignore[no-untyped-def]
    """The U-statistic with loops over pairs, as the papers write it."""
    n, m = len(first), len(second)
    within_1 = sum(kernel(first[i], first[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_2 = sum(kernel(second[i], second[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    between = sum(kernel(x, y) for x in first for y in second) / (n * m)
    return float(within_1 + within_2 - 2 * between)


def test_kid_equals_the_unbiased_estimator() -> None:
    first, second = torch.randn(2, 12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    second = second + 0.7
    wanted = unbiased_mmd(lambda x, y: (x @ y / 5 + 1) ** 3, first, second)
    assert kernel_distance(first, second) == pytest.approx(wanted, rel=1e-9)


def test_kid_is_zero_on_average_for_sets_of_one_distribution() -> None:
    generator = torch.Generator().manual_seed(2)
    draws = [
        kernel_distance(*torch.randn(2, 40, 4, dtype=torch.float64, generator=generator)) for _ in range(60)
    ]
    assert min(draws) < 0 < max(draws)
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(len(draws))


def test_kid_leaves_torchs_own_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    kernel_distance(torch.ones(5, 3), torch.zeros(5, 3))
    assert torch.equal(torch.get_rng_state(), state)


def test_kid_averages_blocks_of_large_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("t2i.evaluation.distribution.KID_BLOCK", 10)
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn(21, 4, generator=generator), torch.randn(30, 4, generator=generator) + 1
    blocks = [kernel_distance(first[k : k + 7], second[k : k + 7]) for k in (0, 7, 14)]
    assert kernel_distance(first, second) == pytest.approx(np.mean(blocks), rel=1e-9)


def unit(count: int, seed: int, shift: float = 0.0) -> Tensor:
    values = torch.randn(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + shift
    return values / values.norm(dim=1, keepdim=True)


def test_cmmd_equals_the_unbiased_estimator_on_a_gaussian_kernel() -> None:
    first, second = unit(9, 1), unit(13, 2, 0.5)

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-((x - y) ** 2).sum() / (2 * 10.0**2))

    assert GaussianDistance(first, second).whole() == pytest.approx(
        1000 * unbiased_mmd(kernel, first, second), rel=1e-7
    )


def test_cmmd_of_chosen_rows_is_that_of_a_set_made_of_them() -> None:
    first, second = unit(9, 3), unit(11, 4, 0.5)
    rows, others = np.array([0, 0, 3, 8, 5, 5, 5, 1, 2]), np.array([10, 2, 2, 4, 7])
    chosen = GaussianDistance(first[rows], second[others]).whole()
    assert GaussianDistance(first, second)(rows, others) == pytest.approx(chosen, rel=1e-9)


def test_without_torchmetrics_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torchmetrics")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(NotMeasured, match=r"pip install 't2i\[eval\]'"):
            distance(torch.rand(4, 2), torch.rand(4, 2))


def test_diversity_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    assert cosine_distance(features) == pytest.approx((1 + 2 + 1) / 3)
    pixels = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    assert root_mean_square_distance(pixels) == pytest.approx((1 + 0.5**0.5 + 0.5**0.5) / 3)
    assert cosine_distance(features[:1].repeat(3, 1)) == pytest.approx(0, abs=1e-12)
