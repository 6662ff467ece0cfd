"""What a stage starts from: parts of a model, a checkpoint; refused at once where it cannot be had."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i import checkpoints, weights
from t2i.config import TrainConfig
from t2i.errors import ModelError
from t2i.methods import METHODS
from t2i.training.folder import CHECKPOINTS, PARTS, stages_of
from t2i.training.resuming import check_resumable


def check_start(config: TrainConfig) -> None:
    """Refuse a run whose model or checkpoint is missing or does not fit, before the dataset is decoded.

    Raises:
        ModelError: Then. Shapes that do not fit show only when the parts are loaded.
    """
    there = set() if config.model is None else _parts_of_use(Path(config.model), stages_of(config))
    if config.method == "scratch":
        return  # each stage builds on those before it
    builds_on, own = METHODS[config.method].builds_on, Path(config.output) / PARTS
    if config.model is None and builds_on and own.is_dir():
        there = weights.find_parts(own)
    for name in builds_on:
        if name not in there:
            raise ModelError(
                f"--method {config.method} needs a trained {name}, and {config.model or own} has none",
                "train it first (--method vae, --method clip) or use --method scratch",
            )
    _check_checkpoint(config, config.method)


def start_parts(config: TrainConfig, stage: str) -> dict[str, Any]:
    """The parts that a stage builds on or begins with: of --model, or those that this run has trained."""
    builds_on = METHODS[stage].builds_on
    found = {} if config.model is None else weights.load_parts(Path(config.model))
    own = Path(config.output) / PARTS
    if builds_on and own.is_dir() and (config.model is None or config.method == "scratch"):
        found |= weights.load_parts(own, only=builds_on)
    return found


def _check_checkpoint(config: TrainConfig, stage: str) -> None:
    if config.resume is None:
        return
    if config.resume != "latest":
        chosen = Path(config.resume)
        check_resumable(chosen, checkpoints.load_state(chosen), config, stage)
        return
    folder = Path(config.output) / stage / CHECKPOINTS
    if checkpoints.newest_checkpoint(folder)[0] is None:
        raise no_whole_checkpoint(folder)


def no_whole_checkpoint(folder: Path) -> ModelError:
    """The failure of a run that is to be resumed and cannot."""
    return ModelError(f"no whole checkpoint in {folder}", "train anew: --overwrite, no --resume")


def _parts_of_use(model: Path, stages: Sequence[str]) -> set[str]:
    """The parts that a model has; refused if no stage would take any of them."""
    there = weights.find_parts(model)
    methods = [METHODS[stage] for stage in stages]
    wanted = dict.fromkeys(name for method in methods for name in method.builds_on + method.goes_on_with)
    if not there & {*wanted}:
        inner = [model / name for name in ("model", PARTS) if (model / name).is_dir()]
        hint = f"did you mean {inner[0]}?" if inner else "give a model folder, or OUTPUT/parts of a run"
        raise ModelError(f"--model {model} holds no {' or '.join(wanted)}", hint)
    return there
