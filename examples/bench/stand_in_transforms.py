"""The few transforms of torchvision that Diffusers' training examples use, for machines without it.

`train_side_by_side.py` puts them in torchvision's place where that is not installed, and says so. They do
what torchvision's do with Pillow pictures, step by step, so that neither side gains.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image


class InterpolationMode:
    """Name → Pillow's filter."""

    NEAREST = Image.Resampling.NEAREST
    BILINEAR = Image.Resampling.BILINEAR
    BICUBIC = Image.Resampling.BICUBIC
    BOX = Image.Resampling.BOX
    HAMMING = Image.Resampling.HAMMING
    LANCZOS = Image.Resampling.LANCZOS


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, value: Any) -> Any:
        for transform in self.transforms:
            value = transform(value)
        return value


class Lambda:
    """Any function."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, value: Any) -> Any:
        return self.function(value)


class Resize:
    """Scale a picture until its shorter side is `size` pixels; one that has it already stays as it is."""

    def __init__(self, size: int, interpolation: Image.Resampling = Image.Resampling.BILINEAR) -> None:
        self.size, self.interpolation = size, interpolation

    def __call__(self, picture: Image.Image) -> Image.Image:
        shorter, longer = sorted(picture.size)
        sides = self.size, int(self.size * longer / shorter)
        wanted = sides if picture.width <= picture.height else sides[::-1]
        return picture if picture.size == wanted else picture.resize(wanted, self.interpolation)


class CenterCrop:
    """The middle of a picture, a square of `size` pixels."""

    def __init__(self, size: int) -> None:
        self.size = size

    def place(self, width: int, height: int) -> tuple[int, int]:
        """Left and top of the square."""
        return round((width - self.size) / 2), round((height - self.size) / 2)

    def __call__(self, picture: Image.Image) -> Image.Image:
        left, top = self.place(*picture.size)
        return picture.crop((left, top, left + self.size, top + self.size))


class RandomCrop(CenterCrop):
    """A square of `size` pixels anywhere in a picture."""

    def place(self, width: int, height: int) -> tuple[int, int]:
        """Left and top of the square."""
        if (width, height) == (self.size, self.size):
            return 0, 0
        top = int(torch.randint(height - self.size + 1, ()))
        return int(torch.randint(width - self.size + 1, ())), top


class RandomHorizontalFlip:
    """Every second picture mirrored."""

    def __call__(self, picture: Image.Image) -> Image.Image:
        mirrored = bool(torch.rand(1) < 0.5)
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else picture


class ToTensor:
    """A picture as float32, (3, H, W), 0…1."""

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)


class Normalize:
    """Minus `mean`, over `std`, channel by channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.clone().sub_(self.mean).div_(self.std)


def stand_in() -> None:
    """Make `from torchvision import transforms` give this module."""
    torchvision = ModuleType("torchvision")
    torchvision.transforms = sys.modules[__name__]  # type: ignore[attr-defined]
    sys.modules |= {"torchvision": torchvision, "torchvision.transforms": sys.modules[__name__]}
