"""How much arithmetic one call of a UNet is, and about how fast this machine computes. Standard library only.

For guesses of time before anything was measured: right in their order of magnitude.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

CORE_FLOP_S = 60e9
"""Of one core of a CPU, in a batch of pictures; 0.9 to 1.8 times that on the CPUs that were measured."""

GPU_FLOP_S = 3e13
"""Of a GPU in half precision without a compiled UNet: 22 steps of SD 1.5 a second are 3.5e13."""

GPU_FILES = ("/dev/nvidiactl", "/dev/kfd")  # asking torch costs two seconds


def unet_flop(unet: Mapping[str, Any], width: float, height: float) -> float:
    """About how many floating point operations one call of a `UNet2DConditionModel` is, for one picture.

    A level of C channels on P places has 2 layers + 1 blocks on its two ways, of about 27 C² P products in
    the convolutions (those on the way up see twice the channels) and 20 C² P in each transformer layer. A
    quarter more is the rest. SD 1.5 at 512 px: 0.80e12, SDXL at 1024 px: 6.8e12.

    Args:
        unet: Its config.
        width: Of the latents, places.
        height: Of the latents, places.
    """
    channels: Sequence[int] = unet["block_out_channels"]
    layers, depths = (
        _per_level(unet.get(name, 1), len(channels))
        for name in ("layers_per_block", "transformer_layers_per_block")
    )
    kinds = unet.get("down_block_types", ("CrossAttnDownBlock2D",) * len(channels))
    total = 0.0
    for level, kind in enumerate(kinds):
        places = width * height / 4**level
        depth = depths[level] if "Attn" in kind else 0
        total += (2 * layers[level] + 1) * (27 + 20 * depth) * channels[level] ** 2 * places
    return 2.5 * total


def assumed_speed(device: str) -> float:
    """Floating point operations a second of what `--device` means here, without asking it."""
    if device != "cpu" and (device != "auto" or any(map(os.path.exists, GPU_FILES))):
        return GPU_FLOP_S
    return CORE_FLOP_S * (os.cpu_count() or 1)


def _per_level(value: Any, levels: int) -> list[int]:
    return [value] * levels if isinstance(value, int) else [int(one) for one in value]
