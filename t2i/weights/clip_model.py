"""A CLIP model that the user names: pictures and texts in one space, for CLIPScore, CMMD and FID on CLIP.

Loaded like any other model: safetensors by content, known classes, no code, every weight accounted for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2i.environment import is_offline, silence_loaded_libraries
from t2i.errors import ModelError
from t2i.weights.layout import find_weights
from t2i.weights.loading import match_marks, report_keys
from t2i.weights.safety import check_sizes, read_config, refuse_python_files
from t2i.weights.sources import HUB_ID
from t2i.weights.tokenizers import TOKENIZER_FILES, load_tokenizer

FILES = ("config.json", "preprocessor_config.json", *TOKENIZER_FILES)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
TEXT_PREFIX = "A photo depicts "


class Clip:
    """A CLIP model on a device; an extractor of features like the others (`t2i.evaluation.instruments`).

    Args:
        folder: With config.json, model.safetensors, preprocessor_config.json and the tokenizer's files.
        name: What reports call it.
        device: Where it computes, in fp32.

    Attributes:
        side: Pictures go in as squares of this many pixels.
        width: Length of an embedding.
        described: For reports.

    Raises:
        ModelError: Files missing, unsafe, damaged, or not CLIP.
    """

    def __init__(self, folder: Path, name: str, device: torch.device) -> None:
        refuse_python_files(folder)
        config = read_config(folder / "config.json")
        if config.get("model_type") != "clip":
            raise ModelError(f"{folder.name} is a {str(config.get('model_type'))[:60]!r} model, not CLIP")
        weights = find_weights(folder, "model")
        check_sizes(folder / "config.json", config, len(weights.tensors))
        self.device = device
        self.model = _load(folder).to(device)
        text, vision = self.model.config.text_config, self.model.config.vision_config
        self.tokenizer, _ = load_tokenizer(folder, text.max_position_embeddings)
        match_marks(self.model.text_model, self.tokenizer)
        self.side = int(vision.image_size)
        self.width = int(self.model.config.projection_dim)
        self.mean, self.std = _normalisation(folder, device)
        self.described = f"CLIP embeddings of {name} ({self.width} numbers)"

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Picture embeddings of length 1: uint8 (B, 3, side, side) → (B, width)."""
        unit = pictures.to(self.device).float() / 255
        seen = self.model.vision_model(pixel_values=(unit - self.mean) / self.std)
        return _unit(self.model.visual_projection(seen.pooler_output))

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Text embeddings of length 1, (B, width); a text longer than the encoder's window is cut."""
        ids = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids  # fmt: skip
        read = self.model.text_model(input_ids=ids.to(self.device))
        return _unit(self.model.text_projection(read.pooler_output))

    def is_cut(self, text: str) -> bool:
        """Whether a text is longer than the encoder's window."""
        return len(self.tokenizer(text, verbose=False).input_ids) > self.tokenizer.model_max_length


def load_clip(name: str, option: str, device: torch.device) -> Clip:
    """The CLIP model that an option names; arguments and errors as `find_clip` and `Clip`."""
    folder = find_clip(name, option)
    return Clip(folder, folder.name, device)


def find_clip(name: str, option: str = "--clip") -> Path:
    """The folder of a CLIP model, downloaded first if it is on the Hub and not yet here.

    Args:
        name: A folder, or a Hub id (`owner/name` or `owner/name@revision`).
        option: That names it, for messages.

    Raises:
        ModelError: No such model, or it cannot be downloaded.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or not re.fullmatch(HUB_ID, name):
        raise ModelError(f"{option} {name}: no such folder", "give a CLIP folder, or a Hub id as owner/name")
    from huggingface_hub import snapshot_download

    repo, _, revision = name.partition("@")
    try:
        found = snapshot_download(
            repo, revision=revision or None, allow_patterns=[*FILES, *WEIGHTS], local_files_only=is_offline()
        )
    except Exception as error:  # the Hub's client raises many kinds
        first = (str(error).splitlines() or [type(error).__name__])[0]
        where = "is not on this machine" if is_offline() else f"could not be downloaded: {first[:200]}"
        raise ModelError(f"{option} {name} {where}", "give a CLIP folder that is here") from error
    return Path(found)


def _load(folder: Path) -> Any:
    from transformers import CLIPModel

    silence_loaded_libraries()
    try:
        model, report = CLIPModel.from_pretrained(
            str(folder), dtype=torch.float32, use_safetensors=True, local_files_only=True,
            output_loading_info=True, attn_implementation="sdpa",
        )  # fmt: skip
    except MemoryError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder.name} cannot be loaded: {first[:200]}") from error
    if report.get("mismatched_keys"):
        raise ModelError(f"{folder.name} has weights of another shape than its config says")
    report_keys(folder.name, report["missing_keys"], report["unexpected_keys"])
    return model.eval().requires_grad_(False)


def _normalisation(folder: Path, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the channels that the model was trained with, (3, 1, 1) each."""
    path = folder / "preprocessor_config.json"
    if not path.exists():
        raise ModelError(
            f"{folder.name} has no preprocessor_config.json", "it says how CLIP wants its pictures"
        )
    values = read_config(path)
    channels = []
    for key in ("image_mean", "image_std"):
        given = values.get(key)
        numbers = given if isinstance(given, list) else []
        if len(numbers) != 3 or not all(type(item) in (int, float) and 0 <= item <= 1 for item in numbers):
            raise ModelError(f"{folder.name}/preprocessor_config.json: {key} must be three numbers, 0 to 1")
        channels.append(torch.tensor(numbers, device=device).float().reshape(3, 1, 1))
    if not bool((channels[1] > 0).all()):
        raise ModelError(f"{folder.name}/preprocessor_config.json: image_std must be above 0")
    return channels[0], channels[1]


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)
