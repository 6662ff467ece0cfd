"""Networks compiled for training, around a fault of the compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn


def compiled(module: nn.Module) -> Callable[..., Any]:
    """A network as `torch.compile` makes it, for training.

    Its upsamplers repeat pixels by a view instead of `interpolate`: Inductor 2.13 on a CPU gives the backward
    of bfloat16 nearest-neighbour interpolation as zeros, so that nothing below the last level would learn.
    """
    for part in module.modules():
        if isinstance(part, Upsample2D) and part.interpolate:
            part.interpolate = False
            part.register_forward_pre_hook(lambda _, arguments: (double(arguments[0]), *arguments[1:]))
    return torch.compile(module, dynamic=False)


def double(values: Tensor) -> Tensor:
    """Nearest-neighbour upsampling, (B, C, h, w) to (B, C, 2h, 2w)."""
    count, channels, height, width = values.shape
    wide = values[:, :, :, None, :, None].expand(count, channels, height, 2, width, 2)
    return wide.reshape(count, channels, 2 * height, 2 * width)
