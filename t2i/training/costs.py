"""What a training costs, before a weight is read: numbers that learn on a base model, a guess of the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from t2i.config import TrainConfig
from t2i.dataset import ImageFolder
from t2i.devices import EXACT_FAMILIES
from t2i.errors import ModelError
from t2i.flops import assumed_speed, unet_flop
from t2i.methods.base import norm_groups
from t2i.methods.classifier import NoisyClassifier
from t2i.methods.controlnet import EMBEDDING_WIDTHS
from t2i.methods.lora import SMALL_TARGETS, TEXT_TARGETS, UNET_TARGETS, add_adapter
from t2i.training.folder import PARTS
from t2i.training.inputs import labels_of
from t2i.training.start import base_of
from t2i.weights.safety import read_config

BACKWARD = {"lora": 2.0, "textual-inversion": 2.0}
"""Arithmetic of a step in forward passes where most weights have no gradient; else 3."""
EVERYTHING = 3.0


def base_configs(config: TrainConfig) -> Mapping[str, Any]:
    """Network → config of the base model."""
    found: Mapping[str, Any] = base_of(config).inspection.contents.configs
    return found


def learning_on_base(config: TrainConfig, method: str, folder: ImageFolder) -> int | None:
    """How many numbers a method on a base model trains; None where its files do not tell.

    Args:
        config: The run, settled.
        method: Which.
        folder: Its pictures; a classifier's last layer has a row for each class.

    Raises:
        UsageError: No layer has a name that `--target-modules` asks for.
    """
    from diffusers import ControlNetModel, UNet2DConditionModel

    configs, source = base_configs(config), base_of(config)
    encoders = [name for name in ("text_encoder", "text_encoder_2") if name in configs]
    if method == "textual-inversion":
        return sum(config.num_vectors * configs[name]["hidden_size"] for name in encoders) or None
    with torch.device("meta"):  # shapes alone, no numbers
        if method == "classifier":
            labels = tuple(sorted(set(labels_of(config, folder))))
            return _count(NoisyClassifier(
                labels=labels, in_channels=configs["vae"]["latent_channels"],
                block_out_channels=config.classifier_channels,
                norm_num_groups=norm_groups(config.classifier_channels),
            ))  # fmt: skip
        unet: Any = UNet2DConditionModel.from_config(dict(configs["unet"]))
        if method == "controlnet":
            halvings = len(configs["vae"]["block_out_channels"]) - 1
            widths = EMBEDDING_WIDTHS[: halvings + 1]
            network: Any = ControlNetModel.from_unet(
                unet, conditioning_embedding_out_channels=widths, load_weights_from_unet=False
            )
            return _count(network)
        networks: list[Any] = [unet]
        if config.train_text_encoder:
            if not encoders:
                return None
            networks += [_text_encoder(configs[name], name) for name in encoders]
        if method != "lora":
            return sum(map(_count, networks))
        small = SMALL_TARGETS if source.family in EXACT_FAMILIES else UNET_TARGETS
        for network, targets in zip(
            networks, (config.target_modules or small, *[TEXT_TARGETS] * len(encoders)), strict=False
        ):
            network.requires_grad_(False)
            add_adapter(network, targets, config)
        return sum(map(_count, networks))


def guessed_seconds(config: TrainConfig, stage: str, steps: int, learning: int | None) -> float | None:
    """About how long the steps of a stage take; None where its network is not known yet.

    Args:
        config: The run, settled.
        stage: One of its stages.
        steps: Of the stage.
        learning: Numbers that learn, as far as they are known.
    """
    if stage in ("vae", "clip", "classifier") or learning is None:
        return None
    try:
        unet, vae = _networks(config, stage)
    except (ModelError, OSError):
        return None
    side = config.resolution / 2 ** (len(vae["block_out_channels"]) - 1)
    passes = BACKWARD.get(stage, EVERYTHING) + (1.0 if stage == "controlnet" else 0.0)
    pictures = steps * config.batch_size * config.gradient_accumulation_steps
    pictures *= 1 if config.class_prompt is None else 2
    return pictures * passes * unet_flop(unet, side, side) / assumed_speed(config.device)


def _networks(config: TrainConfig, stage: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Configs of the UNet and of the autoencoder."""
    if stage != "unet":
        configs = base_configs(config)
        return configs["unet"], configs["vae"]
    from pathlib import Path

    own = {"block_out_channels": config.unet_channels, "layers_per_block": config.unet_layers}
    if config.method == "scratch":
        return own, {"block_out_channels": config.vae_channels}
    start = Path(config.output) / PARTS if config.model is None else Path(config.model)
    vae = read_config(start / "vae" / "config.json")
    there = start / "unet" / "config.json"
    return (read_config(there) if there.is_file() else own), vae


def _text_encoder(config: Mapping[str, Any], name: str) -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModel if name == "text_encoder" else CLIPTextModelWithProjection
    built: nn.Module = kind(CLIPTextConfig(**config))
    return built


def _count(network: nn.Module) -> int:
    return sum(value.numel() for value in network.parameters() if value.requires_grad)
