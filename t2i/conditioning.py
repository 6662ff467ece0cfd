"""What a UNet is told besides latents and time, and how a prompt of any length becomes chunks for CLIP.

Knows tensors and token ids. Knows no tokenizer, no text encoder, no prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Everything the UNet is told about a batch besides latents and time.

    Attributes:
        prompt_embeds: Text encoder output, (B, L, D). L is chunks x places of one chunk.
        pooled_prompt_embeds: One vector a prompt, (B, P); SDXL only.
        unet_kwargs: Further arguments of the UNet call, each (B, ...), such as control residuals.
        time_ids: Sizes and crops of training pictures, (B, 6), as `Pictures.time_ids` gives them; SDXL only.
            None: the pictures are whole and of the size that is drawn.
    """

    prompt_embeds: Tensor
    pooled_prompt_embeds: Tensor | None = None
    unet_kwargs: Mapping[str, Tensor] = field(default_factory=dict)
    time_ids: Tensor | None = None

    def __len__(self) -> int:
        """Batch size B."""
        return self.prompt_embeds.shape[0]

    def select(self, rows: Sequence[int]) -> Conditioning:
        """The conditioning of some rows of the batch; a row may be taken more than once."""
        index = torch.tensor(list(rows), device=self.prompt_embeds.device)
        pooled = self.pooled_prompt_embeds
        return Conditioning(
            self.prompt_embeds[index],
            None if pooled is None else pooled[index],
            {name: value[index] for name, value in self.unet_kwargs.items()},
            None if self.time_ids is None else self.time_ids[index],
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Conditioning:
        """The same values on another device, in another number format."""
        pooled = self.pooled_prompt_embeds
        return Conditioning(
            self.prompt_embeds.to(device, dtype),
            None if pooled is None else pooled.to(device, dtype),
            {name: value.to(device, dtype) for name, value in self.unet_kwargs.items()},
            None if self.time_ids is None else self.time_ids.to(device, dtype),
        )


def join(parts: Sequence[Conditioning]) -> Conditioning:
    """One batch out of several, in order.

    Raises:
        ValueError: The parts differ in L, in D, or in what they carry.
    """
    first = parts[0]
    if any(part.prompt_embeds.shape[1:] != first.prompt_embeds.shape[1:] for part in parts):
        raise ValueError("conditionings of different length cannot share a batch")
    if any(set(part.unet_kwargs) != set(first.unet_kwargs) for part in parts):
        raise ValueError("conditionings that carry different UNet arguments cannot share a batch")
    pooled = [part.pooled_prompt_embeds for part in parts]
    present = [item for item in pooled if item is not None]
    if len(present) not in (0, len(pooled)):
        raise ValueError("conditionings with and without a pooled embedding cannot share a batch")
    sizes = [part.time_ids for part in parts if part.time_ids is not None]
    if len(sizes) not in (0, len(parts)):
        raise ValueError("conditionings with and without sizes cannot share a batch")
    return Conditioning(
        torch.cat([part.prompt_embeds for part in parts]),
        torch.cat(present) if present else None,
        {name: torch.cat([part.unet_kwargs[name] for part in parts]) for name in first.unet_kwargs},
        torch.cat(sizes) if sizes else None,
    )


def split_into_chunks(ids: Sequence[int], word_ends: Sequence[bool], places: int) -> list[list[int]]:
    """Cut a long prompt into pieces that fit a text encoder, between words where possible.

    Args:
        ids: Token ids without begin, end and padding marks.
        word_ends: Whether each token is the last of its word.
        places: Tokens that fit in one piece.

    Returns:
        At least one piece; an empty prompt is one empty piece.
    """
    if places < 1:
        raise ValueError(f"a chunk needs room for at least one token, not {places}")
    pieces: list[list[int]] = []
    start = 0
    while len(ids) - start > places:
        ends = [index for index in range(start, start + places) if word_ends[index]]
        end = ends[-1] + 1 if ends else start + places  # one word longer than a chunk is cut inside
        pieces.append(list(ids[start:end]))
        start = end
    pieces.append(list(ids[start:]))
    return pieces


def frame_chunk(piece: Sequence[int], bos: int, eos: int, pad: int, length: int) -> list[int]:
    """One piece between its begin and end marks, padded to `length` ids as CLIP expects it."""
    if len(piece) > length - 2:
        raise ValueError(f"{len(piece)} tokens do not fit in a chunk of {length} with its two marks")
    return [bos, *piece, eos, *[pad] * (length - 2 - len(piece))]
