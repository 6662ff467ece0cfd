"""Two losses that punish a blur which differences of pixels forgive: perceptual and patch-adversarial.

Perceptual: distance of a frozen CLIP vision tower's features, layer by layer, in the manner of LPIPS without
its learned weights (Johnson et al. 2016, arXiv:1603.08155; Zhang et al. 2018, arXiv:1801.03924, eq. 1).
Patch-adversarial: a discriminator of patches (Isola et al. 2016, arXiv:1611.07004, section 3.2.2) with the
hinge loss, as in VQGAN (Esser et al. 2020, arXiv:2012.09841, eq. 5 to 7), with a constant weight.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

WIDTHS = (32, 64, 128)


class PerceptualDistance(nn.Module):
    """How different two batches of pictures look to a CLIP model; it never learns.

    Args:
        clip: A `t2i.weights.clip_model.Clip`.
    """

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.tower, self.side = clip.model.vision_model, clip.side
        self.register_buffer("mean", clip.mean)
        self.register_buffer("std", clip.std)
        self.requires_grad_(False)

    def forward(self, rebuilt: Tensor, pixels: Tensor) -> Tensor:
        """Mean over layers and patches of the squared distance of features of length 1, scalar.

        Args:
            rebuilt: (B, 3, H, W), -1...1; the gradient flows into these.
            pixels: Same shape.
        """
        with torch.no_grad():
            wanted = self._features(pixels)
        pairs = zip(self._features(rebuilt), wanted, strict=True)
        return torch.stack([(one - other).pow(2).sum(-1).mean() for one, other in pairs]).mean()

    def _features(self, pixels: Tensor) -> list[Tensor]:
        """Of every layer, (B, patches, width), each patch of length 1."""
        unit = (pixels.float() + 1) / 2
        size = (self.side, self.side)
        unit = F.interpolate(unit, size, mode="bilinear", antialias=True, align_corners=False)
        seen = self.tower(pixel_values=(unit - self.mean) / self.std, output_hidden_states=True)
        return [F.normalize(layer.float(), dim=-1) for layer in seen.hidden_states[1:]]


class PatchDiscriminator(nn.Module):
    """Says of every patch whether it is of a picture (above 0) or of a decoder (below)."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for number, width in enumerate(widths):
            stride = 2 if number < len(widths) - 1 else 1
            layers.append(nn.Conv2d(before, width, 4, stride, 1))
            if number > 0:
                layers.append(nn.GroupNorm(8, width))
            layers.append(nn.LeakyReLU(0.2))
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W), -1...1, sides of at least 16 → a value for each patch, (B, 1, h, w)."""
        judged: Tensor = self.layers(pixels)
        return judged


def adversarial_losses(judge: PatchDiscriminator, rebuilt: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """What the autoencoder and what the discriminator has to minimise; neither moves the other.

    Args:
        judge: The discriminator.
        rebuilt: (B, 3, H, W), -1...1.
        pixels: Same shape.
    """
    as_it_is = {name: value.detach() for name, value in judge.named_parameters()}
    fooling = -functional_call(judge, as_it_is, (rebuilt,)).float().mean()
    true, false = judge(pixels).float(), judge(rebuilt.detach()).float()
    return fooling, (F.relu(1 - true).mean() + F.relu(1 + false).mean()) / 2
