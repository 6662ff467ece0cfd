"""The recogniser: a small network that says which things a picture shows, where, and on which colour.

It judges pocket and never teaches it. It was trained (`examples/pocket/train_recogniser.py`) on renderings of
all combinations, those held out from pocket included: a judge must not be blind to what it is asked about.
It knows drawn things as pocket draws them; about photographs it says nothing worth hearing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from t2i import durable
from t2i.catalog import ASSETS
from t2i.evaluation.vocabulary import VOCABULARY_FILE, read_vocabulary

WEIGHTS_FILE = ASSETS / "recogniser" / "recogniser.safetensors"
PICTURE_PX = 64  # pictures of other sizes are resized to this first
GRID = 8  # the picture is cut into 8 x 8 cells of 8 px
FOUND = 0.5  # probability at which a thing counts as found
NOTHING = 0  # class of a cell in which no thing has its middle
TELLS = frozenset({"things", "places", "background"})
"""What the recogniser can be asked about; categories that need anything else are not measured."""


@dataclass(frozen=True)
class Found:
    """One thing that the recogniser sees.

    Attributes:
        concept: Its name.
        score: Highest probability of any cell, 0...1.
        x: Centre, px of a 64 px picture from the left.
        y: Centre, px of a 64 px picture from the top.
    """

    concept: str
    score: float
    x: float
    y: float


@dataclass(frozen=True)
class Findings:
    """What the recogniser says of one picture: things by falling score, and the background's colour name."""

    found: tuple[Found, ...]
    background: str

    def of(self, concept: str) -> Found | None:
        """The finding of this thing, or None."""
        return next((one for one in self.found if one.concept == concept), None)


class Block(nn.Module):
    """Two 3 x 3 convolutions and a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape (B, C, h, w)."""
        return F.relu(features + self.layers(features))


def _convolution(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class Recogniser(nn.Module):
    """A grid detector: every cell names the thing whose middle it lies in, or nothing.

    Args:
        concepts: Names of the things, in the order of the classes after "nothing".
        backgrounds: Names of the background colours, in the order of the classes.
    """

    features_width = 128

    def __init__(self, concepts: tuple[str, ...], backgrounds: tuple[str, ...]) -> None:
        super().__init__()
        self.concepts = concepts
        self.backgrounds = backgrounds
        # Starting from 4 x 4 patches is a third cheaper than two halving convolutions and sees as well.
        patches = (nn.PixelUnshuffle(4), _convolution(48, 64, 1), Block(64))
        self.body = nn.Sequential(*patches, _convolution(64, 128, 2), Block(128), Block(128), Block(128))
        self.cells = nn.Conv2d(128, 1 + len(self.concepts), 1)
        self.background = nn.Linear(128, len(self.backgrounds))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Look at pictures.

        Args:
            pixels: (B, 3, 64, 64), -1...1.

        Returns:
            Logits of the cells (B, 1 + concepts, 8, 8), class 0 meaning nothing, and of the background
            (B, backgrounds).
        """
        features = self.body(pixels)
        return self.cells(features), self.background(features.mean(dim=(2, 3)))

    def features(self, pixels: Tensor) -> Tensor:
        """The last layer before the answers, averaged over the picture: (B, 3, 64, 64) → (B, 128)."""
        averaged: Tensor = self.body(pixels).mean(dim=(2, 3))
        return averaged

    @torch.inference_mode()
    def recognise(self, pictures: np.ndarray, batch_size: int = 256) -> list[Findings]:
        """Say what pictures show.

        Args:
            pictures: (B, height, width, 3), 0...255.
            batch_size: How many to look at together; does not change the answer.

        Returns:
            One `Findings` a picture.
        """
        self.eval()
        findings: list[Findings] = []
        for start in range(0, len(pictures), batch_size):
            pixels = torch.from_numpy(np.array(pictures[start : start + batch_size]))
            pixels = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
            if pixels.shape[-2:] != (PICTURE_PX, PICTURE_PX):
                pixels = F.interpolate(
                    pixels, (PICTURE_PX, PICTURE_PX), mode="bilinear", antialias=True, align_corners=False
                )
            cells, background = self(pixels)
            names = [self.backgrounds[int(k)] for k in background.argmax(dim=1)]
            findings += [
                Findings(self._read_cells(grid), name)
                for grid, name in zip(cells.softmax(dim=1), names, strict=True)
            ]
        return findings

    def _read_cells(self, probabilities: Tensor) -> tuple[Found, ...]:
        """Turn (1 + concepts, 8, 8) probabilities into findings; the centre is the cells' weighted mean."""
        scores = probabilities.flatten(1).max(dim=1).values
        middles = (torch.arange(GRID) + 0.5) * (PICTURE_PX / GRID)
        found = []
        for index in torch.nonzero(scores >= FOUND).flatten().tolist():
            if index == NOTHING:
                continue
            weight = probabilities[index] / probabilities[index].sum()
            x = float((weight.sum(dim=0) * middles).sum())
            y = float((weight.sum(dim=1) * middles).sum())
            found.append(Found(self.concepts[index - 1], float(scores[index]), x, y))
        return tuple(sorted(found, key=lambda one: -one.score))


def save_recogniser(model: Recogniser, path: Path = WEIGHTS_FILE) -> None:
    """Write the weights, convolutions as fp16 (BatchNorm's statistics stay fp32: their range is wide)."""
    state = {
        name: (tensor.half() if tensor.ndim > 1 else tensor).detach().contiguous()
        for name, tensor in model.state_dict().items()
    }
    metadata = {"concepts": "|".join(model.concepts)}
    durable.write_with(path, lambda temporary: save_file(state, temporary, metadata=metadata))


def load_recogniser(path: Path = WEIGHTS_FILE, vocabulary: Path = VOCABULARY_FILE) -> Recogniser:
    """Read the recogniser from a file that `save_recogniser` wrote; the model computes in fp32.

    Args:
        path: The weights.
        vocabulary: Which things and colours its classes are, in their order.
    """
    words = read_vocabulary(vocabulary)
    model = Recogniser(tuple(words.concepts), words.backgrounds)
    model.load_state_dict({name: tensor.to(_dtype(tensor)) for name, tensor in load_file(path).items()})
    return model.eval()


def _dtype(tensor: Tensor) -> Any:
    return torch.float32 if tensor.is_floating_point() else tensor.dtype
