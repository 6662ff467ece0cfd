"""The formulas of `t2i.diffusion` and the `ddpm` row against NumPy in double precision, from the papers.

β_T is 0.02 and the factor of Algorithm 2 is 1/√α_t, as Ho et al. 2020 have them; some lecture slides
print 0.2 and 1/α_t.
"""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from tiny_models import SCHEDULER_CONFIGS
from torch import Generator, Tensor

from t2i import diffusion
from t2i.sampling import denoise
from t2i.schedulers import make_scheduler, set_timesteps

pytestmark = pytest.mark.usefixtures("one_thread")


T = 1000
BETA = np.linspace(1e-4, 0.02, T)  # β_1 … β_T stand at 0 … T−1
ALPHA = 1 - BETA
ALPHA_BAR = np.cumprod(ALPHA)
LECTURE = {"_class_name": "DDPMScheduler", "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear",
           "num_train_timesteps": T, "variance_type": "fixed_large", "clip_sample": True}  # fmt: skip


def test_algorithm_1_gradients() -> None:
    """∇ ‖ε − ε_θ(√ᾱ_t x_0 + √(1−ᾱ_t) ε, t)‖² of a network ε_θ(x, t) = a x + b t/T, for every t."""
    draw = np.random.default_rng(0)
    original, noise = draw.normal(size=(2, T, 3))  # row t − 1 is a training example at step t
    a, b, share = 0.3, -0.7, (np.arange(1, T + 1) / T)[:, None]

    noisy = np.sqrt(ALPHA_BAR)[:, None] * original + np.sqrt(1 - ALPHA_BAR)[:, None] * noise
    residual = a * noisy + b * share - noise
    expected = [2 * (residual * noisy).sum(), 2 * (residual * share).sum()]

    weights = torch.tensor([a, b], requires_grad=True)
    alpha_bar = diffusion.alphas_cumprod(diffusion.linear_betas())
    x_0, epsilon = (torch.tensor(value, dtype=torch.float32) for value in (original, noise))
    x_t = diffusion.add_noise(x_0, epsilon, alpha_bar)
    target = diffusion.training_target(x_0, epsilon, alpha_bar, "epsilon")
    prediction = weights[0] * x_t + weights[1] * torch.tensor(share, dtype=torch.float32)
    (prediction - target).square().sum().backward()

    assert weights.grad is not None
    np.testing.assert_allclose(weights.grad.numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(x_t.numpy(), noisy, atol=1e-5)


def test_algorithm_2() -> None:
    """All 1000 steps, σ_t² = β_t, the same noise: every x_{t−1} of the row against the formula."""

    def network(x: np.ndarray, t: int) -> np.ndarray:
        return np.tanh(x * (0.2 + t / T))

    shape = (1, 4, 6, 5)
    source = Generator().manual_seed(1)
    start = torch.randn(shape, generator=source)
    noise = [torch.randn(shape, generator=source).double().numpy() for _ in range(T - 1)]

    x, expected = start.double().numpy(), []
    for t in range(T, 0, -1):
        z = noise[T - t] if t > 1 else np.zeros(shape)
        alpha, beta, alpha_bar = ALPHA[t - 1], BETA[t - 1], ALPHA_BAR[t - 1]
        mean = (x - (1 - alpha) / np.sqrt(1 - alpha_bar) * network(x, t)) / np.sqrt(alpha)
        x = mean + np.sqrt(beta) * z
        expected.append(x)

    scheduler = make_scheduler("ddpm", LECTURE)
    set_timesteps(scheduler, T)
    assert scheduler.timesteps.tolist() == list(range(T - 1, -1, -1))
    again = Generator().manual_seed(1)
    latents = torch.randn(shape, generator=again)

    def denoiser(latents: Tensor, timestep: Tensor) -> Tensor:
        return torch.tanh(latents * (0.2 + (float(timestep) + 1) / T))

    for step, wanted in zip(denoise(denoiser, scheduler, latents, [again]), expected, strict=True):
        np.testing.assert_allclose(step.latents.numpy(), wanted, rtol=1e-3, atol=1e-3)


def test_the_limits_of_the_forward_process() -> None:
    original, noise = torch.ones(2, 3), torch.full((2, 3), 5.0)
    assert torch.equal(diffusion.add_noise(original, noise, torch.tensor(1.0)), original)
    assert torch.equal(diffusion.add_noise(original, noise, torch.tensor(0.0)), noise)


def test_one_jump_equals_many_small_steps() -> None:
    """q(x_t | x_0) from 1000 steps of q(x_t | x_{t−1}): mean and variance by recursion."""
    mean, variance = 1.0, 0.0
    levels = diffusion.alphas_cumprod(diffusion.linear_betas()).double()
    for t in range(T):
        mean, variance = np.sqrt(ALPHA[t]) * mean, ALPHA[t] * variance + BETA[t]
        assert mean == pytest.approx(float(levels[t].sqrt()), rel=1e-4)
        assert variance == pytest.approx(float(1 - levels[t]), rel=1e-3)


@pytest.mark.parametrize("prediction_type", diffusion.PREDICTION_TYPES)
def test_targets_and_their_inverse(prediction_type: str) -> None:
    draw = Generator().manual_seed(2)
    original, noise = torch.randn((2, 64, 4, 3, 3), generator=draw)
    level = torch.linspace(0.01, 0.999, 64)
    noisy = diffusion.noised(original, noise, level, prediction_type)
    target = diffusion.training_target(original, noise, level, prediction_type)
    back = diffusion.original_from(target, noisy, level, prediction_type)
    torch.testing.assert_close(back, original, rtol=1e-4, atol=1e-4)


def test_velocity_equals_diffusers() -> None:
    scheduler = diffusers.DDPMScheduler()
    original, noise = torch.randn((2, 5, 4, 3, 3), generator=Generator().manual_seed(3))
    timesteps = torch.tensor([0, 10, 500, 900, 999])
    level = scheduler.alphas_cumprod[timesteps]
    expected = scheduler.get_velocity(original, noise, timesteps)
    torch.testing.assert_close(diffusion.velocity(original, noise, level), expected)
    expected = scheduler.add_noise(original, noise, timesteps)
    torch.testing.assert_close(diffusion.add_noise(original, noise, level), expected)


def test_zero_terminal_snr_equals_diffusers_and_reaches_zero() -> None:
    betas = diffusion.scaled_linear_betas()
    config = SCHEDULER_CONFIGS["pocket"]
    reference = diffusers.DDIMScheduler.from_config(config)
    level = diffusion.alphas_cumprod(betas, zero_terminal_snr=True)
    torch.testing.assert_close(level, reference.alphas_cumprod, rtol=1e-4, atol=1e-8)
    assert float(level[-1]) == 0 and float(diffusion.snr(level)[-1]) == 0
    assert float(level[0]) == pytest.approx(float(1 - betas[0]), rel=1e-6)


def test_unknown_prediction_types_are_errors() -> None:
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match="'score'"):
        diffusion.training_target(one, one, torch.tensor(0.5), "score")
    with pytest.raises(ValueError, match="'score'"):
        diffusion.original_from(one, one, torch.tensor(0.5), "score")


@pytest.mark.parametrize("prediction_type", diffusion.PREDICTION_TYPES)
def test_min_snr_weights_are_the_papers(prediction_type: str) -> None:
    """Hang et al. 2023: the loss on x_0, weighed by min(SNR, γ), in terms of what is predicted."""
    level = torch.tensor([0.0, 0.01, 0.3, 0.5, 0.9, 0.99], dtype=torch.float64)
    ratio = (level / (1 - level)).numpy()
    clipped = np.minimum(ratio, 5.0)
    with np.errstate(invalid="ignore"):
        expected = {"epsilon": clipped / ratio, "v_prediction": clipped / (ratio + 1), "sample": clipped}
        expected["flow_prediction"] = clipped / (1 + np.sqrt(ratio)) ** 2  # √SNR = (1−s)/s, so s = 1/(1+√SNR)
    found = diffusion.min_snr_weight(level, 5.0, prediction_type).numpy()
    wanted = np.nan_to_num(expected[prediction_type], nan=1.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_logit_normal_timesteps_have_a_normal_ln_sigma() -> None:
    levels = diffusion.alphas_cumprod(diffusion.scaled_linear_betas(), zero_terminal_snr=True)
    generator = torch.Generator().manual_seed(0)
    drawn = diffusion.logit_normal_timesteps(60_000, levels, -0.4, 0.8, generator)
    assert 0 <= int(drawn.min()) and int(drawn.max()) <= 999
    ln_sigma = np.log(np.sqrt((1 - levels.double().numpy()) / np.maximum(levels.double().numpy(), 1e-30)))
    middle, spread = np.quantile(ln_sigma[drawn], 0.5), np.quantile(ln_sigma[drawn], [0.16, 0.84])
    uniform = 1 / 16  # of the draws, which moves the quantiles a little
    assert middle == pytest.approx(-0.4, abs=0.05)
    assert spread == pytest.approx([-0.4 - 0.8, -0.4 + 0.8], abs=0.12)
    far = (ln_sigma[drawn] > -0.4 + 5 * 0.8).mean()  # the normal draw reaches these once in four million
    assert far == pytest.approx(uniform * (ln_sigma > -0.4 + 5 * 0.8).mean(), rel=0.3)


def test_logit_normal_timesteps_are_the_nearest_levels() -> None:
    levels = diffusion.alphas_cumprod(diffusion.linear_betas())
    ln_sigma = torch.log((1 - levels).sqrt() / levels.sqrt())
    for timestep in (0, 1, 500, 998, 999):
        drawn = diffusion.logit_normal_timesteps(
            2000, levels, float(ln_sigma[timestep]), 1e-6, torch.Generator().manual_seed(1)
        )
        share = (drawn == timestep).float().mean()
        assert 0.9 < share < 0.97
