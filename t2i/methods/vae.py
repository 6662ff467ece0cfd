"""The autoencoder between pixels and latents, trained from nothing.

Loss: L1 of the pixels, L1 of neighbouring differences (keeps edges), and the KL divergence of the
posterior from N(0, I) (Kingma & Welling 2013, arXiv:1312.6114, eq. 10), averaged over latent values; on
request also the two losses of `sharpness`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn

from t2i.config import TrainConfig
from t2i.dataset import to_pixels
from t2i.methods.base import TrainingData, norm_groups
from t2i.methods.compilation import compiled
from t2i.methods.draws import Draws
from t2i.methods.sharpness import PatchDiscriminator, PerceptualDistance, adversarial_losses
from t2i.methods.sheet import save_sheet

FIRST_LOG_VARIANCE = -6.0  # of a new posterior: deviation 0.05


class TrainVAE:
    """Stage 1 of training from scratch: `AutoencoderKL`, standardised latents."""

    name: ClassVar[str] = "vae"
    default_steps: ClassVar[int] = 4000
    default_learning_rate: ClassVar[float] = 1e-3
    pocket_learning_rate: ClassVar[float] = 1e-3
    pocket_steps: ClassVar[int | None] = None
    shares_batches: ClassVar[bool] = True
    results: ClassVar[tuple[str, ...]] = ("parts/vae",)
    builds_on: ClassVar[tuple[str, ...]] = ()
    goes_on_with: ClassVar[tuple[str, ...]] = ("vae",)

    def __init__(
        self, config: TrainConfig, data: TrainingData, start: Mapping[str, Any], device: torch.device
    ) -> None:
        self.config, self.data, self.device = config, data, device
        self._seen = data.seen()[0].pixels
        given: AutoencoderKL | None = start.get("vae")
        self._taken: tuple[int, int] | None = None
        if given is None or config.grow_vae:
            self.vae = build_vae(config)
            if given is not None:
                self._taken = take_over(self.vae, given)
        else:
            self.vae = given
        self.vae.to(device).train().requires_grad_(True)  # a part from another stage may come frozen
        if config.freeze_encoder:
            self.vae.encoder.requires_grad_(False)
            self.vae.quant_conv.requires_grad_(False)
        self.judge = PatchDiscriminator().to(device) if config.adversarial_weight > 0 else None
        clip = start.get("clip model")
        self.perceptual = None if clip is None else PerceptualDistance(clip).to(device)
        # Sample sheets have shapes of their own and stay with the modules as they are.
        self._encoder = compiled(self.vae.encoder) if config.compile else self.vae.encoder
        self._decoder = compiled(self.vae.decoder) if config.compile else self.vae.decoder

    def trainable(self) -> nn.ModuleDict:
        judge = {} if self.judge is None else {"discriminator": self.judge}
        return nn.ModuleDict({"vae": self.vae, **judge})

    def frozen(self) -> Mapping[str, Any]:
        staying = {} if self.perceptual is None else {"perceptual": self.perceptual}
        if self.config.freeze_encoder:
            staying |= {"encoder": self.vae.encoder, "quant_conv": self.vae.quant_conv}
        return staying

    def notices(self) -> list[str]:
        if self._taken is None:
            return []
        return ["{} of {} weights taken over from the start model's VAE".format(*self._taken)]

    def loss(self, rows: np.ndarray, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        pixels = to_pixels(self._seen, self.data.views(rows))  # (B, 3, H, W)
        if self.config.vae_crop is not None:
            pixels = random_crops(pixels, self.config.vae_crop, draws)
        pixels = pixels.to(self.device)
        posterior = DiagonalGaussianDistribution(self.vae.quant_conv(self._encoder(pixels)))
        noise = draws.normal(*posterior.mean.shape).to(self.device)
        latents = posterior.mean + posterior.std * noise
        rebuilt = self._decoder(self.vae.post_quant_conv(latents)).float()
        absolute = (rebuilt - pixels).abs().mean()
        edges = edge_difference(rebuilt, pixels)
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean**2 + logvar.exp() - 1.0 - logvar).mean()
        total = absolute + self.config.edge_weight * edges + self.config.kl_weight * kl
        figures = {"l1": absolute.item(), "edges": edges.item(), "kl": kl.item()}
        if self.perceptual is not None:
            distance = self.perceptual(rebuilt, pixels)
            total = total + self.config.perceptual_weight * distance
            figures["perceptual"] = distance.item()
        if self.judge is not None and self.vae.training:
            fooling, judging = adversarial_losses(self.judge, rebuilt, pixels)
            total = total + self.config.adversarial_weight * fooling + judging
            figures |= {"fooling": fooling.item(), "judging": judging.item()}
        return total, figures

    @torch.no_grad()
    def sample(self, path: Path, prompts: Sequence[str]) -> dict[str, float]:
        rows = np.linspace(0, len(self.data.pixels) - 1, min(16, len(self.data.pixels))).astype(np.int64)
        pixels = to_pixels(self.data.pixels, rows).to(self.device)
        rebuilt = self.vae.decode(self.vae.encode(pixels).latent_dist.mode()).sample
        save_sheet(path, [pixels, rebuilt])
        error = (rebuilt - pixels).div(2).pow(2).mean()
        return {"psnr_db": float(-10 * torch.log10(error))}

    def parts(self) -> dict[str, Any]:
        if not self.config.freeze_encoder:
            standardise_latents(self.vae, self.data.pixels, self.device)
        return {"vae": self.vae}


def build_vae(config: TrainConfig) -> AutoencoderKL:
    """A VAE of the asked widths with random weights."""
    levels = len(config.vae_channels)
    vae = AutoencoderKL(
        block_out_channels=config.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=norm_groups(config.vae_channels),
        sample_size=config.resolution,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        # As it is made, a posterior is nearly all noise, from which a decoder learns nothing for a long time.
        vae.quant_conv.weight[config.latent_channels :] *= 0.1
        vae.quant_conv.bias[config.latent_channels :] = FIRST_LOG_VARIANCE
    return vae


@torch.no_grad()
def take_over(vae: AutoencoderKL, given: AutoencoderKL) -> tuple[int, int]:
    """Copy the layers two VAEs share: same place, counted from the pixels, and same shape.

    What edges and colours look like is known then, and only the new inner level has to be learned (growing
    networks: Karras et al. 2017, arXiv:1710.10196).

    Args:
        vae: Changed in place.
        given: What to copy from; unchanged.

    Returns:
        How many of `vae`'s weight tensors were copied, and how many there are.
    """
    deeper = len(vae.config["block_out_channels"]) - len(given.config["block_out_channels"])
    wanted = vae.state_dict()
    taken = {}
    for name, value in given.state_dict().items():
        # The decoder counts its levels from the latents: the same distance from the pixels is further on.
        place = re.sub(r"^(decoder\.up_blocks\.)(\d+)", lambda at: f"{at[1]}{int(at[2]) + deeper}", name)
        if place in wanted and wanted[place].shape == value.shape:
            taken[place] = value
    vae.load_state_dict(taken, strict=False)
    return len(taken), len(wanted)


def random_crops(pixels: Tensor, side: int, draws: Draws) -> Tensor:
    """One square cutting of each picture, anywhere in it.

    Args:
        pixels: (B, 3, H, W).
        side: Height and width of the cuttings, pixels, at most H and W.
        draws: Decide where.

    Returns:
        (B, 3, side, side).
    """
    count, _, height, width = pixels.shape
    tops = draws.integers(height - side + 1, count).tolist()
    lefts = draws.integers(width - side + 1, count).tolist()
    return torch.stack(
        [
            picture[:, top : top + side, left : left + side]
            for picture, top, left in zip(pixels, tops, lefts, strict=True)
        ]
    )


def edge_difference(rebuilt: Tensor, pixels: Tensor) -> Tensor:
    """Mean L1 distance of horizontal and vertical pixel differences, scalar.

    Args:
        rebuilt: (B, 3, H, W), −1…1.
        pixels: Same shape.
    """
    error = rebuilt - pixels
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


@torch.no_grad()
def standardise_latents(
    vae: AutoencoderKL, pixels: np.ndarray, device: torch.device, count: int = 2048
) -> None:
    """Fold the latents' mean and standard deviation per channel into the 1×1 convolutions around them.

    Afterwards each latent channel has mean 0 and deviation 1 over the data, the pictures are unchanged, and
    `scaling_factor` is 1: plain Diffusers pipelines, which know one factor and no shift, stay right. The
    deviation is that of latents drawn from the posterior: a channel that the KL term has emptied, whose mean
    hardly moves, stays as quiet as it is and is not blown up to noise that a UNet has to predict.

    Args:
        vae: Changed in place.
        pixels: uint8, (N, 3, H, W).
        device: Where `vae` is.
        count: Pictures that are measured, evenly spread over the data.
    """
    rows = np.linspace(0, len(pixels) - 1, min(count, len(pixels))).astype(np.int64)
    posteriors = [
        vae.encode(to_pixels(pixels, chunk).to(device)).latent_dist
        for chunk in np.array_split(rows, max(1, len(rows) // 64))
    ]
    latents = torch.cat([one.mean.float() for one in posteriors])  # (N, C, h, w)
    noise = torch.cat([one.var.float() for one in posteriors])
    mean = latents.mean((0, 2, 3))
    deviation = (latents.var((0, 2, 3)) + noise.mean((0, 2, 3))).sqrt()
    channels = len(mean)
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:channels] /= deviation[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean) / deviation
    before.bias[channels:] -= 2 * deviation.log()  # the second half is log σ²
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= deviation[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)
