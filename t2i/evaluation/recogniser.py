"""The recogniser: a small network that says which things a picture shows, where, and on which background.

It judges pocket and never teaches it. It was trained (`examples/pocket/train_recogniser.py`) on renderings of
all combinations, those held out from pocket included: a judge must not be blind to what it is asked about.
It knows drawn things as pocket draws them; about photographs it says nothing worth hearing.

This module reads and writes its file; its network is in `t2i.evaluation.recogniser_network`.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from t2i import durable
from t2i.evaluation.findings import PICTURE_PX, Findings, Found
from t2i.evaluation.recogniser_network import Recogniser
from t2i.evaluation.vocabulary import VOCABULARY_FILE, read_vocabulary

__all__ = [
    "PICTURE_PX",
    "WEIGHTS_FILE",
    "Findings",
    "Found",
    "Recogniser",
    "load_recogniser",
    "save_recogniser",
]

WEIGHTS_NAME = "recogniser.safetensors"
WEIGHTS_FILE = VOCABULARY_FILE.with_name(WEIGHTS_NAME)


def save_recogniser(model: Recogniser, path: Path = WEIGHTS_FILE) -> None:
    """Write the weights, convolutions as fp16 (BatchNorm's statistics stay fp32: their range is wide)."""
    state = {
        name: (tensor.half() if tensor.ndim > 1 else tensor).detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    metadata = {"classes": json.dumps(_classes(model)), "widths": json.dumps(model.widths)}
    durable.write_with(path, lambda temporary: save_file(state, temporary, metadata=metadata))


def load_recogniser(path: Path = WEIGHTS_FILE) -> Recogniser:
    """Read a recogniser from a file that `save_recogniser` wrote; it computes in fp32.

    Raises:
        ValueError: It was trained with another vocabulary than the one in use.
    """
    with safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata()
    words = read_vocabulary()
    fine, middle, coarse = json.loads(metadata["widths"])
    model = Recogniser(
        tuple(words.concepts), tuple(words.backgrounds), words.colours, words.styles, (fine, middle, coarse)
    )
    if json.loads(metadata["classes"]) != _classes(model):
        raise ValueError(f"{path}: other classes than its vocabulary, or in another order")
    model.load_state_dict({name: tensor.to(_dtype(tensor)) for name, tensor in load_file(path).items()})
    return model.eval()


def _classes(model: Recogniser) -> list[list[str]]:
    return [list(names) for names in (model.concepts, model.backgrounds, model.colours, model.styles)]


def _dtype(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.is_floating_point() else tensor.dtype
