"""Families with one CLIP text encoder: Stable Diffusion 1, Stable Diffusion 2, pocket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from t2i.catalog import Defaults
from t2i.conditioning import Conditioning, join
from t2i.families.control import Control, predict_with_control
from t2i.families.parts import Denoiser, Parts
from t2i.families.prompts import Explanation, explain_prompt, prompt_chunks, prompt_pieces
from t2i.guidance import guidance_by_row


class ClipFamily:
    """The last hidden state of one CLIP encoder goes to every cross-attention of the UNet.

    Source: Rombach et al. 2022, arXiv:2112.10752, section 3.3.
    """

    name: ClassVar[str]
    defaults: ClassVar[Defaults] = Defaults(30, 7.5, None, 512, 512)

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.control: Control | None = None  # what steers the pictures besides the prompt

    def count_chunks(self, prompt: str) -> int:
        """Chunks the prompt needs; prompts of one batch must need the same number."""
        return max(len(prompt_pieces(tokenizer, prompt)) for tokenizer in self.parts.tokenizers)

    def explain(self, prompt: str) -> Explanation:
        """Tokens, chunks, and words that the model has never seen, if it keeps a list of those it has."""
        return explain_prompt(self.parts.tokenizers[0], prompt, self.parts.known_words)

    def encode_prompts(self, prompts: Sequence[str], chunks: int | None = None) -> Conditioning:
        """Prompts → what the UNet is told.

        Every prompt goes through the encoder by itself, so that its numbers do not depend on the others,
        and equal prompts go through once.

        Args:
            prompts: B texts, all needing the same number of chunks.
            chunks: Number of chunks, None = what the prompts need.

        Returns:
            Conditioning with prompt_embeds (B, chunks x chunk length, D), in the UNet's dtype, on its device.

        Raises:
            ValueError: The prompts need different numbers of chunks, or more than `chunks`.
        """
        counts = {prompt: self.count_chunks(prompt) for prompt in prompts}
        if chunks is None and len(set(counts.values())) > 1:
            raise ValueError(f"prompts of {sorted(set(counts.values()))} chunks cannot share a batch")
        wanted = chunks if chunks is not None else next(iter(counts.values()))
        unique = list(counts)
        encoded = join([self._encode(prompt, wanted) for prompt in unique])
        rows = encoded.select([unique.index(prompt) for prompt in prompts])
        return rows.to(self.parts.unet.device, self.parts.unet.dtype)

    def encode_negative_prompts(self, prompts: Sequence[str], chunks: int | None = None) -> Conditioning:
        """The side that guidance moves away from; for most families the same as `encode_prompts`."""
        return self.encode_prompts(prompts, chunks)

    def denoiser(
        self,
        cond: Conditioning,
        uncond: Conditioning | None,
        guidance_scale: float | Sequence[float],
        width: int,
        height: int,
    ) -> Denoiser:
        """The UNet with guidance, as a function of latents and timestep.

        Args:
            cond: What to draw, batch B.
            uncond: What to move away from, batch B; None or scale 1 = no guidance.
            guidance_scale: w of `classifier_free_guidance`, >= 1; or one above 1 for each of the B.
            width: Picture width in pixels (SDXL is told it).
            height: Picture height in pixels.

        Returns:
            (scaled latents (B, C, h, w), timestep) → model output (B, C, h, w). Both sides go through
            the UNet in one call, uncond first, when they are equally long, else in two. Where there is a
            `control`, it steers both.

        Raises:
            UsageError: The control picture has another shape.
        """
        followed = self._control_picture(width, height)
        scales = [guidance_scale] if isinstance(guidance_scale, (int, float)) else guidance_scale
        if uncond is None or set(scales) == {1}:
            arguments = self.unet_arguments(cond, width, height)
            return lambda latents, timestep: self._predict(latents, timestep, arguments, followed)
        if uncond.prompt_embeds.shape == cond.prompt_embeds.shape:
            both = self.unet_arguments(join([uncond, cond]), width, height)

            def together(latents: Tensor, timestep: Tensor) -> Tensor:
                output = self._predict(torch.cat([latents, latents]), timestep, both, followed)
                output_uncond, output_cond = output.chunk(2)
                return guidance_by_row(output_cond, output_uncond, scales)

            return together
        arguments_cond = self.unet_arguments(cond, width, height)
        arguments_uncond = self.unet_arguments(uncond, width, height)

        def apart(latents: Tensor, timestep: Tensor) -> Tensor:
            output_cond = self._predict(latents, timestep, arguments_cond, followed)
            output_uncond = self._predict(latents, timestep, arguments_uncond, followed)
            return guidance_by_row(output_cond, output_uncond, scales)

        return apart

    def encode_tokens(self, tokens: Sequence[Tensor]) -> Conditioning:
        """Token ids → what the UNet is told; gradients flow where the caller lets them.

        Args:
            tokens: One tensor an encoder, each (B, chunks, places of a chunk), int64, marks and padding too.

        Returns:
            Conditioning with prompt_embeds (B, chunks x places, D), in the encoder's dtype, on its device.
        """
        encoder = self.parts.text_encoders[0]
        states = [encoder(ids.to(encoder.device))[0] for ids in tokens[0].unbind(1)]
        return Conditioning(torch.cat(states, dim=1))

    def _encode(self, prompt: str, chunks: int) -> Conditioning:
        """One prompt through the encoders, chunk by chunk, joined along L: (1, chunks x length, D)."""
        tokens = [
            torch.tensor([prompt_chunks(tokenizer, prompt, chunks)]) for tokenizer in self.parts.tokenizers
        ]
        with torch.no_grad():
            return self.encode_tokens(tokens)

    def unet_arguments(self, conditioning: Conditioning, width: int, height: int) -> dict[str, Any]:
        """Keyword arguments of the UNet besides latents and timestep, for pictures of this size in pixels."""
        return {"encoder_hidden_states": conditioning.prompt_embeds, **conditioning.unet_kwargs}

    def _predict(
        self, latents: Tensor, timestep: Tensor, arguments: dict[str, Any], followed: Tensor | None = None
    ) -> Tensor:
        """The UNet's output, steered where there is a picture that is `followed`."""
        unet, control = self.parts.unet, self.control
        with torch.no_grad():
            if control is None or followed is None:
                return unet(latents, timestep, return_dict=False, **arguments)[0]
            return predict_with_control(
                unet, control.network, followed, control.scale, latents, timestep, arguments
            )

    def _control_picture(self, width: int, height: int) -> Tensor | None:
        if self.control is None:
            return None
        return self.control.picture(width, height).to(self.parts.unet.device, self.parts.unet.dtype)


class Sd1Family(ClipFamily):
    """Stable Diffusion 1: CLIP ViT-L/14, 512 pixels, predicts the noise."""

    name = "sd1"


class Sd2Family(ClipFamily):
    """Stable Diffusion 2: OpenCLIP-H without its last layer. The 768-pixel models predict v."""

    name = "sd2"


class PocketFamily(ClipFamily):
    """The model inside t2i: small, with its own tokenizer and the list of words it was trained on."""

    name = "pocket"
    defaults = Defaults(25, 4.0, None, 64, 64)
