"""How much each channel of the latents counts in the loss of a UNet.

With a plain loss all channels of deviation 1 count alike. But an autoencoder may say nearly everything in two
of them, and fine, unpredictable detail in the others; the loss is then mostly about what nobody sees. Weights
move no minimum: every channel of the output is a regression of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

PICTURES = 64
CHANGE = 0.5  # deviation of the noise that shows what a channel does; that of the channel itself is 1
POWER = 0.5  # of the change of the pixels; 1 would nearly drop the channels of fine detail
DIGITS = 3  # so that another number of threads gives the same weights


@torch.no_grad()
def channel_weights(vae: AutoencoderKL, latents: np.ndarray) -> Tensor:
    """The weight of each channel: the root of how much noise in it changes the decoded pixels, mean 1.

    Args:
        vae: Its decoder is used, where it is.
        latents: Of the training pictures, scaled, (N, C, h, w); `PICTURES` of them are looked at, evenly
            spread.

    Returns:
        (C,), fp32, on the CPU; of mean 1 up to rounding, none below 10^-`DIGITS`.
    """
    rows = np.linspace(0, len(latents) - 1, min(PICTURES, len(latents))).astype(np.int64)
    device, factor = next(vae.parameters()).device, vae.config.scaling_factor
    changes = torch.zeros(latents.shape[1], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for row in rows:
        original = torch.from_numpy(latents[row : row + 1].astype(np.float32)).to(device)
        noise = CHANGE * torch.randn(original[:, 0].shape, generator=generator).to(device)
        whole = vae.decode(original / factor).sample
        for channel in range(len(changes)):
            moved = original.clone()
            moved[:, channel] += noise
            changes[channel] += (vae.decode(moved / factor).sample - whole).pow(2).mean().item()
    weights = changes**POWER
    return (weights / weights.mean()).float().round(decimals=DIGITS).clamp(min=10**-DIGITS)
