"""What a family is made of, and what it offers to the flows above it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from t2i.catalog import Defaults
from t2i.conditioning import Conditioning
from t2i.families.control import Control
from t2i.families.prompts import Explanation

Denoiser = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Parts:
    """The networks and tokenizers of one model.

    Attributes:
        unet: A UNet2DConditionModel.
        text_encoders: One CLIPTextModel; SDXL has a CLIPTextModelWithProjection after it.
        tokenizers: One CLIPTokenizer an encoder.
        known_words: Words seen in training; empty if the model keeps no list.
        zeros_for_empty_prompt: An empty negative prompt is all zeros instead of an encoded empty text (SDXL).
    """

    unet: Any
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    known_words: tuple[str, ...] = ()
    zeros_for_empty_prompt: bool = False


class Family(Protocol):
    """One architecture: how prompts are encoded and how its UNet is called."""

    name: ClassVar[str]
    defaults: ClassVar[Defaults]
    parts: Parts
    control: Control | None

    def count_chunks(self, prompt: str) -> int: ...

    def explain(self, prompt: str) -> Explanation: ...

    def encode_prompts(self, prompts: Sequence[str], chunks: int | None = None) -> Conditioning: ...

    def encode_negative_prompts(self, prompts: Sequence[str], chunks: int | None = None) -> Conditioning: ...

    def encode_tokens(self, tokens: Sequence[Tensor]) -> Conditioning: ...

    def unet_arguments(self, conditioning: Conditioning, width: int, height: int) -> dict[str, Any]: ...

    def denoiser(
        self,
        cond: Conditioning,
        uncond: Conditioning | None,
        guidance_scale: float | Sequence[float],
        width: int,
        height: int,
    ) -> Denoiser: ...
