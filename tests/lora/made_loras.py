"""LoRA files made in code: random adapters on a tiny model, written by `t2i.weights.save_lora`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model

from t2i import weights

UNET_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.0.proj", "conv1"]
ENCODER_TARGETS = ["q_proj", "v_proj", "out_proj", "fc1"]


def load(folder: Path) -> weights.LoadedModel:
    """A fresh model in fp32 on the CPU."""
    return weights.load_model(weights.resolve_model(str(folder)))


def networks_with_adapters(
    folder: Path, seed: int = 0, unet_only: bool = False, **config: Any
) -> dict[str, Any]:
    """The networks of a model, each with a random adapter: rank 4 (to_k: 2), alpha 8."""
    model = load(folder)
    encoders = () if unet_only else model.family.parts.text_encoders
    networks = {"unet": model.unet, **dict(zip(("text_encoder", "text_encoder_2"), encoders, strict=False))}
    generator = torch.Generator().manual_seed(seed)
    for part, network in networks.items():
        targets = UNET_TARGETS if part == "unet" else ENCODER_TARGETS
        ranks = {"to_k": 2} if part == "unet" else {}
        values = {"r": 4, "lora_alpha": 8, "target_modules": targets, "rank_pattern": ranks, **config}
        inject_adapter_in_model(LoraConfig(**values), network)
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "magnitude" in name:
                parameter.data = parameter.data * (1 + 0.1 * noise)
            elif "lora_" in name:
                parameter.data = 0.2 * noise
    return networks


def make_lora(path: Path, folder: Path, file_format: str = "peft", **config: Any) -> Path:
    """A LoRA file for the model in `folder`."""
    weights.save_lora(path, networks_with_adapters(folder, **config), file_format=file_format)
    return path
