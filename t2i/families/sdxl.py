"""Stable Diffusion XL: two text encoders, a pooled embedding, and six numbers about size and crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from t2i.catalog import Defaults
from t2i.conditioning import Conditioning
from t2i.families.clip import ClipFamily


class SdxlFamily(ClipFamily):
    """Stable Diffusion XL.

    Source: Podell et al. 2023, arXiv:2307.01952, sections 2.1 (encoders) and 2.2 (micro-conditioning).
    """

    name = "sdxl"
    defaults = Defaults(30, 7.5, None, 1024, 1024)

    def encode_negative_prompts(self, prompts: Sequence[str], chunks: int | None = None) -> Conditioning:
        """As `encode_prompts`, but an empty prompt is all zeros if the model was trained that way.

        Its length is then that of `chunks` chunks (None = one).
        """
        if not self.parts.zeros_for_empty_prompt or all(prompts):
            return self.encode_prompts(prompts, chunks)
        encoded = self.encode_prompts(prompts, chunks)
        pooled = encoded.pooled_prompt_embeds
        assert pooled is not None
        keep = torch.tensor([bool(prompt) for prompt in prompts], device=encoded.prompt_embeds.device)
        return Conditioning(
            torch.where(keep[:, None, None], encoded.prompt_embeds, torch.zeros_like(encoded.prompt_embeds)),
            torch.where(keep[:, None], pooled, torch.zeros_like(pooled)),
        )

    def encode_tokens(self, tokens: Sequence[Tensor]) -> Conditioning:
        """Second-to-last hidden states of both encoders; pooled output of the second's first chunk."""
        states = []
        pooled = None
        for ids_of_all, encoder in zip(tokens, self.parts.text_encoders, strict=True):
            pieces = []
            for number, ids in enumerate(ids_of_all.unbind(1)):
                output = encoder(ids.to(encoder.device), output_hidden_states=True)
                pieces.append(output.hidden_states[-2])
                if number == 0 and encoder is self.parts.text_encoders[-1]:
                    pooled = output.text_embeds
            states.append(torch.cat(pieces, dim=1))
        return Conditioning(torch.cat(states, dim=-1), pooled)

    def unet_arguments(self, conditioning: Conditioning, width: int, height: int) -> dict[str, Any]:
        """As the other families', with pooled embedding, sizes and crop."""
        pooled = conditioning.pooled_prompt_embeds
        assert pooled is not None
        # original size, crop corner (top, left), target size; each as (height, width)
        time_ids = conditioning.time_ids
        if time_ids is None:
            time_ids = torch.tensor([[height, width, 0, 0, height, width]]).repeat(len(conditioning), 1)
        return {
            "encoder_hidden_states": conditioning.prompt_embeds,
            "added_cond_kwargs": {"text_embeds": pooled, "time_ids": time_ids.to(pooled)},
            **conditioning.unet_kwargs,
        }
