"""The forward process and what a network is asked to predict.

Symbols: ᾱ (alpha bar) is the product of 1 − β up to a timestep; x_0 clean latents, ε noise,
x_t = √ᾱ x_0 + √(1−ᾱ) ε (Ho et al. 2020, arXiv:2006.11239, eq. 4). This module knows no network and no file.

Rectified flow mixes along a straight line instead, x_t = (1−s) x_0 + s ε, which is the same picture at the
noise level ᾱ = (1−s)² / ((1−s)² + s²) in another scale. So ᾱ names the level of either process, SNR = ᾱ /
(1−ᾱ) of both is the same, and what is predicted says which of the two scales the latents are in.
"""

from __future__ import annotations

import torch
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")


def alphas_cumprod(betas: Tensor, zero_terminal_snr: bool = False) -> Tensor:
    """ᾱ_t for every training timestep.

    Args:
        betas: β_t, (T,), each in (0, 1).
        zero_terminal_snr: Shift and scale √ᾱ so that the last step holds no signal at all, as training
            with v-prediction wants it (Lin et al. 2023, arXiv:2305.08891, algorithm 1).

    Returns:
        ᾱ, (T,), float32, falling from nearly 1; exactly 0 at the end with `zero_terminal_snr`.
    """
    signal = (1.0 - betas).cumprod(0).sqrt()
    if zero_terminal_snr:
        signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    return signal**2


def scaled_linear_betas(count: int = 1000, first: float = 0.00085, last: float = 0.012) -> Tensor:
    """Betas whose square roots are evenly spaced: the schedule of latent diffusion, (count,).

    Source: Rombach et al. 2022, arXiv:2112.10752.
    """
    return torch.linspace(first**0.5, last**0.5, count) ** 2


def linear_betas(count: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """Evenly spaced betas, (count,). Source: Ho et al. 2020, section 4 (β_T is 0.02, not 0.2)."""
    return torch.linspace(first, last, count)


def broadcast(values: Tensor, like: Tensor) -> Tensor:
    """(B,) or () to (B, 1, 1, 1), on the device and in the dtype of `like`."""
    return values.to(like.device, like.dtype).reshape(-1, *([1] * (like.ndim - 1)))


def add_noise(original: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_t = √ᾱ x_0 + √(1−ᾱ) ε.

    Args:
        original: x_0, (B, C, h, w).
        noise: ε, same shape.
        alpha_bar: ᾱ at each row's timestep, (B,) or a scalar.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. (4).
    """
    return broadcast(alpha_bar.sqrt(), original) * original + broadcast((1 - alpha_bar).sqrt(), noise) * noise


def flow_alpha_bar(time: Tensor) -> Tensor:
    """ᾱ of the point s on a straight path from data (0) to noise (1), any shape; inverse of `flow_time`."""
    return (1 - time) ** 2 / ((1 - time) ** 2 + time**2)


def flow_time(alpha_bar: Tensor) -> Tensor:
    """s = √(1−ᾱ) / (√ᾱ + √(1−ᾱ)): where on a straight path the noise level ᾱ is, 0…1, any shape."""
    return (1 - alpha_bar).sqrt() / (alpha_bar.sqrt() + (1 - alpha_bar).sqrt())


def flow_alphas_cumprod(count: int = 1000) -> Tensor:
    """ᾱ at the timesteps 0…count of rectified flow, s = timestep / count: (count + 1,), float64, 1 to 0."""
    return flow_alpha_bar(torch.arange(count + 1, dtype=torch.float64) / count)


def interpolate(original: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """x_t = (1−s) x_0 + s ε.

    Args:
        original: x_0, (B, C, h, w).
        noise: ε, same shape.
        time: s of each row, 0…1, (B,) or a scalar.

    Source: Liu et al. 2022, arXiv:2209.03003, eq. (1); Lipman et al. 2022, arXiv:2210.02747, section 4.1.
    Both count from noise to data; 0 is data here, as in Esser et al. 2024, arXiv:2403.03206, section 3.
    """
    return broadcast(1 - time, original) * original + broadcast(time, noise) * noise


def noised(original: Tensor, noise: Tensor, alpha_bar: Tensor, prediction_type: str) -> Tensor:
    """x_t in the scale that a network of this prediction type knows, (B, C, h, w)."""
    if prediction_type == "flow_prediction":
        return interpolate(original, noise, flow_time(alpha_bar))
    return add_noise(original, noise, alpha_bar)


def velocity(original: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """v = √ᾱ ε − √(1−ᾱ) x_0, (B, C, h, w).

    Source: Salimans & Ho 2022, arXiv:2202.00512, appendix D.
    """
    return broadcast(alpha_bar.sqrt(), noise) * noise - broadcast((1 - alpha_bar).sqrt(), original) * original


def training_target(original: Tensor, noise: Tensor, alpha_bar: Tensor, prediction_type: str) -> Tensor:
    """What the network should have said, (B, C, h, w).

    For rectified flow that is ε − x_0, the direction of the path, whatever the level.

    Raises:
        ValueError: `prediction_type` is not one of `PREDICTION_TYPES`.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return velocity(original, noise, alpha_bar)
    if prediction_type == "sample":
        return original
    if prediction_type == "flow_prediction":
        return noise - original
    raise ValueError(f"prediction_type {prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}")


def original_from(model_output: Tensor, latents: Tensor, alpha_bar: Tensor, prediction_type: str) -> Tensor:
    """x̂_0 implied by a network's output at x_t, (B, C, h, w); the inverse of `training_target`.

    For epsilon at ᾱ = 0 the division has no answer; ᾱ is kept above 2⁻²⁴ as Diffusers does.
    """
    alpha_bar = torch.as_tensor(alpha_bar)
    if prediction_type == "epsilon":
        safe = alpha_bar.clamp(min=2.0**-24)
        noise_part = broadcast((1 - alpha_bar).sqrt(), latents) * model_output
        return (latents - noise_part) / broadcast(safe.sqrt(), latents)
    if prediction_type == "v_prediction":
        signal, spread = broadcast(alpha_bar.sqrt(), latents), broadcast((1 - alpha_bar).sqrt(), latents)
        return signal * latents - spread * model_output
    if prediction_type == "sample":
        return model_output
    if prediction_type == "flow_prediction":
        return latents - broadcast(flow_time(alpha_bar), latents) * model_output
    raise ValueError(f"prediction_type {prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}")


def snr(alpha_bar: Tensor) -> Tensor:
    """Signal-to-noise ratio ᾱ / (1−ᾱ); 0 at a zero-terminal step, large near the data."""
    return alpha_bar / (1 - alpha_bar)


def min_snr_weight(alpha_bar: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Loss weight per row that stops nearly clean steps from dominating, (B,).

    min(SNR, γ) / SNR for epsilon, min(SNR, γ) / (SNR + 1) for v, min(SNR, γ) for x_0. Written in ᾱ so
    that SNR = 0 has its limit instead of 0/0. For rectified flow min(SNR, γ) s²: an error of the velocity
    is s times smaller as an error of x̂_0 = x_t − s v.

    Source: Hang et al. 2023, arXiv:2303.09556, section 3.4.
    """
    ratio = snr(alpha_bar)
    if prediction_type == "v_prediction":
        return ratio.clamp(max=gamma) * (1 - alpha_bar)  # 1 / (SNR + 1) = 1 − ᾱ
    if prediction_type == "epsilon":
        return torch.where(ratio > gamma, gamma / ratio.clamp(min=gamma), torch.ones_like(ratio))
    if prediction_type == "flow_prediction":
        return ratio.clamp(max=gamma) * flow_time(alpha_bar) ** 2
    return ratio.clamp(max=gamma)


def logit_normal_timesteps(
    count: int, alpha_bars: Tensor, mean: float, std: float, generator: torch.Generator
) -> Tensor:
    """Timesteps whose noise level σ = √((1−ᾱ)/ᾱ) has a normally distributed logarithm, (count,), int64.

    In the time s = σ / (1 + σ) of a straight path from data to noise, ln σ is the logit of s: for rectified
    flow this is the draw of Esser et al., and a shift of α of theirs is a mean of ln α. Middle noise levels,
    where there is most to learn, come more often than in a uniform draw. One in sixteen is drawn uniformly
    all the same, or else a terminal step of pure noise would never be seen.

    Args:
        count: How many.
        alpha_bars: ᾱ of every training timestep, falling, (T,).
        mean: Mean of ln σ.
        std: Standard deviation of ln σ, above 0.
        generator: Source of randomness, on the CPU.

    Source: Esser et al. 2024, arXiv:2403.03206, section 3.1; Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    ln_sigma = mean + std * torch.randn(count, generator=generator)
    levels = -torch.special.logit(alpha_bars.double(), eps=1e-12).float() / 2  # ln σ of each timestep, rising
    above = torch.searchsorted(levels, ln_sigma).clamp(1, len(levels) - 1)
    nearer_below = ln_sigma - levels[above - 1] < levels[above] - ln_sigma
    uniform = torch.randint(len(alpha_bars), (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < 1 / 16, uniform, above - nearer_below.long())
