"""The parts of a model in the making: one folder each, fp32, as training leaves and finds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from t2i.durable import staged_folder, write_json
from t2i.environment import silence_loaded_libraries
from t2i.errors import ModelError
from t2i.weights.layout import find_weights
from t2i.weights.loading import report_keys
from t2i.weights.safety import parse_json, read_config, regular_file_size
from t2i.weights.saving import encoder_config, encoder_state, network_config, save_weights
from t2i.weights.tokenizers import check_tokenizer, load_tokenizer

WEIGHTS = "diffusion_pytorch_model"
TRANSFORMERS_WEIGHTS = "model"
NETWORKS = ("vae", "text_encoder", "unet")
PICTURES_OF_CLIP = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # training shows it -1...1


def save_parts(folder: Path, parts: Mapping[str, Any]) -> None:
    """Write parts below `folder`, each in its own folder, whole or not at all.

    Args:
        folder: Made if missing; other parts in it stay.
        parts: Any of "vae", "unet" (Diffusers networks), "text_encoder", "clip" (transformers), "tokenizer",
            "words" (words seen in training, saved with the tokenizer). A text encoder or CLIP needs the
            tokenizer.
    """
    silence_loaded_libraries()  # no progress bars of theirs between our lines
    for name, part in parts.items():
        if name == "words":
            continue
        with staged_folder(folder / name, overwrite=True) as stage:
            if name == "tokenizer":
                _save_tokenizer(stage, part)
                write_json(stage / "words.json", sorted(parts.get("words", ())))
            elif name == "text_encoder":
                write_json(stage / "config.json", encoder_config(part, parts["tokenizer"]))
                save_weights(stage / f"{TRANSFORMERS_WEIGHTS}.safetensors", encoder_state(part))
            elif name == "clip":
                part.save_pretrained(stage)
                _save_tokenizer(stage, parts["tokenizer"])  # whole by itself: `t2i eval --clip` reads it
                write_json(stage / "preprocessor_config.json", PICTURES_OF_CLIP)
            else:
                write_json(stage / "config.json", network_config(part))
                save_weights(stage / f"{WEIGHTS}.safetensors", part.state_dict())


def _save_tokenizer(folder: Path, tokenizer: Any) -> None:
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt for older readers


def find_parts(folder: Path) -> set[str]:
    """Names of the parts in `folder`, their files checked as `load_parts` does and nothing loaded.

    Raises:
        ModelError: As `load_parts`.
    """
    _check_folder(folder)
    networks = {name for name in NETWORKS if (folder / name).is_dir()}
    for name in networks:
        _check(folder / name)
    if not (folder / "tokenizer").is_dir():
        return networks
    read_config(folder / "text_encoder" / "config.json")  # says how many tokens fit
    check_tokenizer(folder / "tokenizer")
    return networks | {"tokenizer"}


def load_parts(folder: Path, only: Collection[str] | None = None) -> dict[str, Any]:
    """The parts in `folder`, in fp32 on the CPU.

    Args:
        folder: What `save_parts` wrote, or a whole Diffusers Stable Diffusion folder.
        only: Names to load; None loads "vae", "text_encoder", "tokenizer" (with "words") and "unet".

    Raises:
        ModelError: No such folder, or a part that is damaged or unsafe.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    silence_loaded_libraries()
    _check_folder(folder)
    kinds = dict(zip(NETWORKS, (AutoencoderKL, CLIPTextModel, UNet2DConditionModel), strict=True))
    found: dict[str, Any] = {}
    for name, kind in kinds.items():
        if (folder / name).is_dir() and (only is None or name in only):
            found[name] = _load(folder / name, kind)
    if (folder / "tokenizer").is_dir() and (only is None or "tokenizer" in only):
        places = int(read_config(folder / "text_encoder" / "config.json")["max_position_embeddings"])
        found["tokenizer"], _ = load_tokenizer(folder / "tokenizer", places)
        words = folder / "tokenizer" / "words.json"
        if words.is_file():
            regular_file_size(words)
            found["words"] = parse_json(b'{"words": ' + words.read_bytes() + b"}", words)["words"]
    return found


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(f"model folder {folder} is missing", "give the output folder of an earlier stage")


def _check(folder: Path) -> None:
    read_config(folder / "config.json")
    find_weights(folder, TRANSFORMERS_WEIGHTS if folder.name == "text_encoder" else WEIGHTS)


def _load(folder: Path, kind: Any) -> Any:
    """One network, after the same checks that any model's files go through."""
    import torch

    _check(folder)
    network, report = kind.from_pretrained(
        str(folder),
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    report_keys(str(folder), report["missing_keys"], report["unexpected_keys"])
    return network
