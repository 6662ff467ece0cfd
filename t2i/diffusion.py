"""The forward process and what a network is asked to predict.

Symbols: ᾱ (alpha bar) is the product of 1 − β up to a timestep; x_0 clean latents, ε noise,
x_t = √ᾱ x_0 + √(1−ᾱ) ε (Ho et al. 2020, arXiv:2006.11239, eq. 4). This module knows no network and no file.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


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


def velocity(original: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """v = √ᾱ ε − √(1−ᾱ) x_0, (B, C, h, w).

    Source: Salimans & Ho 2022, arXiv:2202.00512, appendix D.
    """
    return broadcast(alpha_bar.sqrt(), noise) * noise - broadcast((1 - alpha_bar).sqrt(), original) * original


def training_target(original: Tensor, noise: Tensor, alpha_bar: Tensor, prediction_type: str) -> Tensor:
    """What the network should have said, (B, C, h, w).

    Raises:
        ValueError: `prediction_type` is not one of `PREDICTION_TYPES`.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        return velocity(original, noise, alpha_bar)
    if prediction_type == "sample":
        return original
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
    raise ValueError(f"prediction_type {prediction_type!r} is not one of {', '.join(PREDICTION_TYPES)}")


def pred_original_sample(model_output: Tensor, latents: Tensor, timestep: Tensor, scheduler: Any) -> Tensor:
    """x̂_0 at a scheduler's own timestep, in the scaled space of x_t = √ᾱ x_0 + √(1−ᾱ) ε.

    Args:
        model_output: Raw (guided) UNet output, (B, C, h, w).
        latents: x_t in the same space, (B, C, h, w). For schedulers that keep x = x_0 + σ ε (the
            Euler and Heun family, LMS), pass `scheduler.scale_model_input(latents, timestep)`.
        timestep: One of `scheduler.timesteps`; fractions are interpolated between training steps.
        scheduler: A Diffusers scheduler with `alphas_cumprod` and `config.prediction_type`.
    """
    table = scheduler.alphas_cumprod.float().cpu()
    position = float(timestep)
    below = min(int(position), len(table) - 1)
    above = min(below + 1, len(table) - 1)
    alpha_bar = torch.lerp(table[below], table[above], position - below)
    return original_from(model_output, latents, alpha_bar, scheduler.config.prediction_type)


def snr(alpha_bar: Tensor) -> Tensor:
    """Signal-to-noise ratio ᾱ / (1−ᾱ); 0 at a zero-terminal step, large near the data."""
    return alpha_bar / (1 - alpha_bar)


def min_snr_weight(alpha_bar: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Loss weight per row that stops nearly clean steps from dominating, (B,).

    min(SNR, γ) / SNR for epsilon, min(SNR, γ) / (SNR + 1) for v, min(SNR, γ) for x_0. Written in ᾱ so
    that SNR = 0 has its limit instead of 0/0.

    Source: Hang et al. 2023, arXiv:2303.09556, section 3.4.
    """
    ratio = snr(alpha_bar)
    if prediction_type == "v_prediction":
        return ratio.clamp(max=gamma) * (1 - alpha_bar)  # 1 / (SNR + 1) = 1 − ᾱ
    if prediction_type == "epsilon":
        return torch.where(ratio > gamma, gamma / ratio.clamp(min=gamma), torch.ones_like(ratio))
    return ratio.clamp(max=gamma)


def logit_normal_timesteps(
    count: int, alpha_bars: Tensor, mean: float, std: float, generator: torch.Generator
) -> Tensor:
    """Timesteps whose noise level σ = √((1−ᾱ)/ᾱ) has a normally distributed logarithm, (count,), int64.

    In the time t = σ / (1 + σ) of a straight path from data to noise, ln σ is the logit of t. Middle noise
    levels, where there is most to learn, come more often than in a uniform draw. One in sixteen is drawn
    uniformly all the same, or else a terminal step of pure noise would never be seen.

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
