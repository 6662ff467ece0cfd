"""The recogniser: a small network that says which things a picture shows, where, and on which background.

It judges pocket and never teaches it. It was trained (`examples/pocket/train_recogniser.py`) on renderings of
all combinations, those held out from pocket included: a judge must not be blind to what it is asked about.
It knows drawn things as pocket draws them; about photographs it says nothing worth hearing.

This module reads and writes its files; its networks are in `t2i.evaluation.recogniser_networks`.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from t2i import durable
from t2i.evaluation.findings import GRID, PICTURE_PX, TELLS_OF, Findings, Found
from t2i.evaluation.recogniser_networks import GridRecogniser, InstanceRecogniser, Recogniser
from t2i.evaluation.vocabulary import VOCABULARY_FILE, Vocabulary, read_vocabulary

__all__ = [
    "GRID",
    "PICTURE_PX",
    "TELLS",
    "WEIGHTS_FILE",
    "Findings",
    "Found",
    "GridRecogniser",
    "InstanceRecogniser",
    "Recogniser",
    "load_recogniser",
    "save_recogniser",
]

WEIGHTS_NAME = "recogniser.safetensors"
WEIGHTS_FILE = VOCABULARY_FILE.with_name(WEIGHTS_NAME)
TELLS = TELLS_OF[read_vocabulary().version]
"""What the recogniser in use can be asked about; categories that need anything else are not measured."""


def save_recogniser(model: Recogniser, path: Path = WEIGHTS_FILE) -> None:
    """Write the weights, convolutions as fp16 (BatchNorm's statistics stay fp32: their range is wide)."""
    state = {
        name: (tensor.half() if tensor.ndim > 1 else tensor).detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    metadata = {"concepts": "|".join(model.concepts)}
    if isinstance(model, InstanceRecogniser):
        metadata |= {"version": str(model.version), "widths": json.dumps(model.widths)}
    durable.write_with(path, lambda temporary: save_file(state, temporary, metadata=metadata))


def load_recogniser(path: Path = WEIGHTS_FILE, vocabulary: Path | None = None) -> Recogniser:
    """Read a recogniser of either version from a file that `save_recogniser` wrote; it computes in fp32.

    Args:
        path: The weights. Their header says which version they are; without a word, version 0.
        vocabulary: Which things and colours its classes are, in their order; None for the one in use.

    Raises:
        ValueError: The vocabulary is not that of the weights.
    """
    with safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    words = read_vocabulary(vocabulary or VOCABULARY_FILE)
    model = new_recogniser(words, metadata)
    if metadata.get("concepts", "|".join(model.concepts)) != "|".join(model.concepts):
        raise ValueError(f"{path}: other concepts than its vocabulary")
    model.load_state_dict({name: tensor.to(_dtype(tensor)) for name, tensor in load_file(path).items()})
    return model.eval()


def new_recogniser(words: Vocabulary, metadata: dict[str, str]) -> Recogniser:
    """An untrained network.

    Args:
        words: Its classes.
        metadata: "version" and, for version 1, "widths", as in the header of the weights.
    """
    if int(metadata.get("version", "0")) == GridRecogniser.version:
        return GridRecogniser(tuple(words.concepts), words.backgrounds)
    fine, middle, coarse = json.loads(metadata.get("widths", json.dumps(InstanceRecogniser.own_widths)))
    return InstanceRecogniser(
        tuple(words.concepts), words.backgrounds, words.colours, words.styles, (fine, middle, coarse)
    )


def _dtype(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.is_floating_point() else tensor.dtype
