"""What the training loop needs to know of a method: what learns, the loss, and what comes out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from t2i.config import TrainConfig
from t2i.dataset import Crew, Pictures, batch_rows
from t2i.methods.draws import Draws


@dataclass(frozen=True)
class TrainingData:
    """The dataset of a run.

    Attributes:
        pixels: uint8 pictures, (N, 3, H, W), mapped from disk.
        captions: N captions, empty where nothing is said.
        cache: Folder for anything computed once, such as latents.
        key: Changes with any picture; part of the name of everything cached.
        held_out: Rows that are never trained on → a seed that goes with the bytes of the picture.
        names: N file names, for reports.
        prior: The base model's own pictures of a class, all with one caption, for prior preservation.
        conditioning: Conditioning pictures of a ControlNet, uint8 like `pixels`.
        conditioning_key: Changes with any of them, where they are not made of the pictures.
        labels: N classes, for a classifier.
        pictures: The same pictures as steps see them; None where that is one by one, as they are. Then the
            captions are one per row of these.
        crew: The processes that compute together what is kept in `cache`.
    """

    pixels: np.ndarray
    captions: Sequence[str]
    cache: Path
    key: str
    held_out: Mapping[int, int] = field(default_factory=dict)
    names: Sequence[str] = ()
    prior: TrainingData | None = None
    conditioning: np.ndarray | None = None
    conditioning_key: str = ""
    labels: Sequence[str] = ()
    pictures: Pictures | None = None
    crew: Crew = field(default_factory=Crew)

    def training_rows(self) -> np.ndarray:
        """The pictures that are trained on, (at most N,), rising."""
        return np.array([row for row in range(len(self.pixels)) if row not in self.held_out])

    def pass_length(self) -> int:
        """Pictures of one pass, each as often as it is repeated."""
        return len(self.training_rows()) if self.pictures is None else self.pictures.pass_length

    def rows(self, step: int, batch_size: int, seed: int) -> np.ndarray:
        """What a step (from 0) sees, (batch_size,): pictures or, with `pictures`, their rows."""
        if self.pictures is not None:
            return self.pictures.rows(step, batch_size, seed)
        training = self.training_rows()
        return training[batch_rows(len(training), batch_size, step, seed)]

    def seen(self) -> list[TrainingData]:
        """For each bucket the data with the pixels and the key of what is seen in it, mirror images too."""
        if self.pictures is None:
            return [self]
        tables = zip(self.pictures.tables, self.pictures.keys, strict=True)
        return [replace(self, pixels=pixels, key=key) for pixels, key in tables]

    def bucket_of(self, rows: np.ndarray) -> int:
        """The one of `seen` that these rows, all of one size, are in."""
        return 0 if self.pictures is None else self.pictures.bucket_of(rows)

    def views(self, rows: np.ndarray) -> np.ndarray:
        """Where in its pixels they are, (B,)."""
        return rows if self.pictures is None else self.pictures.views(rows)

    def pictures_of(self, rows: np.ndarray) -> np.ndarray:
        """Which of the N pictures they show, (B,)."""
        return rows if self.pictures is None else self.pictures.pictures_of(rows)

    def time_ids(self, rows: np.ndarray) -> Tensor | None:
        """Sizes and crops of what they show, int64 (B, 6), as SDXL is told them; None: nothing is known."""
        return None if self.pictures is None else torch.from_numpy(self.pictures.time_ids(rows))


class Method(Protocol):
    """One way to train. An instance lives as long as one stage of one run."""

    name: ClassVar[str]
    default_steps: ClassVar[int]
    default_learning_rate: ClassVar[float]
    pocket_learning_rate: ClassVar[float]  # for small base models; methods without a base have no use for it
    pocket_steps: ClassVar[int | None]  # likewise; None = the default
    shares_batches: ClassVar[bool]  # the gradient of a batch is the mean of the gradients of its parts
    results: ClassVar[tuple[str, ...]]  # what the stage writes in the run folder when it ends
    builds_on: ClassVar[tuple[str, ...]]  # parts that must be there, trained
    goes_on_with: ClassVar[tuple[str, ...]]  # parts of a start model that it trains on instead of new ones

    def __init__(
        self, config: TrainConfig, data: TrainingData, start: Mapping[str, Any], device: torch.device
    ) -> None:
        """Build or take over the parts.

        Args:
            config: The run.
            data: What to learn from.
            start: Part name ("vae", "text_encoder", "tokenizer", "unet") → part found in the start model; for
                a method on a base model "base" → LoadedModel, "base_key" → changes with any of its files.
            device: Where the parts go.
        """

    def trainable(self) -> nn.ModuleDict:
        """The modules that learn, under their part names; parameters without a gradient stay."""

    def frozen(self) -> Mapping[str, Any]:
        """What a step depends on and no checkpoint holds: networks that stay as they came, the tokenizer."""

    def notices(self) -> list[str]:
        """What a person should know of the data before the first step."""

    def loss(self, rows: np.ndarray, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        """The scalar to minimise for these examples, and figures for the log.

        In evaluation mode (`Module.eval`) it is the validation loss: no caption is dropped, and what makes
        learning easier, such as pictures of a class or further noise, is left out.

        Args:
            rows: Which examples, (B,).
            draws: The only source of randomness, decided by seed and step.
        """

    def sample(self, path: Path, prompts: Sequence[str]) -> dict[str, float]:
        """Write a picture that shows the present state to `path`; return figures for the log."""

    def parts(self) -> dict[str, Any]:
        """Part name → trained part, ready to be saved."""


def update_digest(digest: hashlib._Hash, state: Mapping[str, Tensor]) -> None:
    """Add the names and values of weights to a digest, whatever their order and device."""
    for name, value in sorted(state.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())


def norm_groups(channels: Sequence[int]) -> int:
    """Groups for GroupNorm that divide every width: at most 32, at least 4 channels each where possible."""
    common = math.gcd(*channels)
    return max(
        groups for groups in range(1, 33) if common % groups == 0 and (groups == 1 or common // groups >= 4)
    )
