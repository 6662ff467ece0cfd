"""A ControlNet beside a UNet: it reads a second picture, and what it finds is added inside the UNet.

Source: Zhang et al. 2023, arXiv:2302.05543, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Control:
    """What steers the pictures of a family.

    Attributes:
        network: A ControlNetModel, in the UNet's format.
        picture: (width, height) → what it follows, (1, 3, height, width), 0…1.
        scale: Of what it adds; 0 = nothing.
    """

    network: Any
    picture: Callable[[int, int], Tensor]
    scale: float


def predict_with_control(
    unet: Any,
    controlnet: Any,
    picture: Tensor,
    scale: float,
    latents: Tensor,
    timestep: Tensor,
    arguments: Mapping[str, Any],
) -> Tensor:
    """The UNet's output with what a ControlNet adds to its skip connections and its middle.

    Args:
        unet: A UNet2DConditionModel.
        controlnet: A ControlNetModel of the same shape.
        picture: What it follows, (B, 3, H, W) or one for all, (1, 3, H, W); 0…1.
        scale: Of what is added.
        latents: Scaled, (B, C, h, w).
        timestep: () or (B,).
        arguments: Further ones of both networks, as `unet_arguments` of the family gives.

    Returns:
        (B, C, h, w).
    """
    down, middle = controlnet(
        latents, timestep, controlnet_cond=picture, conditioning_scale=scale, return_dict=False, **arguments
    )
    return unet(
        latents, timestep, return_dict=False, down_block_additional_residuals=down,
        mid_block_additional_residual=middle, **arguments,
    )[0]  # fmt: skip
