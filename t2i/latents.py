"""Pixels ↔ latents, and the noise a picture starts from.

The autoencoder's scale, shift and statistics are used here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from t2i.errors import ModelError

if TYPE_CHECKING:
    import numpy


def spatial_factor(vae: Any) -> int:
    """How many pixels along one side become one latent: 8 for Stable Diffusion."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def latent_size(vae: Any, width: int, height: int) -> tuple[int, int]:
    """(h, w) of the latents of a picture of `width` x `height` pixels."""
    factor = spatial_factor(vae)
    return height // factor, width // factor


def initial_noise(
    seeds: Sequence[int], channels: int, height: int, width: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, list[Generator]]:
    """Standard normal noise, each picture's own from its own seed.

    Drawn on the CPU in fp32 and then cast, so that a seed means the same noise on every device and in
    every number format; equal to what Diffusers draws from a list of CPU generators.

    Args:
        seeds: One integer a picture, 0 <= seed < 2^63.
        channels: Latent channels C.
        height: Latent height h, not pixels.
        width: Latent width w, not pixels.
        dtype: Number format of the result.

    Returns:
        Noise (B, C, h, w) on the CPU, and the B generators in the state after drawing it, from which
        stochastic schedulers go on.
    """
    generators = [Generator("cpu").manual_seed(seed) for seed in seeds]
    noise = [torch.randn((1, channels, height, width), generator=item) for item in generators]
    return torch.cat(noise).to(dtype), generators


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Latents → pixels.

    Args:
        vae: An AutoencoderKL.
        latents: (B, C, h, w), scaled as the UNet sees them.

    Returns:
        Pixels (B, 3, H, W), about -1…1, in the autoencoder's dtype.

    Source: the inverse of Rombach et al. 2022, arXiv:2112.10752, appendix G (rescaled latent space).
    """
    latents = latents.to(vae.device, vae.dtype)
    scaling_factor, shift, spread = _normalisation(vae, latents)
    raw = latents / scaling_factor if spread is None else latents * spread / scaling_factor
    if shift is not None:
        raw = raw + shift
    with torch.no_grad():
        return vae.decode(raw, return_dict=False)[0]


def encode(vae: Any, pixels: Tensor, generator: Generator | None = None) -> Tensor:
    """Pixels → latents, scaled as the UNet sees them.

    Args:
        vae: An AutoencoderKL.
        pixels: (B, 3, H, W), -1…1.
        generator: Draw from the encoder's distribution with it; None takes the distribution's mean.

    Returns:
        Latents (B, C, h, w).
    """
    with torch.no_grad():
        distribution = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    raw = distribution.mode() if generator is None else distribution.sample(generator)
    scaling_factor, shift, spread = _normalisation(vae, raw)
    if shift is not None:
        raw = raw - shift
    return raw * scaling_factor if spread is None else raw * scaling_factor / spread


@dataclass(frozen=True)
class Decoded:
    """Finite pixels (B, 3, H, W) and the dtype in which the autoencoder made them."""

    pixels: Tensor
    vae_dtype: torch.dtype


def decode_finite(vae: Any, latents: Tensor) -> Decoded:
    """Latents → pixels that are numbers.

    fp16 overflows in some autoencoders, and the result is a partly corrupt picture rather than a black
    one. An autoencoder whose config says so is run in fp32 at once; any other gets one more try in fp32.

    Raises:
        ModelError: The latents, or the pixels even in fp32, are not finite.
    """
    if not bool(torch.isfinite(latents).all()):
        raise ModelError(
            "the denoised latents are not finite numbers", "try --dtype fp32, or another --scheduler"
        )
    original = vae.dtype
    half = original in (torch.float16, torch.bfloat16)
    formats = [original, torch.float32] if half else [original]
    if original == torch.float16 and _says_upcast(vae):
        formats = [torch.float32]
    try:
        for dtype in formats:
            if vae.dtype != dtype:
                vae.to(dtype=dtype)
            pixels = decode(vae, latents)
            if bool(torch.isfinite(pixels).all()):
                return Decoded(pixels, dtype)
    finally:
        if vae.dtype != original:
            vae.to(dtype=original)
    raise ModelError(
        "the decoded picture is not made of finite numbers, even in fp32",
        "the model's autoencoder is broken, or the latents are far outside its range",
    )


def to_uint8(pixels: Tensor) -> numpy.ndarray[Any, Any]:
    """Pixels (B, 3, H, W), -1…1 → bytes (B, H, W, 3), rounded half to even as Diffusers does.

    Raises:
        ModelError: A pixel is not a finite number.
    """
    if not bool(torch.isfinite(pixels).all()):
        raise ModelError("the picture has pixels that are not finite numbers", "try --dtype fp32")
    unit = (pixels * 0.5 + 0.5).clamp(0, 1)
    values = unit.cpu().permute(0, 2, 3, 1).float().numpy()
    return (values * 255).round().astype("uint8")


def _says_upcast(vae: Any) -> bool:
    """Whether the autoencoder's own config asks for fp32; Diffusers' default for it is True for all."""
    config = vae.config
    return bool(config.get("force_upcast")) and "force_upcast" not in config.get("_use_default_values", ())


def _normalisation(vae: Any, latents: Tensor) -> tuple[float, Tensor | float | None, Tensor | None]:
    """Scale, shift and per-channel spread of an autoencoder: latents = (raw - shift) * scale / spread."""
    config = vae.config
    mean, spread = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and spread is not None:
        return (
            config.scaling_factor,
            torch.tensor(mean).view(1, -1, 1, 1).to(latents.device, latents.dtype),
            torch.tensor(spread).view(1, -1, 1, 1).to(latents.device, latents.dtype),
        )
    shift = getattr(config, "shift_factor", None)
    return config.scaling_factor, shift or None, None
