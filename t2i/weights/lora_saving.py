"""Adapters in memory → one LoRA file that Diffusers, kohya's tools and t2i read, whole or not at all.

Two sets of names are in use. Diffusers and PEFT: `unet.<module>.lora_A.weight`, with alpha in the metadata.
kohya: `lora_unet_<module with _>.lora_down.weight`, with alpha in a tensor beside it. The factors are equal.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i.version import __version__

if TYPE_CHECKING:
    import torch

LORA_FORMATS = ("peft", "kohya")
ADAPTER = "default"
ADAPTER_METADATA = "lora_adapter_metadata"  # where Diffusers keeps the settings of PEFT
ARCHITECTURES = {  # width of the text that the UNet reads → its name in the SAI model specification
    768: "stable-diffusion-v1/lora",
    1024: "stable-diffusion-v2-512/lora",
    2048: "stable-diffusion-xl-v1-base/lora",
}
TEXT_PREFIX = "text_model."  # of a CLIP encoder's modules in every published file; new transformers drop it


def save_lora(
    path: Path,
    networks: Mapping[str, Any],
    *,
    metadata: Mapping[str, Any] | None = None,
    file_format: str = "peft",
    dtype: torch.dtype | None = None,
    overwrite: bool = True,
) -> None:
    """Write the adapters of some networks as one `.safetensors` file.

    Args:
        path: The file.
        networks: "unet", "text_encoder", "text_encoder_2" → a module that carries the PEFT adapter "default"
            (LoRA or DoRA).
        metadata: More of it, which also replaces what is written by itself (`modelspec.*`, `t2i.version`);
            what is no text is written as JSON.
        file_format: "peft" or "kohya".
        dtype: Number format of the tensors; None keeps each as it is.
        overwrite: Replace an existing file.

    Raises:
        ValueError: An unknown format, or a network without the adapter.
        StorageError: No space, no permission, or the file is there already.
    """
    from safetensors.torch import save

    from t2i.durable import write_bytes
    from t2i.weights.saving import sorted_metadata

    if file_format not in LORA_FORMATS:
        raise ValueError(f"file format {file_format!r}: not one of {', '.join(LORA_FORMATS)}")
    layers = {part: list(_layers(part, network)) for part, network in networks.items()}
    write = _peft_tensors if file_format == "peft" else _kohya_tensors
    tensors = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous().clone()
        for name, value in write(layers, networks).items()
    }
    described = {"format": "pt", "t2i.version": __version__, **_model_spec(networks)}
    described |= _peft_metadata(layers) if file_format == "peft" else _kohya_metadata(layers)
    described |= {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in (metadata or {}).items()
    }
    write_bytes(path, sorted_metadata(save(tensors, metadata=described)), overwrite)


@dataclass(frozen=True)
class _Layer:
    """One adapted module. `name` has no `text_model.`; `alpha` is that of scaling = alpha / rank."""

    name: str
    tensors: dict[str, torch.Tensor]
    rank: int
    alpha: float


def _layers(part: str, network: Any) -> Iterator[_Layer]:
    found = False
    for name, module in network.named_modules():
        if ADAPTER not in getattr(module, "lora_A", ()):
            continue
        found = True
        tensors = {}
        for factor in ("lora_A", "lora_B"):
            inner = getattr(module, factor)[ADAPTER]
            tensors[f"{factor}.weight"] = inner.weight
            if inner.bias is not None:
                tensors[f"{factor}.bias"] = inner.bias
        if ADAPTER in (getattr(module, "lora_magnitude_vector", None) or ()):
            tensors["lora_magnitude_vector"] = module.lora_magnitude_vector[ADAPTER].weight
        rank, alpha = module.r[ADAPTER], float(module.lora_alpha[ADAPTER])
        if network.peft_config[ADAPTER].use_rslora:  # scaling = alpha / sqrt(rank), which few readers know
            alpha *= math.sqrt(rank)
        yield _Layer(name.removeprefix("base_model.model.").removeprefix(TEXT_PREFIX), tensors, rank, alpha)
    if not found:
        raise ValueError(f"the {part} carries no adapter {ADAPTER!r}")


def _published(part: str, name: str) -> str:
    """The name of a module in published files."""
    return name if part == "unet" or name == "text_projection" else TEXT_PREFIX + name


def _peft_tensors(layers: Mapping[str, list[_Layer]], _: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{_published(part, layer.name)}.{key}": value
        for part, found in layers.items()
        for layer in found
        for key, value in layer.tensors.items()
    }


def _kohya_tensors(layers: Mapping[str, list[_Layer]], networks: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    has_two = "text_encoder_2" in networks or _is_sdxl(networks)
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te1" if has_two else "lora_te"}
    prefixes["text_encoder_2"] = "lora_te2"
    names = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
    tensors: dict[str, Any] = {}
    for part, found in layers.items():
        for layer in found:
            base = f"{prefixes[part]}_{_published(part, layer.name).replace('.', '_')}"
            for key, value in layer.tensors.items():
                if key in names:
                    tensors[f"{base}.{names[key]}"] = value
                elif key == "lora_magnitude_vector":
                    places = layer.tensors["lora_B.weight"].ndim - 1
                    tensors[f"{base}.dora_scale"] = value.reshape(-1, *[1] * places)
                else:
                    raise ValueError(f"kohya's files have no place for {key} of {layer.name}")
            tensors[f"{base}.alpha"] = torch.tensor(layer.alpha)
    return tensors


def _peft_metadata(layers: Mapping[str, list[_Layer]]) -> dict[str, str]:
    """The settings of PEFT as Diffusers writes them, by part; exceptions stand in patterns."""
    settings: dict[str, Any] = {}
    for part, found in layers.items():
        rank = Counter(layer.rank for layer in found).most_common(1)[0][0]
        alpha = Counter(layer.alpha for layer in found).most_common(1)[0][0]
        own = {
            "r": rank,
            "lora_alpha": _plain(alpha),
            "rank_pattern": {layer.name: layer.rank for layer in found if layer.rank != rank},
            "alpha_pattern": {layer.name: _plain(layer.alpha) for layer in found if layer.alpha != alpha},
            "target_modules": sorted(layer.name for layer in found),
            "use_dora": any("lora_magnitude_vector" in layer.tensors for layer in found),
            "lora_bias": any("lora_B.bias" in layer.tensors for layer in found),
        }
        settings |= {f"{part}.{name}": value for name, value in own.items()}
    return {ADAPTER_METADATA: json.dumps(settings, sort_keys=True)}


def _kohya_metadata(layers: Mapping[str, list[_Layer]]) -> dict[str, str]:
    every = [layer for found in layers.values() for layer in found]
    rank = Counter(layer.rank for layer in every).most_common(1)[0][0]
    alpha = Counter(layer.alpha for layer in every).most_common(1)[0][0]
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(_plain(alpha)),
    }


def _plain(number: float) -> float:
    return int(number) if float(number).is_integer() else number


def _model_spec(networks: Mapping[str, Any]) -> dict[str, str]:
    """`modelspec.*` as far as the networks say it."""
    spec = {"modelspec.sai_model_spec": "1.0.0", "modelspec.implementation": "diffusers"}
    unet = networks.get("unet")
    width = getattr(getattr(unet, "config", None), "cross_attention_dim", None)
    if isinstance(width, int) and width in ARCHITECTURES:
        spec["modelspec.architecture"] = ARCHITECTURES[width]
    return spec


def _is_sdxl(networks: Mapping[str, Any]) -> bool:
    config = getattr(networks.get("unet"), "config", None)
    return getattr(config, "addition_embed_type", None) == "text_time"
