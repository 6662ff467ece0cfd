"""Pixels ↔ latents, and the noise a picture starts from.

The autoencoder's scale, shift and statistics are used here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from t2i.errors import ModelError

if TYPE_CHECKING:
    import numpy

FLAT_BELOW = 2 / 255
"""One level of 8 bits, in pixel values of -1…1."""


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
    return normalise(vae, distribution.mode() if generator is None else distribution.sample(generator))


def normalise(vae: Any, raw: Tensor) -> Tensor:
    """What an autoencoder's encoder gives, shifted and scaled as the UNet sees it, (B, C, h, w)."""
    scaling_factor, shift, spread = _normalisation(vae, raw)
    if shift is not None:
        raw = raw - shift
    return raw * scaling_factor if spread is None else raw * scaling_factor / spread


@dataclass(frozen=True)
class Decoded:
    """One picture out of the autoencoder.

    Attributes:
        pixels: (3, H, W), finite, about -1…1.
        vae_dtype: In which the autoencoder made them.
        retried: Why they were decoded a second time, "not finite" or "flat"; "" if they were not.
        flat: Whether they are nearly one colour (`is_flat`) after all; a plain background may be meant.
    """

    pixels: Tensor
    vae_dtype: torch.dtype
    retried: str = ""
    flat: bool = False


def decode_each(vae: Any, latents: Tensor) -> list[Decoded | ModelError]:
    """Latents → pixels that are numbers, or why there are none, picture by picture.

    fp16 overflows in some autoencoders, and the result is a partly corrupt picture rather than a black one;
    a saturated one is flat. An autoencoder whose config says so is run in fp32 at once. A picture that is
    not finite, or flat and not of fp32, is decoded once more by itself in fp32.

    Args:
        vae: An AutoencoderKL.
        latents: (B, C, h, w), scaled as the UNet sees them.

    Returns:
        An entry for each of the B pictures.
    """
    finite = torch.isfinite(latents).flatten(1).all(dim=1).tolist()
    lost = "the denoised latents are not finite numbers", "try --dtype fp32, or another --scheduler"
    if not any(finite):
        return [ModelError(*lost) for _ in finite]
    first = torch.float32 if vae.dtype == torch.float16 and _says_upcast(vae) else vae.dtype
    with _in_format(vae, first):
        # The lost ones too: rows do not mix, and a picture that is drawn again needs the same batch shape.
        pixels = decode(vae, latents)
    faults = _faults(pixels)
    again = [
        row
        for row, fault in enumerate(faults)
        if finite[row] and (fault == "not finite" or (fault and first != torch.float32))
    ]
    with _in_format(vae, torch.float32 if again else vae.dtype):
        second = {row: decode(vae, latents[row : row + 1]) for row in again}
    decoded: list[Decoded | ModelError] = []
    for row, fault in enumerate(faults):
        if not finite[row]:
            decoded.append(ModelError(*lost))
            continue
        last = _faults(second[row])[0] if row in second else fault
        if last == "not finite":
            hint = "the model's autoencoder is broken, or the latents are far outside its range"
            decoded.append(
                ModelError("the decoded picture is not made of finite numbers, even in fp32", hint)
            )
        elif row in second:
            decoded.append(Decoded(second[row][0], torch.float32, fault, last == "flat"))
        else:
            decoded.append(Decoded(pixels[row], first, "", last == "flat"))
    return decoded


def decode_finite(vae: Any, latents: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) of `decode_each`.

    Raises:
        ModelError: One of the pictures is not made of finite numbers.
    """
    decoded = decode_each(vae, latents)
    for outcome in decoded:
        if isinstance(outcome, ModelError):
            raise outcome
    return torch.stack([outcome.pixels for outcome in decoded if isinstance(outcome, Decoded)])


def is_flat(pixels: Tensor) -> Tensor:
    """Whether pictures are of one colour or nearly so, (B,).

    In each channel the values, cut to -1…1, have a standard deviation of less than one level of 8 bits.

    Args:
        pixels: (B, 3, H, W), -1…1.
    """
    spread = pixels.float().clamp(-1, 1).flatten(2).std(dim=2, correction=0)
    return spread.amax(dim=1) < FLAT_BELOW


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


def _faults(pixels: Tensor) -> list[str]:
    """What is wrong with each picture: "not finite", "flat", or ""."""
    finite = torch.isfinite(pixels).flatten(1).all(dim=1).tolist()
    flat = is_flat(pixels).tolist()
    return ["not finite" if not finite[row] else "flat" if flat[row] else "" for row in range(len(finite))]


@contextmanager
def _in_format(vae: Any, dtype: torch.dtype) -> Iterator[None]:
    """An autoencoder in another number format for a while; every value of a half fits into fp32 and back."""
    before = vae.dtype
    if before == dtype:
        yield
        return
    try:
        vae.to(dtype=dtype)
        yield
    finally:
        vae.to(dtype=before)


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
