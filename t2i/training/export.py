"""What a stage leaves when it ends: written from the averaged weights, one writer for each kind of result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i import durable, weights
from t2i.catalog import DEFAULT_MODEL
from t2i.config import TrainConfig
from t2i.config.train import OWN_PARTS
from t2i.devices import DTYPES
from t2i.methods import METHODS, SCRATCH, Method, TrainingData
from t2i.naming import slug
from t2i.schedulers import row_for_class
from t2i.training.folder import PARTS
from t2i.training.resuming import dataset_digest
from t2i.training.start import base_key, base_of
from t2i.version import __version__


@dataclass(frozen=True)
class Made:
    """What a run has made.

    Attributes:
        path: The file or folder.
        hint: A command line that uses it; empty where there is none yet.
    """

    path: Path
    hint: str = ""


def result_of(config: TrainConfig) -> Path:
    """Where the result of a run is: what `t2i train` prints at its end."""
    if config.method in ("vae", "clip"):
        return Path(config.output) / PARTS
    last = METHODS[SCRATCH[-1] if config.method == "scratch" else config.method]
    return Path(config.output) / last.results[-1]


def export(config: TrainConfig, method: Method, data: TrainingData) -> Made:
    """Write what a method has made.

    Args:
        config: The run.
        method: Carries the weights that are to be written.
        data: What it learned from.
    """
    return WRITERS.get(method.name, _save_parts)(config, method, data)


def describe(config: TrainConfig, data: TrainingData) -> dict[str, Any]:
    """What a file made on a base model says of itself: base, settings, data; no path of this machine."""
    source = base_of(config)
    own = {name for name, option in config.options().items() if config.method in option.only}
    own |= {"method", "seed", "resolution", "batch_size", "learning_rate", "max_train_steps"}
    settings = {name: value for name, value in config.to_dict().items() if name in own and value is not None}
    captions = list(dict.fromkeys(filter(None, data.captions)))
    return {
        "t2i.base": source.id,
        "t2i.base_sha256": base_key(source),
        "t2i.dataset": dataset_digest(data),
        "t2i.pictures": str(len(data.pixels)),
        "t2i.captions": captions[:CAPTIONS_KEPT],
        "t2i.settings": settings,
        "modelspec.title": f"{config.method} of {source.id}",
        "modelspec.resolution": f"{config.resolution}x{config.resolution}",
        **({"modelspec.trigger_phrase": captions[0]} if len(captions) == 1 else {}),
    }


CAPTIONS_KEPT = 32


DESCRIPTION = "training.json"


def _save_parts(config: TrainConfig, method: Method, data: TrainingData) -> Made:
    folder = Path(config.output) / PARTS
    parts = method.parts()
    weights.save_parts(folder, parts)
    if config.method not in OWN_PARTS:
        for name in parts:
            durable.write_json(folder / name / DESCRIPTION, describe(config, data))
    return Made(folder)


def _save_new_model(config: TrainConfig, method: Method, data: TrainingData) -> Made:
    """A model trained from scratch, which calls itself a pocket."""
    parts = method.parts()
    schedule = parts["scheduler_config"]
    defaults = {
        "family": "pocket",
        "steps": config.sampling_steps,
        "guidance_scale": config.guidance_scale,
        "scheduler": row_for_class(schedule["_class_name"], schedule),
        "width": config.resolution,
        "height": config.resolution,
    }
    return _save_model(config, data, {
        **parts, "text_encoders": [parts["text_encoder"]], "tokenizers": [parts["tokenizer"]]
    }, defaults)  # fmt: skip


def _save_tuned_model(config: TrainConfig, method: Method, data: TrainingData) -> Made:
    source = base_of(config)
    defaults = {
        "family": source.family,
        "steps": config.sampling_steps,
        "guidance_scale": config.guidance_scale,
        "scheduler": source.defaults.scheduler,
        "width": config.resolution,
        "height": config.resolution,
    }
    made = _save_model(config, data, method.parts(), defaults)
    durable.write_json(made.path / DESCRIPTION, describe(config, data))
    return made


def _save_model(
    config: TrainConfig, data: TrainingData, parts: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Made:
    folder = Path(config.output) / "model"
    weights.save_folder(
        folder,
        unet=parts["unet"],
        vae=parts["vae"],
        text_encoder=parts["text_encoders"][0],
        tokenizer=parts["tokenizers"][0],
        second_text=tuple(zip(parts["text_encoders"], parts["tokenizers"], strict=True))[1:],
        zeros_for_empty_prompt=parts.get("zeros_for_empty_prompt", False),
        scheduler_config=parts["scheduler_config"],
        known_words=parts["words"],
        dtype=DTYPES[config.save_dtype],
        defaults={name: value for name, value in defaults.items() if value is not None},
        overwrite=True,
    )
    return Made(folder, f"t2i generate {_prompt(data)} --model {folder}")


def _save_lora(config: TrainConfig, method: Method, data: TrainingData) -> Made:
    path = result_of(config)
    weights.save_lora(
        path,
        method.parts(),
        metadata=describe(config, data),
        file_format=config.lora_format,
        dtype=DTYPES[config.save_dtype],
    )
    return Made(path, f"t2i generate {_prompt(data)}{_base(config)} --lora {path}")


def _save_controlnet(config: TrainConfig, method: Method, data: TrainingData) -> Made:
    path = _save_parts(config, method, data).path / "controlnet"
    follows = "PICTURE.png" + (f" --control-kind {config.control_kind}" if config.control_kind else "")
    command = f"t2i generate {_prompt(data)}{_base(config)} --controlnet {path} --control-image {follows}"
    return Made(path, command)


def _save_embedding(config: TrainConfig, method: Method, data: TrainingData) -> Made:
    """One file, in a folder of its own: an SDXL file's token is the file's name."""
    from safetensors.torch import save

    token, rows = str(config.placeholder_token), method.parts()
    two = "text_encoder_2" in rows
    names = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"} if two else {"text_encoder": token}
    dtype = DTYPES[config.save_dtype]
    tensors = {names[part]: value.detach().to("cpu", dtype).contiguous() for part, value in rows.items()}
    told = describe(config, data) | {"t2i.token": token, "t2i.version": __version__, "format": "pt"}
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}
    called = re.sub(r"[^\w-]+", "", token) or slug(token)
    path = result_of(config) / f"{called}.safetensors"
    durable.write_bytes(path, weights.sorted_metadata(save(tensors, metadata=metadata)))
    called = path.stem if two else token
    return Made(path, f't2i generate "a picture of {called}"{_base(config)} --embedding {path}')


WRITERS: dict[str, Callable[[TrainConfig, Method, TrainingData], Made]] = {
    "unet": _save_new_model,
    "full": _save_tuned_model,
    "dreambooth": _save_tuned_model,
    "lora": _save_lora,
    "textual-inversion": _save_embedding,
    "controlnet": _save_controlnet,
}


def _base(config: TrainConfig) -> str:
    return "" if config.model in (None, DEFAULT_MODEL) else f" --model {config.model}"


def _prompt(data: TrainingData) -> str:
    """A caption of the dataset in quotes for a shell."""
    caption = next(filter(None, data.captions), "")
    return "'" + caption.replace("'", "'\\''") + "'"
