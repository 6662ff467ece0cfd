"""Methods on the tiny base models, made without a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_run import small_config

from t2i.config import TrainConfig
from t2i.dataset import dataset_key, load_pixels, read_folder
from t2i.edges import edges
from t2i.methods import METHODS, TrainingData
from t2i.training.start import settled, start_parts

CPU = torch.device("cpu")
NEEDS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4},
    "full": {},
    "dreambooth": {"class_prompt": "a cat"},
    "textual-inversion": {"placeholder_token": "<zorb>"},
    "controlnet": {"control_kind": "edges"},
    "classifier": {"labels": "captions", "classifier_channels": (8, 16)},
}
"""Every method on a base, and the options that it cannot do without or that make it small."""


def base_config(name: str, model: Path, dataset: Path, output: Path, **changes: Any) -> Any:
    """A settled run on a tiny base; what the method does not look at is left out."""
    small = {"model": str(model), "mixed_precision": "no", "sampling_steps": 2} | NEEDS[name] | changes
    uses = {key: described.only for key, described in TrainConfig.options().items()}
    small = {key: value for key, value in small.items() if not uses[key] or name in uses[key]}
    return settled(small_config(dataset, output, method=name, **small))


def shapes_data(shapes: Path, cache: Path, resolution: int, **more: Any) -> TrainingData:
    """The drawn shapes as the methods take them, with everything that any of them asks for."""
    folder = read_folder(shapes)
    key = dataset_key(folder, resolution, cache)
    pixels, captions = load_pixels(folder, resolution, cache, key), folder.captions()
    given: dict[str, Any] = {
        "prior": TrainingData(pixels[:4], ["a cat"] * 4, cache, "prior" + key),
        "conditioning": np.stack([edges(np.asarray(picture)) for picture in pixels]),
        "labels": captions,
    } | more
    return TrainingData(pixels, captions, cache, key, **given)


def make(name: str, model: Path, data: TrainingData, **changes: Any) -> Any:
    """A method that has just begun."""
    config = base_config(name, model, Path("unused"), Path("unused"), **changes)
    if config.class_prompt is None:
        data = replace(data, prior=None)
    torch.manual_seed(0)
    return METHODS[name](config, data, start_parts(config, name), CPU)
