"""The recogniser's network: pictures of 128 px in, `Findings` out.

It finds every single thing with its own colour, the background and the style. Each thing is a peak in a map
of centres, as in CenterNet (Zhou et al. 2019, arXiv:1904.07850), and the cell of the peak names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.evaluation.findings import PICTURE_PX, Findings, Found

NOTHING = 0  # class of no style
TIE = 1e-6  # far below what any score means, far above the rounding of fp32
OWN_COLOURS = 0  # class of a thing that has been given no colour


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


class Answers(NamedTuple):
    """Logits of `Recogniser`.

    Attributes:
        centres: Whether a thing has its centre in this cell, (B, 16, 16).
        concepts: Which thing that is, (B, concepts, 16, 16); means nothing where there is none.
        colours: Which colour it has been given, (B, 1 + colours, 16, 16), class 0 meaning its own.
        background: (B, backgrounds).
        style: (B, 1 + styles), class 0 meaning none.
    """

    centres: Tensor
    concepts: Tensor
    colours: Tensor
    background: Tensor
    style: Tensor


class Recogniser(nn.Module):
    """A detector of single things.

    Args:
        concepts: Names of the things, in the order of the classes.
        backgrounds: Names of the backgrounds, in the order of the classes.
        colours: Names of the colours that things can be given, in the order of the classes after "its own".
        styles: Names of the styles, in the order of the classes after "none".
        widths: Channels at a quarter, an eighth and a sixteenth of the picture's resolution.

    Attributes:
        picture_px: Pictures of other sizes are resized to this first.
        found_from: Probability from which a thing counts as found.
        cells: Of the map of centres, along a side.
        own_widths: `widths` of the recogniser that ships.
        features_width: Numbers that `features` gives.
    """

    picture_px, found_from = 128, 0.35
    cells = 16  # along a side, 8 px each: things of a kind have their centres at least 16 px apart
    own_widths = (64, 128, 160)  # 1.9 M numbers: under 4 MB in fp16

    def __init__(
        self,
        concepts: Sequence[str],
        backgrounds: Sequence[str],
        colours: Sequence[str],
        styles: Sequence[str],
        widths: tuple[int, int, int] = own_widths,
    ) -> None:
        super().__init__()
        self.concepts, self.backgrounds = tuple(concepts), tuple(backgrounds)
        self.colours, self.styles = tuple(colours), tuple(styles)
        self.widths, self.features_width = widths, widths[1]
        fine, middle, coarse = widths
        self.entry = nn.Sequential(
            nn.PixelUnshuffle(4), _convolution(48, fine, 1), _convolution(fine, middle, 2), Block(middle)
        )
        # The large things need to be seen as a whole, at little cost.
        self.overview = nn.Sequential(
            _convolution(middle, coarse, 2), Block(coarse), Block(coarse), nn.Conv2d(coarse, middle, 1)
        )
        self.exit = Block(middle)
        self.centres = nn.Conv2d(middle, 1, 1)
        nn.init.constant_(self.centres.bias, -4.0)  # one cell in a hundred has one
        self.concept = nn.Conv2d(middle, len(self.concepts), 1)
        self.colour = nn.Conv2d(middle, 1 + len(self.colours), 1)
        self.background = nn.Linear(middle, len(self.backgrounds))
        self.style = nn.Linear(middle, 1 + len(self.styles))

    def _body(self, pixels: Tensor) -> Tensor:
        fine = self.entry(pixels)
        overview = F.interpolate(self.overview(fine), scale_factor=2, mode="nearest")
        seen: Tensor = self.exit(fine + overview)
        return seen

    def forward(self, pixels: Tensor) -> Answers:
        """Look at pictures: (B, 3, 128, 128), -1...1."""
        seen = self._body(pixels)
        whole = seen.mean(dim=(2, 3))
        return Answers(
            self.centres(seen)[:, 0],
            self.concept(seen),
            self.colour(seen),
            self.background(whole),
            self.style(whole),
        )

    def features(self, pixels: Tensor) -> Tensor:
        """(B, 3, 128, 128) → (B, width)."""
        return self._body(pixels).mean(dim=(2, 3))

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
        size = (self.picture_px, self.picture_px)
        findings: list[Findings] = []
        for start in range(0, len(pictures), batch_size):
            pixels = torch.from_numpy(np.array(pictures[start : start + batch_size]))
            pixels = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
            if pixels.shape[-2:] != size:
                pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
            findings += self.read(pixels)
        return findings

    def read(self, pixels: Tensor) -> list[Findings]:
        """Say what pictures of the network's own size show: (B, 3, 128, 128), -1...1."""
        return self.findings(self(pixels))

    def findings(self, answers: Answers) -> list[Findings]:
        """Turn logits into findings: a thing is where its score is above that of the cells around it."""
        centres = answers.centres.sigmoid()
        scores = centres[:, None] * answers.concepts.softmax(dim=1)
        # Of equal neighbours, as at 1.0 in fp32, one is enough.
        order = torch.arange(self.cells**2, device=scores.device).reshape(self.cells, self.cells)
        scores = scores - TIE * order
        # Peaks are sought concept by concept: a crown may be in the cell beside its wearer's.
        peaks = (scores == F.max_pool2d(scores, 3, stride=1, padding=1)) & (scores >= self.found_from)
        colours = answers.colours.argmax(dim=1)
        found: list[list[Found]] = [[] for _ in range(len(centres))]
        for row, kind, j, i in torch.nonzero(peaks).tolist():
            x, y = self._place(centres[row], j, i)
            colour = int(colours[row, j, i])
            found[row].append(
                Found(
                    self.concepts[kind],
                    float(scores[row, kind, j, i]),
                    x,
                    y,
                    None if colour == OWN_COLOURS else self.colours[colour - 1],
                )
            )
        backgrounds, styles = answers.background.argmax(dim=1), answers.style.argmax(dim=1)
        return [
            Findings(
                tuple(sorted(found[row], key=lambda one: -one.score)),
                self.backgrounds[int(backgrounds[row])],
                None if int(styles[row]) == NOTHING else self.styles[int(styles[row]) - 1],
            )
            for row in range(len(centres))
        ]

    def _place(self, centres: Tensor, j: int, i: int) -> tuple[float, float]:
        """Centre of a peak in px of a 64 px picture: the mean of the 3 x 3 cells by their probabilities."""
        top, left = max(j - 1, 0), max(i - 1, 0)
        around = centres[top : j + 2, left : i + 2]
        weight = around / around.sum()
        rows = torch.arange(top, top + weight.shape[0], device=weight.device) + 0.5
        columns = torch.arange(left, left + weight.shape[1], device=weight.device) + 0.5
        cell = PICTURE_PX / self.cells
        return float((weight.sum(dim=0) * columns).sum() * cell), float(
            (weight.sum(dim=1) * rows).sum() * cell
        )
