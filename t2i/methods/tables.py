"""What is computed of the pictures and captions once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from t2i.conditioning import Conditioning
from t2i.dataset import cached_table, shared_table, to_pixels
from t2i.latents import normalise
from t2i.methods.base import TrainingData, update_digest

if TYPE_CHECKING:
    from t2i.families import Family


@torch.no_grad()
def cached_latents(
    vae: AutoencoderKL, data: TrainingData, device: torch.device, bf16: bool = False
) -> np.ndarray:
    """Posterior means of every picture, times the scaling factor, computed once, by all processes of a run.

    Args:
        vae: Left as it came.
        data: The pictures, and who shares the work.
        device: Where `vae` is.
        bf16: Encode in bfloat16: four times as fast on a CPU with AMX, half a percent of noise in latents.

    Returns:
        float16, (N, C, h, w), mapped from a file whose name depends on the pictures, the arithmetic and the
        weights that encode: a decoder that learned more leaves latents as they were.
    """
    digest = hashlib.sha256(data.key.encode() + (b"bf16" if bf16 else b""))
    encodes = ("encoder.", "quant_conv.")
    update_digest(
        digest, {name: value for name, value in vae.state_dict().items() if name.startswith(encodes)}
    )
    path = data.cache / f"latents-{digest.hexdigest()[:16]}.npy"
    memory_format = torch.channels_last if bf16 else torch.contiguous_format
    vae.encoder.to(memory_format=memory_format)

    def encode(chunk: np.ndarray) -> np.ndarray:
        pixels = to_pixels(data.pixels, chunk).to(device, memory_format=memory_format)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            means = vae.encode(pixels).latent_dist.mode().float()
        return normalise(vae, means).to(torch.float16).cpu().numpy()

    size = 16 if device.type == "cpu" else 128  # what one core's cache holds is encoded half as fast again
    chunks = np.array_split(np.arange(len(data.pixels)), max(1, len(data.pixels) // size))
    shrink = 2 ** (len(vae.config.block_out_channels) - 1)
    height, width = (side // shrink for side in data.pixels.shape[-2:])
    shape = (len(data.pixels), vae.config.latent_channels, height, width)
    latents = shared_table(path, shape, np.float16, chunks, encode, data.crew)
    vae.encoder.to(memory_format=torch.contiguous_format)
    return latents


@torch.no_grad()
def cached_prompts(family: Family, tokens: Sequence[Tensor], cache: Path, key: str) -> list[np.ndarray]:
    """What the UNet is told for each of some prompts, computed once.

    Args:
        family: Its text encoders stay as they came.
        tokens: One tensor an encoder, (U, chunks, places), int64.
        cache: Folder for the tables.
        key: Changes with any weight of the encoders.

    Returns:
        prompt_embeds (U, L, D), and where the family has it pooled_prompt_embeds (U, P); float16, mapped from
        files.
    """
    digest = hashlib.sha256(key.encode() + family.name.encode())
    for ids in tokens:
        digest.update(ids.numpy().tobytes())
    name = digest.hexdigest()[:16]

    def encode(row: int) -> Conditioning:
        return family.encode_tokens([ids[row : row + 1] for ids in tokens])

    first = encode(0)
    count = len(tokens[0])

    def table(kind: str, shape: tuple[int, ...]) -> np.ndarray:
        def rows() -> Iterator[np.ndarray]:
            for row in range(count):
                yield getattr(encode(row), kind).float().to(torch.float16).cpu().numpy()

        return cached_table(cache / f"{kind}-{name}.npy", (count, *shape), np.float16, rows)

    tables = [table("prompt_embeds", tuple(first.prompt_embeds.shape[1:]))]
    if first.pooled_prompt_embeds is not None:
        tables.append(table("pooled_prompt_embeds", tuple(first.pooled_prompt_embeds.shape[1:])))
    return tables
