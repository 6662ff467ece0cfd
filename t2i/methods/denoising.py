"""What every method that teaches a pretrained base shares: latents, prompts, noise, target, weight, sheets.

Noise is added at a random timestep of the base's own schedule and the network learns to tell what the base
predicts: ε, v, x_0 (Ho et al. 2020, arXiv:2006.11239, algorithm 1) or the velocity of rectified flow (Liu et
al. 2022, arXiv:2209.03003). What learns, and what becomes of it, is for subclasses to say.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from t2i import diffusion
from t2i.conditioning import Conditioning
from t2i.config import TrainConfig
from t2i.dataset import cached_table, default_bucket_step
from t2i.devices import EXACT_FAMILIES, set_attention, trains_in_bf16
from t2i.errors import ModelError
from t2i.families import Denoiser
from t2i.families.prompts import prompt_chunks
from t2i.families.sdxl import SdxlFamily
from t2i.guidance import classifier_free_guidance
from t2i.latents import decode, initial_noise, spatial_factor
from t2i.methods.base import TrainingData
from t2i.methods.compilation import compiled
from t2i.methods.draws import Draws
from t2i.methods.sheet import SHEET_SEED, save_sheet, sheet_captions
from t2i.methods.tables import cached_latents, cached_prompts
from t2i.sampling import denoise, initial_latents, training_levels
from t2i.schedulers import make_scheduler, prediction_type, set_timesteps

if TYPE_CHECKING:
    from t2i.weights import LoadedModel

SHEET_COLUMNS = 8
LEAST_SHEET = 4
SHORT_SEQUENCE = 1024  # places of latents; a quarter of SD 1.5 in bf16 trains 5 to 10 % faster


class DenoisingMethod(ABC):
    """A UNet, a VAE and text encoders of which some learn. Subclasses say which in `adapt` and `learning`."""

    name: ClassVar[str]
    default_steps: ClassVar[int] = 1000
    default_learning_rate: ClassVar[float] = 1e-4
    pocket_learning_rate: ClassVar[float] = 1e-3
    pocket_steps: ClassVar[int | None] = None  # where pocket needs another number of steps
    shares_batches: ClassVar[bool] = True
    results: ClassVar[tuple[str, ...]]
    builds_on: ClassVar[tuple[str, ...]] = ()
    goes_on_with: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, config: TrainConfig, data: TrainingData, start: Mapping[str, Any], device: torch.device
    ) -> None:
        self.config, self.data, self.device = config, data, device
        self.base: LoadedModel = start["base"]
        self.base_key: str = start["base_key"]
        self.family, self.unet, self.vae = self.base.family, self.base.unet, self.base.vae
        self.text_encoders: dict[str, Any] = dict(
            zip(("text_encoder", "text_encoder_2"), self.family.parts.text_encoders, strict=False)
        )
        for network in (self.unet, self.vae, *self.text_encoders.values()):
            network.to(device).float().eval().requires_grad_(False)
        small = self.family.name in EXACT_FAMILIES
        shrink = spatial_factor(self.vae)
        # Explicit attention beats the fused kernel on short sequences on a CPU, backward above all.
        short = (config.resolution // shrink) ** 2 <= SHORT_SEQUENCE
        short = short and trains_in_bf16(config.mixed_precision, device)
        set_attention(self.unet, "explicit" if device.type == "cpu" and (small or short) else "sdpa")
        self.unet.to(memory_format=torch.channels_last)
        if config.resolution % shrink:
            raise ModelError(
                f"--resolution {config.resolution}: this VAE shrinks pictures by {shrink}",
                "give a multiple of it",
            )
        step = default_bucket_step(config.resolution) if config.bucket_step is None else config.bucket_step
        if config.buckets and step % shrink:
            raise ModelError(
                f"--bucket-step {step}: this VAE shrinks pictures by {shrink}",
                "give a multiple of it",
            )
        self.schedule: Mapping[str, Any] = self.base.scheduler_config
        self.prediction_type = prediction_type(self.schedule)
        self.alphas_cumprod = training_levels(self.schedule)
        bf16 = trains_in_bf16(config.mixed_precision, device) and not small
        seen = data.seen()
        self.bucket_latents = [cached_latents(self.vae, one, device, bf16) for one in seen]  # (V, C, h, w)
        self.prior_latents = (
            None
            if data.prior is None
            else cached_latents(self.vae, replace(data.prior, crew=data.crew), device, bf16)
        )
        self.adapt()
        if config.gradient_checkpointing:
            self._checkpoint_gradients()
        # Sample sheets and validation have shapes of their own and stay with the module as it is.
        self._unet_in_training = compiled(self.unet) if config.compile else self.unet
        self.captions = self.captions_of(data)
        self._read_captions()
        self.sheet_prompts = self._sheet_prompts()
        with data.crew.leader_first():
            self._time_ids(np.zeros(1, dtype=np.int64), False)  # the sizes of all pictures are read once
            self.base_sheet = self._cached_base_sheet()  # (P, 3, H, W), uint8

    # What a subclass decides.

    @abstractmethod
    def adapt(self) -> None:
        """Put in what learns, and let it learn; everything else is frozen already."""

    @abstractmethod
    def learning(self) -> dict[str, nn.Module]:
        """The modules that have something to learn, under their part names."""

    def captions_of(self, data: TrainingData) -> list[str]:
        """What each picture is called in training."""
        return list(data.captions)

    @property
    def text_learns(self) -> bool:
        """Whether prompts are encoded anew in every step."""
        return any(name in self.learning() for name in self.text_encoders)

    def predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, pictures: np.ndarray | None = None
    ) -> Tensor:
        """The network's output.

        Args:
            noisy: x_t, (B, C, h, w).
            timesteps: (B,) or ().
            conditioning: Batch B.
            pictures: Which pictures of the dataset these are, (B,); a ControlNet wants to know.
        """
        height, width = (side * spatial_factor(self.vae) for side in noisy.shape[-2:])
        arguments = self.family.unet_arguments(conditioning, width, height)
        network = self._unet_in_training if torch.is_grad_enabled() else self.unet
        return network(noisy, timesteps, return_dict=False, **arguments)[0]

    def parts(self) -> dict[str, Any]:
        """Part name → trained part, ready to be saved."""
        return dict(self.learning())

    # What the training loop asks for.

    def trainable(self) -> nn.ModuleDict:
        return nn.ModuleDict(self.learning())

    def frozen(self) -> Mapping[str, Any]:
        told = isinstance(self.family, SdxlFamily) and self.data.pictures is not None
        return {"base": self.base_key} | ({"time ids": "of the pictures"} if told else {})

    def notices(self) -> list[str]:
        places = self.family.parts.tokenizers[0].model_max_length
        cut = sum(self.family.count_chunks(caption) > 1 for caption in self.distinct)
        told = [f"{cut} captions are longer than {places} tokens and were cut"] if cut else []
        if not any(self.captions) and self.config.method != "controlnet":
            told.append("no captions: name what the pictures show with --instance-prompt")
        return told

    def loss(self, rows: np.ndarray, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        latents = self.bucket_latents[self.data.bucket_of(rows)]
        original = torch.from_numpy(latents[self.data.views(rows)]).float()  # (B, C, h, w)
        captions, count = self.kinds[rows], len(rows)
        learns = any(module.training for module in self.learning().values())
        prior = self.prior_latents if learns else None
        sizes = self._time_ids(rows, prior is not None)
        if prior is not None:
            chosen = draws.integers(len(prior), count).numpy()
            original = torch.cat([original, torch.from_numpy(prior[chosen]).float()])
            captions = np.concatenate([captions, np.full(count, self.prior_kind)])
        noise = draws.normal(*original.shape)
        if learns and self.config.noise_offset > 0:
            noise += self.config.noise_offset * draws.normal(*noise.shape[:2], 1, 1)
        timesteps = draws.timesteps(self.config, self.alphas_cumprod, len(original))
        dropped = draws.uniform(len(original)).numpy() < (self.config.caption_dropout if learns else 0.0)
        captions = np.where(dropped, self.nothing, captions)
        added = noise
        if learns and self.config.input_perturbation > 0:
            added = noise + self.config.input_perturbation * draws.normal(*noise.shape)

        alpha_bar = self.alphas_cumprod[timesteps]
        noisy = diffusion.noised(original, added, alpha_bar, self.prediction_type)
        target = diffusion.training_target(original, noise, alpha_bar, self.prediction_type)
        self.before_forward(draws)
        noisy = noisy.to(self.device, memory_format=torch.channels_last)
        conditioning = replace(self.conditioning(captions), time_ids=sizes)
        output = self.predict(noisy, timesteps.to(self.device), conditioning, self.data.pictures_of(rows))
        error = (output.float() - target.to(self.device)).pow(2).mean((1, 2, 3))  # (B,)
        plain = error.detach()
        if self.config.snr_gamma > 0:
            weight = diffusion.min_snr_weight(alpha_bar, self.config.snr_gamma, self.prediction_type)
            error = error * weight.to(error)
        figures = {"mse": plain[:count].mean().item()}
        if prior is None:
            return error.mean(), figures
        figures["prior_mse"] = plain[count:].mean().item()
        return error[:count].mean() + self.config.prior_weight * error[count:].mean(), figures

    def _time_ids(self, rows: np.ndarray, with_prior: bool) -> Tensor | None:
        """What SDXL is told of the sizes of a step's pictures, prior pictures last, (B, 6)."""
        sizes = self.data.time_ids(rows) if isinstance(self.family, SdxlFamily) else None
        if sizes is None or not with_prior:
            return sizes
        side = self.config.resolution  # the base drew them so, and they are squares
        drawn = torch.tensor([[side, side, 0, 0, side, side]]).repeat(len(rows), 1)
        return torch.cat([sizes, drawn])

    def before_forward(self, draws: Draws) -> None:
        """Called in each step after everything else was drawn."""
        return  # most methods draw nothing more

    def sample(self, path: Path, prompts: Sequence[str]) -> dict[str, float]:
        """Above what the base drew, below what it draws now: same prompts, same noise."""
        now = self._draw_sheet()
        before = torch.from_numpy(np.array(self.base_sheet)).float() / 127.5 - 1
        shown = self.shown_above(len(self.sheet_prompts))
        save_sheet(path, [
            row[first : first + SHEET_COLUMNS]
            for first in range(0, len(now), SHEET_COLUMNS)
            for row in (*shown, before, now)
        ])  # fmt: skip
        return {}

    def shown_above(self, count: int) -> list[Tensor]:
        """Further rows of a sample sheet, pixels (count, 3, H, W) each."""
        return []

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Pictures of prompts as the model draws them now.

        Args:
            prompts: B texts, cut where they are longer than one chunk.
            seeds: Of the noise of each, (B,).

        Returns:
            Pixels (B, 3, H, W) on the CPU, −1…1.
        """
        uncond = self.family.encode_negative_prompts([""], 1)
        side = self.config.resolution // spatial_factor(self.vae)
        name = self.base.defaults.scheduler or "ddim"
        drawn = []
        for first in range(0, len(prompts), self.config.batch_size):
            chosen = range(first, min(first + self.config.batch_size, len(prompts)))
            cond = self.family.encode_tokens(self._tokens([prompts[k] for k in chosen]))
            away = uncond.select([0] * len(chosen))
            channels = self.vae.config.latent_channels
            noise, generators = initial_noise([seeds[k] for k in chosen], channels, side, side)
            scheduler = make_scheduler(name, self.schedule)
            set_timesteps(scheduler, self.config.sampling_steps, self.device)
            latents = initial_latents(noise.to(self.device), scheduler)
            pictures = np.array(chosen) % len(self.data.pixels)

            for step in denoise(self._guided(cond, away, pictures), scheduler, latents, generators):
                latents = step.latents
            drawn.append(decode(self.vae, latents).float().clamp(-1, 1).cpu())
        return torch.cat(drawn)

    def _guided(self, cond: Conditioning, away: Conditioning, pictures: np.ndarray) -> Denoiser:
        """The network with guidance, as a function of latents and timestep."""

        def denoiser(noisy: Tensor, timestep: Tensor) -> Tensor:
            given = self.predict(noisy, timestep, cond, pictures)
            if self.config.guidance_scale == 1:
                return given
            without = self.predict(noisy, timestep, away, pictures)
            return classifier_free_guidance(given, without, self.config.guidance_scale)

        return denoiser

    # Prompts.

    def _read_captions(self) -> None:
        """The different captions, the empty one and that of the prior; which picture has which."""
        prior = [] if self.data.prior is None else [self.data.prior.captions[0]]
        self.distinct = list(dict.fromkeys([*self.captions, "", *prior]))
        number = {caption: index for index, caption in enumerate(self.distinct)}
        self.kinds = np.array([number[caption] for caption in self.captions])  # (N,)
        self.nothing, self.prior_kind = number[""], number[prior[0]] if prior else 0
        self.tokens = self._tokens(self.distinct)
        self._tables: list[np.ndarray] = []
        if not self.text_learns:
            with self.data.crew.leader_first():
                self._tables = cached_prompts(self.family, self.tokens, self.data.cache, self.base_key)

    def _tokens(self, prompts: Sequence[str]) -> list[Tensor]:
        """One tensor an encoder, (B, 1, places): the first chunk of each prompt."""
        return [
            torch.tensor([prompt_chunks(tokenizer, prompt)[:1] for prompt in prompts])
            for tokenizer in self.family.parts.tokenizers
        ]

    def conditioning(self, captions: np.ndarray) -> Conditioning:
        """What the UNet is told for some of the different captions, by number, (B,)."""
        if self._tables:
            values = [torch.from_numpy(np.array(table[captions])).float() for table in self._tables]
            encoded = Conditioning(*values).to(self.device)
        else:
            unique, rows = np.unique(captions, return_inverse=True)
            chosen = torch.from_numpy(unique)
            encoded = self.family.encode_tokens([ids[chosen] for ids in self.tokens]).select(rows.tolist())
        empty = torch.from_numpy(captions == self.nothing).to(self.device)
        if not self.family.parts.zeros_for_empty_prompt or not bool(empty.any()):
            return encoded
        pooled = encoded.pooled_prompt_embeds
        return Conditioning(
            encoded.prompt_embeds.masked_fill(empty[:, None, None], 0),
            None if pooled is None else pooled.masked_fill(empty[:, None], 0),
        )

    def _checkpoint_gradients(self) -> None:
        self.unet.enable_gradient_checkpointing()
        self.unet.train()  # it is kept for networks that train; this one has no other use for it
        for name, encoder in self.text_encoders.items():
            if name in self.learning():
                encoder.gradient_checkpointing_enable()

    # The base's own pictures.

    def _sheet_prompts(self) -> list[str]:
        """Prompts of the sample sheets; a few are drawn several times."""
        wanted = 2 * SHEET_COLUMNS if self.family.name in EXACT_FAMILIES else LEAST_SHEET
        prompts = list(self.config.sample_prompts) or sheet_captions(self.captions, wanted)
        return prompts * -(-LEAST_SHEET // len(prompts))

    def _draw_sheet(self) -> Tensor:
        return self.draw(self.sheet_prompts, range(SHEET_SEED, SHEET_SEED + len(self.sheet_prompts)))

    def _cached_base_sheet(self) -> np.ndarray:
        """What the base draws of the sheet's prompts, uint8 (P, 3, H, W), before anything has learned."""
        config = self.config
        told = [
            self.base_key, *self.sheet_prompts, str(config.sampling_steps), str(config.guidance_scale),
            str(config.resolution), self.name, str(config.control_kind), str(config.placeholder_token),
            str(config.initializer_token), str(config.num_vectors),
        ]  # fmt: skip
        name = hashlib.sha256("\0".join(told).encode()).hexdigest()[:16]
        shape = (len(self.sheet_prompts), 3, config.resolution, config.resolution)

        def rows() -> Iterator[np.ndarray]:
            with self._evaluated():
                pixels = self._draw_sheet()
            yield ((pixels + 1) * 127.5).round().to(torch.uint8).numpy()

        return cached_table(self.data.cache / f"base-{name}.npy", shape, np.uint8, rows)

    @contextmanager
    def _evaluated(self) -> Iterator[None]:
        """The modules that learn are in evaluation mode inside this block."""
        modules = list(self.learning().values())
        for module in modules:
            module.eval()
        try:
            yield
        finally:
            for module in modules:
                module.train()
