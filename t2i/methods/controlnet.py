"""ControlNet: a copy of the UNet's encoder reads a second picture and steers the frozen UNet.

Its outputs pass through convolutions that start at zero, so the base draws as before until they have learned.
Source: Zhang et al. 2023, arXiv:2302.05543, section 3.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from t2i.conditioning import Conditioning
from t2i.errors import DatasetError
from t2i.families.control import predict_with_control
from t2i.latents import spatial_factor
from t2i.methods.denoising import DenoisingMethod

# Of the small network that brings a picture to the size of the latents, each but the first halving.
EMBEDDING_WIDTHS = (16, 32, 96, 256, 512)


class TrainControlNet(DenoisingMethod):
    """A new ControlNet for the base; conditioning pictures come with the data."""

    name: ClassVar[str] = "controlnet"
    default_steps: ClassVar[int] = 5000
    default_learning_rate: ClassVar[float] = 1e-5
    pocket_learning_rate: ClassVar[float] = 1e-3
    results: ClassVar[tuple[str, ...]] = ("parts/controlnet",)

    def adapt(self) -> None:
        if self.data.conditioning is None:
            raise DatasetError(
                "the dataset has no conditioning pictures",
                "put them in its folder conditioning/ under the same names, or give --control-kind edges",
            )
        halvings = int(math.log2(spatial_factor(self.vae)))
        self.controlnet: Any = ControlNetModel.from_unet(
            self.unet, conditioning_embedding_out_channels=EMBEDDING_WIDTHS[: halvings + 1]
        )
        self.controlnet.to(self.device, memory_format=torch.channels_last).train().requires_grad_(True)
        self.controlnet.set_attn_processor(next(iter(self.unet.attn_processors.values())))
        if self.config.gradient_checkpointing:
            self.controlnet.enable_gradient_checkpointing()

    def learning(self) -> dict[str, nn.Module]:
        return {"controlnet": self.controlnet}

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, pictures: np.ndarray | None = None
    ) -> Tensor:
        """The UNet's output with what the ControlNet adds for the conditioning pictures of `pictures`."""
        assert pictures is not None
        height, width = (side * spatial_factor(self.vae) for side in noisy.shape[-2:])
        arguments = self.family.unet_arguments(conditioning, width, height)
        conditions = self.condition(pictures)
        return predict_with_control(self.unet, self.controlnet, conditions, 1.0, noisy, timesteps, arguments)

    def condition(self, pictures: np.ndarray) -> Tensor:
        """Conditioning pictures as a ControlNet takes them, (B, 3, H, W), 0…1."""
        assert self.data.conditioning is not None
        rows = np.ascontiguousarray(self.data.conditioning[pictures])
        return (torch.from_numpy(rows).float() / 255).to(self.device)

    def shown_above(self, count: int) -> list[Tensor]:
        """The conditioning pictures that the sheet's pictures follow."""
        return [self.condition(np.arange(count) % len(self.data.pixels)).cpu() * 2 - 1]
