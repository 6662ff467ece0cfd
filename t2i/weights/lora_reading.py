"""The tensors of a LoRA file as layers: for each adapted module its two factors, its scale, its magnitude.

Names are translated by Diffusers' own converters. Numbers are not: each layer is scaled by its own alpha /
rank, which a file may say in a tensor (kohya), in its metadata (PEFT), or not at all (then it is 1).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i.environment import silence_loaded_libraries
from t2i.errors import ModelError
from t2i.weights.lora_files import KOHYA, LoraFile, inspect_lora
from t2i.weights.lora_saving import ADAPTER_METADATA
from t2i.weights.safety import read_header

Tensors = dict[str, Tensor]

CONVERTED = re.compile(
    r"(?:base_model\.model\.)?(?:(unet|text_encoder|text_encoder_2|transformer)\.)?(.+?)"
    r"\.(?:(lora_A|lora_B)(?:\.default)?\.(weight|bias)|(lora_magnitude_vector)(?:\.default)?(?:\.weight)?|(alpha))"
)


@dataclass(frozen=True)
class LoraLayer:
    """The change of one module: W + scale · up · down, of length `magnitude` for DoRA.

    Attributes:
        part: "unet", "text_encoder", "text_encoder_2", or a network that no model here has.
        module: Its name in that network.
        keys: As the file calls down and up.
        down: (rank, in, …).
        up: (out, rank, …).
        scale: alpha / rank.
        magnitude: (out,), for DoRA.
        bias: Of the up factor, (out,).
    """

    part: str
    module: str
    keys: tuple[str, str]
    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None = None
    bias: Tensor | None = None

    @property
    def rank(self) -> int:
        """Inner dimension of the product."""
        return self.down.shape[0]


def read_lora(file: LoraFile, unet_config: Any) -> tuple[list[LoraLayer], list[str]]:
    """The layers of a LoRA file.

    Args:
        file: From `inspect_lora`.
        unet_config: Of the model's UNet; SDXL files of kohya number blocks by it.

    Returns:
        The layers, and the keys of what belongs to none.

    Raises:
        ModelError: A factor alone, factors that do not fit each other, numbers that are not finite.
    """
    inspect_lora(file.path)  # it may have changed since
    tensors = read_tensors(file.path)
    silence_loaded_libraries()
    try:
        converted, original = _converted(tensors, unet_config)
    except ModelError as error:
        raise error.named(file.path) from error
    groups: dict[tuple[str, str], Tensors] = {}
    names: dict[tuple[str, str], dict[str, str]] = {}
    used = set(original.values())
    own_down = ".lora_down.weight"  # stands for its whole layer
    left = [
        key for key in tensors if key not in used and (key.endswith(own_down) or not KOHYA.fullmatch(key))
    ]
    for key, value in converted.items():
        found = CONVERTED.fullmatch(key)
        if found is None:
            left.append(original[key])
            continue
        place = found[1] or "unet", found[2]
        what = found[5] or found[6] or f"{found[3]}.{found[4]}"
        groups.setdefault(place, {})[what] = value
        names.setdefault(place, {})[what] = original[key]
    metadata = _adapter_metadata(file)
    layers = []
    for place, group in groups.items():
        if group.keys() == {"alpha"}:
            left.append(names[place]["alpha"])
            continue
        layers.append(_layer(file.path, place, group, names[place], metadata))
    return layers, left


def read_tensors(path: Path) -> Tensors:
    """All tensors of a file that was checked, in fp32 on the CPU.

    Raises:
        ModelError: It cannot be read, or holds a number that is not finite.
    """
    from safetensors.torch import load_file

    read_header(path)
    try:
        tensors = load_file(str(path))
    except Exception as error:
        raise ModelError(f"{path} cannot be read: {str(error)[:200]}") from error
    tensors = {key: value.float() for key, value in tensors.items()}
    for key, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ModelError(f"{path}: {key} has numbers that are not finite", "the file is damaged")
    return tensors


def _converted(tensors: Tensors, unet_config: Any) -> tuple[Tensors, dict[str, str]]:
    """The tensors under PEFT's names with the part in front, and new name → name in the file."""
    from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
    from diffusers.utils.state_dict_utils import (
        StateDictType,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    found = {key: KOHYA.fullmatch(key) for key in tensors}
    kohya = {key: match for key, match in found.items() if match is not None}
    state = {key: value for key, value in tensors.items() if key not in kohya}
    of_tensor = {id(value): key for key, value in tensors.items()}
    if kohya:
        bases = {key: key.rpartition(f".{match[3]}")[0] for key, match in kohya.items()}
        pairs = {
            key: tensors[key]
            for key, base in bases.items()
            if f"{base}.lora_down.weight" in tensors
            and f"{base}.lora_up.weight" in tensors
            and key.endswith(".weight")
        }
        try:
            renamed, _ = StableDiffusionXLLoraLoaderMixin.lora_state_dict(
                dict(pairs), unet_config=unet_config
            )
        except Exception as error:
            raise ModelError(f"the names of its layers are not understood: {str(error)[:200]}") from error
        state |= renamed
        for key, base in bases.items():
            if key not in pairs and f"{base}.lora_down.weight" not in pairs:
                raise ModelError(f"{key} is a part of a layer whose other parts are not there")
    unet = {key: value for key, value in state.items() if not key.startswith("text_encoder")}
    text = {key: value for key, value in state.items() if key.startswith("text_encoder")}
    for kind in (StateDictType.DIFFUSERS_OLD, StateDictType.DIFFUSERS):
        text = convert_state_dict_to_peft(text, original_type=kind)
    converted = {**convert_unet_state_dict_to_peft(unet), **text}
    original = {key: of_tensor[id(value)] for key, value in converted.items()}
    for key in list(converted):
        base = original[key].removesuffix(".lora_down.weight")
        if base == original[key]:
            continue
        place = key.removesuffix(".lora_A.weight")
        for own, new in (("alpha", "alpha"), ("dora_scale", "lora_magnitude_vector")):
            if f"{base}.{own}" in tensors:
                converted[f"{place}.{new}"] = tensors[f"{base}.{own}"]
                original[f"{place}.{new}"] = f"{base}.{own}"
    return converted, original


def _layer(
    path: Path, place: tuple[str, str], group: Tensors, names: dict[str, str], metadata: Mapping[str, Any]
) -> LoraLayer:
    part, module = place
    alone = next(iter(names.values()))
    if "lora_A.weight" not in group or "lora_B.weight" not in group:
        raise ModelError(f"{path}: {alone} is a part of a layer whose other parts are not there")
    down, up = group["lora_A.weight"], group["lora_B.weight"]
    keys = names["lora_A.weight"], names["lora_B.weight"]
    if down.ndim < 2 or up.ndim < 2 or up.shape[1] != down.shape[0] or 0 in (*down.shape, *up.shape):
        raise ModelError(f"{path}: {keys[0]} {list(down.shape)} and {keys[1]} {list(up.shape)} do not fit")
    if "lora_A.bias" in group:
        raise ModelError(f"{path}: {names['lora_A.bias']}: a bias between the factors is not read")
    magnitude = group.get("lora_magnitude_vector")
    if magnitude is not None:
        key, rows = names["lora_magnitude_vector"], up.shape[0]
        by_row = magnitude.shape[0] == rows if key.endswith(".dora_scale") else True
        if magnitude.numel() != rows or not by_row:  # LyCORIS can also weigh columns, which PEFT cannot
            raise ModelError(
                f"{path}: {key} {list(magnitude.shape)} is not one number for each row of {keys[1]}"
            )
        magnitude = magnitude.flatten()
    scale = _scale(part, module, down.shape[0], group.get("alpha"), metadata)
    if not math.isfinite(scale):
        raise ModelError(f"{path}: the alpha of {keys[0]} is no number")
    return LoraLayer(part, module, keys, down, up, scale, magnitude, group.get("lora_B.bias"))


def _scale(part: str, module: str, rank: int, alpha: Tensor | None, metadata: Mapping[str, Any]) -> float:
    """alpha / rank of one module; NaN where the file says no number."""
    if alpha is not None:
        return alpha.item() / rank if alpha.numel() == 1 else math.nan
    own = {
        key.removeprefix(f"{part}."): value for key, value in metadata.items() if key.startswith(f"{part}.")
    }
    if not own and part == "unet":
        own = dict(metadata)  # of a single network
    if "lora_alpha" not in own:
        return 1.0
    found = own["lora_alpha"]
    patterns = own.get("alpha_pattern")
    for name, value in patterns.items() if isinstance(patterns, dict) else ():
        if f".{module}".endswith(
            f".{name.removeprefix('^')}"
        ):  # PEFT reads it as an expression; a name is one
            found = value
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        return math.nan
    return found / (math.sqrt(rank) if own.get("use_rslora") is True else rank)


def _adapter_metadata(file: LoraFile) -> dict[str, Any]:
    """The settings of PEFT in the header. Only numbers are taken from them, no code, no expressions."""
    text = file.metadata.get(ADAPTER_METADATA)
    if text is None:
        return {}
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file.path}: its {ADAPTER_METADATA} is damaged") from error
    return values if isinstance(values, dict) else {}
