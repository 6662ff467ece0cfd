"""What one run measures: its pictures, what their prompts ask for, and what is computed from them once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from t2i.dataset import decode
from t2i.evaluation.instruments import Instruments, extract
from t2i.evaluation.questions import Question
from t2i.evaluation.recogniser import Findings

if TYPE_CHECKING:
    from t2i.weights import LoadedModel

JUDGED_FAMILIES = ("", "pocket")


@dataclass(frozen=True)
class Picture:
    """One picture file.

    Attributes:
        file: Where it is.
        prompt: What was asked for; empty if nobody says.
        seed: Of its start noise, where it is known.
        family: Of the model that drew it; empty if nobody says.
    """

    file: Path
    prompt: str = ""
    seed: int | None = None
    family: str = ""


@dataclass(frozen=True)
class Speed:
    """How long drawing took, loading and saving left out.

    Attributes:
        seconds: Of the batches that were timed.
        pictures: In those batches.
        peak_memory_bytes: Most memory in use; None where the system does not tell.
        memory_of: Whose memory that is, in words.
        conditions: Device, number format, batch size and steps, in words.
    """

    seconds: float
    pictures: int
    peak_memory_bytes: int | None
    memory_of: str
    conditions: str


@dataclass
class Subject:
    """The pictures of one run.

    Attributes:
        pictures: Readable ones, at least one.
        asked: Prompt → its questions.
        instruments: What to measure with.
        speed: None if nothing was drawn.
        model: The loaded model, None if only pictures are there.
    """

    pictures: Sequence[Picture]
    asked: Mapping[str, tuple[Question, ...]]
    instruments: Instruments
    speed: Speed | None = None
    model: LoadedModel | None = None

    @property
    def files(self) -> list[Path]:
        """The picture files in order."""
        return [picture.file for picture in self.pictures]

    @property
    def rounds(self) -> int:
        """Resamples for intervals."""
        return self.instruments.config.bootstrap

    @cached_property
    def features(self) -> Tensor:
        """Features of the pictures by the chosen extractor, (N, width), float64."""
        return extract(self.instruments.extractor, self.files)

    @cached_property
    def embeddings(self) -> Tensor:
        """CLIP embeddings of the pictures, (N, width), float64, of length 1."""
        clip = self.instruments.clip
        return self.features if self.instruments.extractor is clip else extract(clip, self.files)

    @cached_property
    def findings(self) -> list[Findings | None]:
        """What the recogniser says of each picture; None where it may not judge."""
        mine = [row for row, picture in enumerate(self.pictures) if picture.family in JUDGED_FAMILIES]
        found: list[Findings | None] = [None] * len(self.pictures)
        if mine:
            judge = self.instruments.recogniser
            table = np.stack([decode(self.pictures[row].file, judge.picture_px) for row in mine])
            said = judge.recognise(table.transpose(0, 2, 3, 1))
            for row, one in zip(mine, said, strict=True):
                found[row] = one
        return found

    @cached_property
    def clip_scores(self) -> dict[int, float]:
        """Row of each picture with a prompt → its CLIPScore; see `t2i.evaluation.adherence.clip_score`."""
        from t2i.evaluation.adherence import clip_score
        from t2i.weights.clip_model import TEXT_PREFIX

        rows = [row for row, picture in enumerate(self.pictures) if picture.prompt]
        prompts = list(dict.fromkeys(self.pictures[row].prompt for row in rows))
        if not prompts:
            return {}
        texts = self.instruments.clip.embed_texts([TEXT_PREFIX + prompt for prompt in prompts]).cpu().double()
        place = {prompt: number for number, prompt in enumerate(prompts)}
        chosen = texts[[place[self.pictures[row].prompt] for row in rows]]
        return dict(zip(rows, clip_score(self.embeddings[rows], chosen).tolist(), strict=True))

    def groups(self) -> dict[str, list[int]]:
        """Prompt → rows of its pictures; pictures without a prompt are left out."""
        found: dict[str, list[int]] = {}
        for row, picture in enumerate(self.pictures):
            if picture.prompt:
                found.setdefault(picture.prompt, []).append(row)
        return found
