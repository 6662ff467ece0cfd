"""What pictures are measured with: the recogniser, CLIP, and the features that distances are taken between.

Everything is loaded on first use and once. A feature extractor is one row in `EXTRACTORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from t2i.config.evaluate import EvaluateConfig
from t2i.dataset import ImageFolder, decode
from t2i.devices import pick_device
from t2i.errors import ModelError
from t2i.evaluation.figures import NotMeasured
from t2i.evaluation.recogniser import PICTURE_PX, Recogniser, load_recogniser
from t2i.recipes import base_name
from t2i.weights.clip_model import Clip

BATCH = 64


class Extractor(Protocol):
    """Pictures → features. `t2i.evaluation.distribution` knows nothing else about a network.

    Attributes:
        side: Pictures go in as squares of this many pixels.
        width: Numbers of one picture.
        described: For reports; figures are comparable only where this is the same.
    """

    side: int
    width: int
    described: str

    def __call__(self, pictures: Tensor) -> Tensor:
        """uint8 (B, 3, side, side) → (B, width)."""


class RecogniserFeatures:
    """The recogniser's last layer before its answers, averaged over the picture."""

    def __init__(self, recogniser: Recogniser) -> None:
        self.recogniser, self.side = recogniser, recogniser.picture_px
        self.width = recogniser.features_width
        self.described = f"features of t2i's recogniser ({self.width} numbers)"

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        return self.recogniser.features(pictures.float() / 127.5 - 1)


class Pixels:
    """The pixels themselves, 0...1, at a size at which pictures of all sizes can be compared."""

    side = PICTURE_PX
    width = 3 * PICTURE_PX**2
    described = f"pixels at {PICTURE_PX} x {PICTURE_PX}"

    def __call__(self, pictures: Tensor) -> Tensor:
        return pictures.flatten(1).float() / 255


class Instruments:
    """One evaluation's instruments, each loaded on first use.

    Args:
        config: Which features, which reference.
        clip_folder: From `t2i.weights.clip_model.find_clip`; None if no CLIP was named.
        reference: The real pictures, None if there are none.
        device: Where CLIP computes, as `t2i.devices.pick_device` takes it; the recogniser needs no help.
    """

    def __init__(
        self, config: EvaluateConfig, clip_folder: Path | None, reference: ImageFolder | None, device: str
    ) -> None:
        self.config, self.clip_folder, self.device = config, clip_folder, device
        self.reference = reference
        self._reference_features: dict[str, Tensor] = {}

    @cached_property
    def recogniser(self) -> Recogniser:
        """The network that judges pocket."""
        return load_recogniser()

    @cached_property
    def clip(self) -> Clip:
        """The CLIP model that was named.

        Raises:
            NotMeasured: None was named, or it cannot be used.
        """
        if self.clip_folder is None:
            raise NotMeasured("no CLIP model was named (--clip FOLDER or Hub id)")
        try:
            name = base_name(self.config.clip or self.clip_folder.name)
            return Clip(self.clip_folder, name, pick_device(self.device))
        except ModelError as error:
            raise NotMeasured(f"the CLIP model cannot be used: {error.message}") from error

    @cached_property
    def extractor(self) -> Extractor:
        """The features that --features asks for."""
        return EXTRACTORS[self.config.features](self)

    def reference_files(self) -> list[Path]:
        """The reference pictures that are used, spread evenly over the folder.

        Raises:
            NotMeasured: There is no reference.
        """
        if self.reference is None:
            raise NotMeasured("no reference pictures were given (--reference DIR)")
        files = [example.file for example in self.reference.examples]
        count = min(len(files), self.config.reference_limit)
        return [files[row] for row in np.linspace(0, len(files) - 1, count).astype(int)]

    def reference_features(self, extractor: Extractor) -> Tensor:
        """Features of the reference pictures, (N, width), float64, computed once for each extractor."""
        if extractor.described not in self._reference_features:
            self._reference_features[extractor.described] = extract(extractor, self.reference_files())
        return self._reference_features[extractor.described]


EXTRACTORS: dict[str, Callable[[Instruments], Extractor]] = {
    "recogniser": lambda instruments: RecogniserFeatures(instruments.recogniser),
    "clip": lambda instruments: instruments.clip,
}
"""Name for --features → what makes the extractor."""


def extract(extractor: Extractor, files: Sequence[Path]) -> Tensor:
    """Features of picture files: centre square, scaled to the extractor's size by Lanczos.

    Returns:
        (N, width), float64, on the CPU.

    Raises:
        DatasetError: A file cannot be read.
    """
    parts = []
    for start in range(0, len(files), BATCH):
        batch = np.stack([decode(file, extractor.side) for file in files[start : start + BATCH]])
        parts.append(extractor(torch.from_numpy(batch)).cpu().double())
    return torch.cat(parts) if parts else torch.zeros(0, extractor.width, dtype=torch.float64)
