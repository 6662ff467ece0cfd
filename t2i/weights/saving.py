"""Networks in memory → a Diffusers Stable Diffusion (XL) folder, whole or not at all.

The text encoder's weights keep the `text_model.` prefix that every released reader understands, and its
config names the begin, end and padding ids of its own tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i.durable import staged_folder, write_json
from t2i.errors import StorageError

if TYPE_CHECKING:
    import torch

PREFIX = "text_model."


def network_config(network: Any) -> dict[str, Any]:
    """The config of a Diffusers network, without the folder that it was once loaded from."""
    config: dict[str, Any] = json.loads(network.to_json_string())
    config.pop("_name_or_path", None)
    return config


def save_folder(
    folder: Path,
    *,
    unet: Any,
    vae: Any,
    text_encoder: Any,
    tokenizer: Any,
    scheduler_config: Mapping[str, Any],
    second_text: Sequence[tuple[Any, Any]] = (),
    zeros_for_empty_prompt: bool = False,
    dtype: torch.dtype | None = None,
    defaults: Mapping[str, Any] | None = None,
    known_words: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Write a model that t2i and plain `StableDiffusionPipeline.from_pretrained` both load, or SDXL's.

    Args:
        folder: The folder to make.
        unet: UNet2DConditionModel.
        vae: AutoencoderKL.
        text_encoder: CLIPTextModel.
        tokenizer: CLIPTokenizer.
        scheduler_config: Diffusers scheduler config with `_class_name`.
        second_text: SDXL's second encoder (CLIPTextModelWithProjection) and its tokenizer, as one pair.
        zeros_for_empty_prompt: SDXL's: an empty negative prompt is all zeros.
        dtype: Number format of the weights on disk; None = fp32.
        defaults: Contents of `t2i.json`: steps, guidance_scale, scheduler, width, height, family.
        known_words: Words seen in training, written beside the tokenizer.
        overwrite: Replace an existing folder; nothing of it is kept.

    Raises:
        StorageError: No space, no permission, or the folder is there already.
    """
    import torch

    if folder.exists() and not overwrite:
        raise StorageError(f"{folder} already exists", "choose another name or pass --overwrite")
    number_format = dtype if dtype is not None else torch.float32
    with staged_folder(folder, overwrite) as stage:
        write_json(
            stage / "model_index.json",
            _model_index(scheduler_config, bool(second_text), zeros_for_empty_prompt),
        )
        write_json(stage / "scheduler" / "scheduler_config.json", dict(scheduler_config))
        for name, network in (("unet", unet), ("vae", vae)):
            write_json(stage / name / "config.json", network_config(network))
            weights = stage / name / "diffusion_pytorch_model.safetensors"
            save_weights(weights, network.state_dict(), number_format)
        for number, (encoder, own) in zip(
            ("", "_2"), ((text_encoder, tokenizer), *second_text), strict=False
        ):
            config = encoder_config(encoder, own, number_format)
            write_json(stage / f"text_encoder{number}" / "config.json", config)
            weights = stage / f"text_encoder{number}" / "model.safetensors"
            save_weights(weights, encoder_state(encoder), number_format)
            own.save_pretrained(stage / f"tokenizer{number}")
            # vocab.json and merges.txt for older readers
            own.backend_tokenizer.model.save(str(stage / f"tokenizer{number}"))
        if known_words:
            write_json(stage / "tokenizer" / "words.json", sorted(known_words))
        if defaults:
            write_json(stage / "t2i.json", dict(defaults))


def save_weights(path: Path, state: Mapping[str, torch.Tensor], dtype: torch.dtype | None = None) -> None:
    """Write tensors as safetensors, whole or not at all.

    Args:
        path: The file.
        state: Name → tensor, on any device.
        dtype: Number format for the floating-point ones; None keeps each as it is.
    """
    from safetensors.torch import save_file

    from t2i.durable import write_with

    tensors = {
        name: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous().clone()
        for name, value in state.items()
    }
    write_with(path, lambda temporary: save_file(tensors, str(temporary), metadata={"format": "pt"}))


def sorted_metadata(data: bytes) -> bytes:
    """A safetensors file with its metadata in the order of the alphabet.

    The library writes them in another order each time, and equal contents should be equal files.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = dict(sorted(header.pop("__metadata__", {}).items()))
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def encoder_state(text_encoder: Any) -> dict[str, torch.Tensor]:
    """The weights of a CLIP text encoder under the names of the published checkpoints."""
    state = text_encoder.state_dict()
    flat = not any(name.startswith(PREFIX) for name in state)  # transformers >= 5.6 dropped the prefix
    beside = ("text_projection.",)  # of an encoder with projection
    return {
        (PREFIX + name if flat and not name.startswith(beside) else name): value
        for name, value in state.items()
    }


def encoder_config(text_encoder: Any, tokenizer: Any, dtype: torch.dtype | None = None) -> dict[str, Any]:
    """A text encoder config that names the marks of the tokenizer in use; `dtype` None means fp32."""
    values = json.loads(text_encoder.config.to_json_string())
    values.pop("_name_or_path", None)
    return {
        **values,
        "architectures": [type(text_encoder).__name__],
        "model_type": "clip_text_model",
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": str(dtype).removeprefix("torch.") if dtype is not None else "float32",
    }


def _model_index(scheduler_config: Mapping[str, Any], is_xl: bool, zeros: bool) -> dict[str, Any]:
    import diffusers

    own = {
        "_class_name": "StableDiffusionPipeline",
        "requires_safety_checker": False,
        "safety_checker": [None, None],
    }
    if is_xl:
        own = {
            "_class_name": "StableDiffusionXLPipeline",
            "force_zeros_for_empty_prompt": zeros,
            "image_encoder": [None, None],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
        }
    return {
        **own,
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "scheduler": ["diffusers", scheduler_config["_class_name"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
