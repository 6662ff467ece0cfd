"""Checkpoints that are whole or absent, and the small handoff that carries a run to another machine.

A checkpoint is a folder `checkpoint-00000500` of safetensors files, `state.json` and `MANIFEST.json` with
the SHA-256 of each file. It is staged under a temporary name and appears by one rename; the old ones are
removed only after the new one was read back. No pickle anywhere.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from t2i import durable
from t2i.errors import ModelError, StorageError

MANIFEST = "MANIFEST.json"
HANDOFF_LIMIT = 60 * 2**20


def save_checkpoint(
    folder: Path, step: int, groups: Mapping[str, Mapping[str, Tensor]], state: dict[str, Any], keep: int
) -> Path:
    """Write `checkpoint-<step>` below `folder`, read it back, then drop all but the newest `keep`.

    Args:
        folder: Where the checkpoints of one stage are.
        step: Optimizer steps done.
        groups: File name without suffix → tensors, such as {"weights": …, "ema": …, "optimizer": …}.
        state: Anything else that resuming needs, as plain JSON values.
        keep: Checkpoints left afterwards, at least 1.

    Raises:
        StorageError: No space or no permission; the checkpoints before stay as they were.
    """
    path = folder / f"checkpoint-{step:08d}"
    if path.exists():  # a verified one of this very step is the same bits; a torn one is not worth keeping
        if verify_checkpoint(path):
            return path
        _drop(path)
    durable.check_room(path, sum(_size(tensors) for tensors in groups.values()))
    with durable.staged_folder(path) as staged:
        for name, tensors in groups.items():
            save_file(
                {key: value.contiguous() for key, value in tensors.items()}, staged / f"{name}.safetensors"
            )
            durable.fault_point("checkpoint.save")
        durable.write_json(staged / "state.json", state)
        digests = {file.name: durable.sha256_file(file) for file in sorted(staged.iterdir())}
        durable.write_json(staged / MANIFEST, digests)
    if not verify_checkpoint(path):
        raise StorageError(f"{path} does not read back as written", "check the disk")
    for old in list_checkpoints(folder)[:-keep]:
        _drop(old)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first, verified or not."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if re.fullmatch(r"checkpoint-\d{8}", path.name))


def step_of(path: Path) -> int:
    """The step of a checkpoint folder, by its name."""
    return int(path.name.removeprefix("checkpoint-"))


def verify_checkpoint(path: Path) -> bool:
    """True if every file that the manifest names is there with the bytes it had."""
    try:
        digests = json.loads((path / MANIFEST).read_text())
        return bool(digests) and all(durable.sha256_file(path / name) == digests[name] for name in digests)
    except (OSError, ValueError):
        return False


def newest_checkpoint(folder: Path) -> tuple[Path | None, list[Path]]:
    """The newest verified checkpoint, and the newer ones that are torn."""
    torn: list[Path] = []
    for path in reversed(list_checkpoints(folder)):
        if verify_checkpoint(path):
            return path, torn
        torn.append(path)
    return None, torn


def load_state(path: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, after all of the checkpoint has been verified.

    Raises:
        ModelError: Not a checkpoint, or a file differs from the manifest.
    """
    if not verify_checkpoint(path):
        raise ModelError(f"{path} is not a whole checkpoint", "use --resume latest for the newest whole one")
    state: dict[str, Any] = json.loads((path / "state.json").read_text())
    return state


def load_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The groups and the state that `save_checkpoint` wrote.

    Raises:
        ModelError: As `load_state`.
    """
    state = load_state(path)
    return {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}, state


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed process left anywhere below; only safe while the run is locked."""
    for path in list(folder.rglob(f"{durable.TEMPORARY_PREFIX}*")):
        durable.remove(path)


def _size(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of tensors, without the header of their file."""
    return sum(value.numel() * value.element_size() for value in tensors.values())


def _drop(path: Path) -> None:
    """Take the name away first, so that a kill in the middle leaves no torn checkpoint to be found."""
    aside = durable.temporary_path(path)
    os.rename(path, aside)
    durable.fault_point("checkpoint.rotate")
    durable.remove(aside)


@dataclass(frozen=True)
class Handoff:
    """What carries a run elsewhere.

    Attributes:
        weights: Parameter name → value.
        ema: Their average.
        step: Optimizer steps done.
        stage: The stage that was trained, empty in files from before it was kept.
        settings: Settings of the stage with which it must go on.
    """

    weights: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    step: int
    stage: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def save_handoff(path: Path, handoff: Handoff) -> None:
    """Weights and their average as bf16 in one file of at most 60 MiB.

    The raw weights are left out where both do not fit: the average is what a model is made of.

    Raises:
        StorageError: The average alone is over 60 MiB, or the file cannot be written.
    """

    def packed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {f"{prefix}.{name}": value.to(torch.bfloat16).contiguous() for name, value in tensors.items()}

    tensors = packed("ema", handoff.ema or handoff.weights)
    both = tensors | packed("weights", handoff.weights)
    if _size(both) < HANDOFF_LIMIT - 2**20:
        tensors = both
    elif _size(tensors) >= HANDOFF_LIMIT - 2**20:
        raise StorageError(f"a handoff of {_size(tensors) / 2**20:.0f} MiB is over the limit of 60 MiB")
    header = {
        "t2i": "handoff",
        "step": str(handoff.step),
        "stage": handoff.stage,
        "settings": json.dumps(handoff.settings),
    }
    durable.write_with(path, lambda file: save_file(tensors, file, metadata=header))


def load_handoff(path: Path) -> Handoff:
    """A handoff file, its weights as float32.

    Raises:
        ModelError: Missing, or not a handoff.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
    except Exception as error:
        raise ModelError(f"handoff {path} cannot be read: {error}") from error
    if header.get("t2i") != "handoff":
        raise ModelError(f"{path} is not a handoff file", "write one with --save-handoff")
    ema = {name[4:]: value for name, value in tensors.items() if name.startswith("ema.")}
    weights = {name[8:]: value for name, value in tensors.items() if name.startswith("weights.")}
    settings = json.loads(header.get("settings", "{}"))
    return Handoff(weights or dict(ema), ema, int(header["step"]), header.get("stage", ""), settings)
