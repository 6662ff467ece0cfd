"""The denoising UNet on latents, conditioned on text (Rombach et al. 2022, arXiv:2112.10752).

Noise is added at a random timestep and the network learns to tell it (Ho et al. 2020, algorithm 1), or the
way from data to noise (Liu et al. 2022, arXiv:2209.03003, algorithm 1), with captions dropped now and then
so that classifier-free guidance works (Ho & Salimans 2022, arXiv:2207.12598).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from t2i import diffusion
from t2i.config import TrainConfig
from t2i.config.train_methods import FLOW
from t2i.devices import trains_in_bf16
from t2i.errors import ModelError
from t2i.guidance import classifier_free_guidance
from t2i.methods.base import TrainingData, norm_groups
from t2i.methods.clip import cut_captions, tokenize, words_of
from t2i.methods.compilation import compiled
from t2i.methods.draws import Draws
from t2i.methods.latent_weighting import channel_weights
from t2i.methods.sheet import SHEET_SEED, save_sheet, sheet_captions
from t2i.methods.tables import cached_latents
from t2i.sampling import denoise, initial_latents
from t2i.schedulers import make_scheduler, set_timesteps


class TrainUNet:
    """Stage 3 of training from scratch: frozen VAE, text encoder frozen or tuned along."""

    name: ClassVar[str] = "unet"
    default_steps: ClassVar[int] = 20_000
    default_learning_rate: ClassVar[float] = 1e-3
    pocket_learning_rate: ClassVar[float] = 1e-3
    pocket_steps: ClassVar[int | None] = None
    shares_batches: ClassVar[bool] = True
    results: ClassVar[tuple[str, ...]] = ("model",)
    builds_on: ClassVar[tuple[str, ...]] = ("vae", "text_encoder", "tokenizer")
    goes_on_with: ClassVar[tuple[str, ...]] = ("unet",)

    def __init__(
        self, config: TrainConfig, data: TrainingData, start: Mapping[str, Any], device: torch.device
    ) -> None:
        for part in self.builds_on:
            if part not in start:
                raise ModelError(
                    f"--method unet needs a trained {part}, and the start model has none",
                    "train it first (--method vae, --method clip) or use --method scratch",
                )
        self.config, self.data, self.device = config, data, device
        self.vae: AutoencoderKL = start["vae"].to(device).eval().requires_grad_(False)
        self.text_encoder: CLIPTextModel = start["text_encoder"].to(device)
        self.text_encoder.train(config.train_text_encoder).requires_grad_(config.train_text_encoder)
        self.tokenizer: CLIPTokenizer = start["tokenizer"]
        self.words = sorted({*start.get("words", ()), *words_of(data.captions)})
        shrink = 2 ** (len(self.vae.config.block_out_channels) - 1)
        if config.resolution % shrink:
            raise ModelError(
                f"--resolution {config.resolution}: this VAE shrinks pictures by {shrink}",
                "give a multiple of it",
            )
        latents_side = config.resolution // shrink
        self.unet: UNet2DConditionModel = start.get("unet") or build_unet(
            config, self.vae.config.latent_channels, latents_side, self.text_encoder.config.hidden_size
        )
        # Explicit attention beats the fused kernel on short sequences on a CPU, backward above all.
        self.unet.set_attn_processor(AttnProcessor())
        if device.type == "cpu" and config.train_text_encoder:
            self.text_encoder.set_attn_implementation("eager")
        self.unet.to(device, memory_format=torch.channels_last).train().requires_grad_(True)
        # Sample sheets have shapes of their own and stay with the module as it is.
        self._unet_in_training = compiled(self.unet) if config.compile else self.unet
        self.tokens = tokenize(self.tokenizer, data.captions)  # (N, L)
        self.no_caption = tokenize(self.tokenizer, [""])  # (1, L)
        bf16 = trains_in_bf16(config.mixed_precision, device)
        self.latents = cached_latents(self.vae, data.seen()[0], device, bf16)  # (N, C, h, w), float16
        self.counts: Tensor | None = None  # (C, 1, 1)
        if config.latent_weighting == "decoder":
            self.counts = channel_weights(self.vae, self.latents)[:, None, None].to(device)
        if config.prediction_type == FLOW:
            self.alphas_cumprod = diffusion.flow_alphas_cumprod()
        else:
            betas = diffusion.scaled_linear_betas()
            self.alphas_cumprod = diffusion.alphas_cumprod(betas, config.zero_terminal_snr)

    def trainable(self) -> nn.ModuleDict:
        learning = {"unet": self.unet}
        if self.config.train_text_encoder:
            learning["text_encoder"] = self.text_encoder
        return nn.ModuleDict(learning)

    def frozen(self) -> Mapping[str, Any]:
        staying = {"vae": self.vae, "tokenizer": self.tokenizer}
        return staying if self.config.train_text_encoder else staying | {"text_encoder": self.text_encoder}

    def notices(self) -> list[str]:
        told = cut_captions(self.tokenizer, self.data.captions, self.tokens)
        if self.counts is not None:
            weights = ", ".join(f"{weight:g}" for weight in self.counts.flatten().tolist())
            told.append(f"latent channels count in the loss by {weights}")
        return told

    def loss(self, rows: np.ndarray, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        original = torch.from_numpy(self.latents[self.data.views(rows)]).float()  # (B, C, h, w)
        noise = draws.normal(*original.shape)
        timesteps = draws.timesteps(self.config, self.alphas_cumprod, len(rows))
        dropout = self.config.caption_dropout if self.unet.training else 0.0
        dropped = draws.uniform(len(rows)) < dropout
        tokens = torch.where(dropped[:, None], self.no_caption, self.tokens[torch.from_numpy(rows)])

        alpha_bar = self.alphas_cumprod[timesteps]
        noisy = diffusion.noised(original, noise, alpha_bar, self.config.prediction_type)
        target = diffusion.training_target(original, noise, alpha_bar, self.config.prediction_type)
        with torch.set_grad_enabled(self.config.train_text_encoder):
            prompt_embeds = self.text_encoder(tokens.to(self.device)).last_hidden_state
        noisy = noisy.to(self.device, memory_format=torch.channels_last)
        output = self._unet_in_training(noisy, timesteps.to(self.device), prompt_embeds).sample.float()
        squares = (output - target.to(self.device)).pow(2)
        plain = squares.detach().mean().item()
        error = (squares if self.counts is None else squares * self.counts).mean((1, 2, 3))  # (B,)
        if self.config.snr_gamma > 0:
            weight = diffusion.min_snr_weight(alpha_bar, self.config.snr_gamma, self.config.prediction_type)
            error = error * weight.to(error)
        return error.mean(), {"mse": plain}

    def sample(self, path: Path, prompts: Sequence[str]) -> dict[str, float]:
        prompts = list(prompts) or sheet_captions(self.data.captions)
        pixels = self.draw(prompts, [SHEET_SEED + k for k in range(len(prompts))])
        save_sheet(path, list(pixels.split(8)))
        return {}

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Pictures of B prompts as the model draws them now, from noise of B seeds; pixels (B, 3, H, W)."""
        tokens = torch.cat([tokenize(self.tokenizer, prompts), self.no_caption.repeat(len(prompts), 1)])
        cond, uncond = self.text_encoder(tokens.to(self.device)).last_hidden_state.chunk(2)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = self.latents.shape[1:]
        noise = torch.cat([torch.randn(1, *shape, generator=generator) for generator in generators])
        scheduler = make_scheduler(None, scheduler_config(self.config))
        set_timesteps(scheduler, self.config.sampling_steps)
        latents = initial_latents(noise.to(self.device), scheduler)

        def denoiser(noisy: Tensor, timestep: Tensor) -> Tensor:
            both = self.unet(torch.cat([noisy, noisy]), timestep, torch.cat([uncond, cond])).sample.float()
            without, given = both.chunk(2)
            return classifier_free_guidance(given, without, self.config.guidance_scale)

        for step in denoise(denoiser, scheduler, latents, generators):
            latents = step.latents
        return self.vae.decode(latents.float() / self.vae.config.scaling_factor).sample

    def parts(self) -> dict[str, Any]:
        self.unet.set_default_attn_processor()
        return {
            "unet": self.unet,
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
            "scheduler_config": scheduler_config(self.config),
            "words": self.words,
        }


def build_unet(config: TrainConfig, channels: int, side: int, text_width: int) -> UNet2DConditionModel:
    """A UNet with cross-attention on all but the outermost level.

    Args:
        config: Widths, layers and heads.
        channels: Latent channels.
        side: Latent height and width.
        text_width: Width of the prompt embeddings.
    """
    inner = len(config.unet_channels) - 1
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=config.unet_channels,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * inner),
        up_block_types=(*["CrossAttnUpBlock2D"] * inner, "UpBlock2D"),
        layers_per_block=config.unet_layers,
        cross_attention_dim=text_width,
        attention_head_dim=config.unet_heads,  # Diffusers' name; it is the number of heads
        norm_num_groups=norm_groups(config.unet_channels),
    )


def scheduler_config(config: TrainConfig) -> dict[str, Any]:
    """The noise process that the UNet was trained on, as Diffusers writes it.

    Of the classes for rectified flow it is one that `StableDiffusionPipeline` can run: those of flow matching
    lack what it asks of a scheduler.
    """
    if config.prediction_type == FLOW:
        return {
            "_class_name": "DPMSolverMultistepScheduler",
            "num_train_timesteps": 1000,
            "prediction_type": config.prediction_type,
            "use_flow_sigmas": True,
            "flow_shift": 1.0,
            "solver_order": 2,
            "algorithm_type": "dpmsolver++",
            "final_sigmas_type": "zero",
            "steps_offset": 1,  # no effect, but Diffusers' pipeline complains about 0
        }
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": config.prediction_type,
        "rescale_betas_zero_snr": config.zero_terminal_snr,
        "timestep_spacing": "trailing",
        "clip_sample": False,
        "set_alpha_to_one": True,
        "steps_offset": 1,  # no effect with "trailing", but Diffusers' pipeline complains about 0
    }
