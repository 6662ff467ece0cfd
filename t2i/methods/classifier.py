"""A classifier of noisy latents, for classifier guidance: ε̂ = ε_θ − √(1−ᾱ_t) s ∇ log p_φ(y | x_t).

Source: Dhariwal & Nichol 2021, arXiv:2105.05233, section 4: the encoder half of a UNet, told the timestep,
trained on the noise levels that it will see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import Downsample2D, ResnetBlock2D
from torch import Tensor, nn

from t2i import diffusion
from t2i.config import TrainConfig
from t2i.devices import EXACT_FAMILIES, trains_in_bf16
from t2i.errors import DatasetError
from t2i.latents import decode, initial_noise
from t2i.methods.base import TrainingData, norm_groups
from t2i.methods.draws import Draws
from t2i.methods.sheet import SHEET_SEED, save_sheet
from t2i.methods.tables import cached_latents
from t2i.sampling import training_levels
from t2i.schedulers import prediction_type

if TYPE_CHECKING:
    from t2i.weights import LoadedModel

SHOWN_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)  # of the training timesteps
SHOWN_PICTURES, MEASURED_PICTURES = 8, 256


class NoisyClassifier(ModelMixin, ConfigMixin):
    """Noisy latents and their timestep → logits of classes.

    Args:
        labels: Names of the K classes, in the order of the logits.
        in_channels: Latent channels C.
        block_out_channels: Widths, one a level; each level but the last halves.
        norm_num_groups: Of every GroupNorm.
    """

    @register_to_config
    def __init__(
        self,
        labels: tuple[str, ...],
        in_channels: int = 4,
        block_out_channels: tuple[int, ...] = (32, 64, 128),
        norm_num_groups: int = 8,
    ) -> None:
        super().__init__()
        first, last = block_out_channels[0], block_out_channels[-1]
        self.time_proj = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, 4 * first)
        self.conv_in = nn.Conv2d(in_channels, first, 3, padding=1)
        blocks: list[nn.Module] = []
        before = first
        for level, width in enumerate(block_out_channels):
            blocks.append(ResnetBlock2D(
                in_channels=before, out_channels=width, temb_channels=4 * first, groups=norm_num_groups
            ))  # fmt: skip
            if level < len(block_out_channels) - 1:
                blocks.append(Downsample2D(width, use_conv=True))
            before = width
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.GroupNorm(norm_num_groups, last)
        self.head = nn.Linear(last, len(labels))

    def forward(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        """Logits (B, K) for x_t (B, C, h, w) at timesteps (B,)."""
        embedding = self.time_embedding(self.time_proj(timesteps).to(latents.dtype))
        hidden = self.conv_in(latents)
        for block in self.blocks:
            hidden = block(hidden, embedding) if isinstance(block, ResnetBlock2D) else block(hidden)
        return self.head(F.silu(self.norm(hidden)).mean((2, 3)))


class TrainClassifier:
    """The classes are the dataset's folders or captions; the noise is the base model's."""

    name: ClassVar[str] = "classifier"
    default_steps: ClassVar[int] = 2000
    default_learning_rate: ClassVar[float] = 3e-4
    pocket_learning_rate: ClassVar[float] = 1e-3
    pocket_steps: ClassVar[int | None] = None
    shares_batches: ClassVar[bool] = True
    results: ClassVar[tuple[str, ...]] = ("parts/classifier",)
    builds_on: ClassVar[tuple[str, ...]] = ()
    goes_on_with: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, config: TrainConfig, data: TrainingData, start: Mapping[str, Any], device: torch.device
    ) -> None:
        base: LoadedModel = start["base"]
        self.config, self.data, self.device, self.base_key = config, data, device, start["base_key"]
        labels = sorted(set(data.labels))
        if len(labels) < 2:
            raise DatasetError(
                f"a classifier needs at least two classes; the dataset's {config.labels} give {len(labels)}",
                "put each class in a folder of its own, or give --labels captions",
            )
        self.vae = base.vae.to(device).float().eval().requires_grad_(False)
        bf16 = trains_in_bf16(config.mixed_precision, device) and base.family.name not in EXACT_FAMILIES
        self.latents = cached_latents(self.vae, data.seen()[0], device, bf16)  # (V, C, h, w), float16
        self.answers = torch.tensor([labels.index(label) for label in data.labels])
        self.prediction_type = prediction_type(base.scheduler_config)
        self.alphas_cumprod = training_levels(base.scheduler_config)
        self.classifier: Any = NoisyClassifier(
            labels=tuple(labels), in_channels=self.latents.shape[1],
            block_out_channels=config.classifier_channels,
            norm_num_groups=norm_groups(config.classifier_channels),
        )  # fmt: skip
        self.classifier.to(device).train()

    def trainable(self) -> nn.ModuleDict:
        return nn.ModuleDict({"classifier": self.classifier})

    def frozen(self) -> Mapping[str, Any]:
        return {"base": self.base_key, "labels": "\0".join(self.data.labels)}

    def notices(self) -> list[str]:
        labels, counts = np.unique(np.array(self.data.labels), return_counts=True)
        shown = ", ".join(f"{label} {count}" for label, count in zip(labels[:8], counts[:8], strict=True))
        return [f"{len(labels)} classes: {shown}{', …' if len(labels) > 8 else ''}"]

    def logits(self, rows: np.ndarray, timesteps: Tensor, noise: Tensor) -> Tensor:
        """What the classifier says of pictures at noise levels, (B, K)."""
        original = torch.from_numpy(self.latents[self.data.views(rows)]).float()
        noisy = diffusion.noised(original, noise, self.alphas_cumprod[timesteps], self.prediction_type)
        return self.classifier(noisy.to(self.device), timesteps.to(self.device)).float()

    def loss(self, rows: np.ndarray, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        noise = draws.normal(len(rows), *self.latents.shape[1:])
        timesteps = draws.integers(len(self.alphas_cumprod), len(rows))
        answers = self.answers[torch.from_numpy(self.data.pictures_of(rows))].to(self.device)
        logits = self.logits(rows, timesteps, noise)
        right = (logits.argmax(1) == answers).float().mean()
        return F.cross_entropy(logits, answers), {"accuracy": right.item()}

    @torch.no_grad()
    def sample(self, path: Path, prompts: Sequence[str]) -> dict[str, float]:
        """Accuracy at some noise levels, and a sheet that shows what the pictures look like there."""
        count = len(self.latents)
        rows = np.linspace(0, count - 1, min(MEASURED_PICTURES, count)).astype(np.int64)
        _, channels, height, width = self.latents.shape
        noise, _ = initial_noise([SHEET_SEED + k for k in range(len(rows))], channels, height, width)
        figures, lines = {}, []
        shown = rows[:SHOWN_PICTURES]
        for share in SHOWN_LEVELS:
            level = int(share * len(self.alphas_cumprod))
            timesteps = torch.full((len(rows),), level)
            found = self.logits(rows, timesteps, noise).argmax(1).cpu()
            figures[f"accuracy_t{level}"] = float(
                (found == self.answers[torch.from_numpy(self.data.pictures_of(rows))]).float().mean()
            )
            original = torch.from_numpy(self.latents[shown]).float()
            alpha_bar = self.alphas_cumprod[timesteps[: len(shown)]]
            mixed = diffusion.noised(original, noise[: len(shown)], alpha_bar, self.prediction_type)
            lines.append(decode(self.vae, mixed))
        save_sheet(path, lines)
        return figures

    def parts(self) -> dict[str, Any]:
        return {"classifier": self.classifier}
