"""What may change between a checkpoint, or a handoff, and the run that goes on from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from t2i import checkpoints
from t2i.config import TrainConfig, flag_of
from t2i.errors import ModelError
from t2i.methods import Method, TrainingData, update_digest

# What may differ between a checkpoint and the run that resumes it without changing the bits of a step.
FREE_ON_RESUME = {
    "dataset", "output", "overwrite", "model", "resume", "handoff", "save_handoff", "method", "device",
    "max_train_time", "checkpointing_steps", "checkpoints_total_limit", "log_steps", "sample_steps",
    "sample_prompts", "guidance_scale", "sampling_steps", "save_dtype", "gradient_checkpointing",
    "lora_format", "validation_steps", "report_to", "memorisation_samples", "conditioning_images",
    "perceptual_model",
    # What these change is seen in the pictures and captions.
    "follow_symlinks", "max_bad", "alpha_background", "image_column", "caption_column", "dataset_config",
    "offline",
}  # fmt: skip
# These change the rest of the run on purpose (train longer): allowed, said, and recorded as not exact.
RECORDED_ON_RESUME = {
    "max_train_steps", "lr_decay", "learning_rate", "lr_warmup_steps", "weight_decay", "ema_decay",
    "snr_gamma", "timestep_sampling", "logit_mean", "logit_std", "latent_weighting", "compile",
    "num_processes",
    "epochs", "lr_scheduler", "lr_power", "noise_offset", "input_perturbation", "lora_dropout",
    "prior_weight", "perceptual_weight", "optimizer", "batch_size", "gradient_accumulation_steps",
}  # fmt: skip
# A condition by its own name: before it was told by content, it was "dataset" and told by the files' times.
DATA = "pictures and captions"


def changed_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], stage: str, made: str = "the checkpoint"
) -> list[str]:
    """Settings of a stage that differ and are allowed to; one that is not allowed to is refused.

    Args:
        before: The settings then; one that is not there is no difference.
        now: The settings of this run.
        stage: Which; what it does not look at may be anything.
        made: What was made with `before`, for the message.

    Raises:
        ModelError: It was made with other settings that shape the model or the data.
    """
    free = FREE_ON_RESUME | {name for name, only in _uses().items() if only and stage not in only}
    changed = [name for name in now if name in before and before[name] != now[name] and name not in free]
    for name in changed:
        if name not in RECORDED_ON_RESUME:
            raise ModelError(
                f"{made} was made with {name} {before[name]}, this run asks for {now[name]}",
                f"give the same {flag_of(name)}, or train anew in another --output",
            )
    return changed


def _uses() -> dict[str, tuple[str, ...]]:
    """Setting → the methods that look at it; empty: all of them."""
    return {name: described.only for name, described in TrainConfig.options().items()}


def check_resumable(path: Path, state: Mapping[str, Any], config: TrainConfig, stage: str) -> list[str]:
    """`changed_settings` of a checkpoint, after a look at its stage.

    Raises:
        ModelError: It is of another stage, or made with other settings that shape the model or the data.
    """
    if state["stage"] != stage:
        raise ModelError(
            f"{path} is a checkpoint of {state['stage']}, this run trains {stage}",
            f"give --method {state['stage']}",
        )
    # What did not exist yet had its default; None stands for what the base model says.
    defaults = {item.name: item.default for item in fields(TrainConfig) if item.default is not None}
    return changed_settings(defaults | state["config"], config.to_dict(), stage)


def dataset_digest(data: TrainingData) -> str:
    """Changes with any picture, caption or their order, what is held out, class and conditioning pictures."""
    parts = [data.key, *data.captions]
    if data.conditioning_key:
        parts.append(f"conditioning {data.conditioning_key}")
    if data.held_out:
        parts.append(f"held out {sorted(data.held_out)}")
    if data.prior is not None:
        parts += [data.prior.key, data.prior.captions[0]]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def conditions_of(method: Method, data: TrainingData, precision: str, device: str) -> dict[str, str]:
    """What the bits of a step depend on besides the settings and the checkpoint."""
    digest = hashlib.sha256()
    for name, part in sorted(method.frozen().items()):
        digest.update(name.encode())
        if isinstance(part, nn.Module):
            update_digest(digest, part.state_dict())
        elif isinstance(part, str):  # what a base model's files are is known already
            digest.update(part.encode())
        else:  # of a tokenizer's file, only the vocabulary and merges: the rest is how it was last called
            digest.update(json.dumps(json.loads(part.backend_tokenizer.to_str())["model"]).encode())
    frozen = digest.hexdigest()[:16]
    return {
        DATA: dataset_digest(data),
        "frozen parts": frozen,
        "precision": precision,
        "device": device,
    }


def changed_conditions(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Conditions that differ, and those that a checkpoint from before they were kept does not tell."""
    changed = [name for name in now if name in before and before[name] != now[name]]
    return changed, [name for name in now if name not in before]


def handoff_settings(config: TrainConfig, stage: str) -> dict[str, Any]:
    """The settings of a stage with which its handoff must go on: those that shape the model and its task."""
    values = config.to_dict()
    own = {name for name, only in _uses().items() if stage in only}
    return {name: values[name] for name in sorted(own - RECORDED_ON_RESUME - FREE_ON_RESUME)}


def read_handoff(path: Path, config: TrainConfig, stage: str) -> checkpoints.Handoff:
    """A handoff that this stage can go on from.

    Raises:
        ModelError: Not a handoff, or one of another stage or of a model of another shape.
    """
    handoff = checkpoints.load_handoff(path)
    if handoff.stage not in (stage, ""):
        raise ModelError(
            f"handoff {path} is of stage {handoff.stage}, this run trains {stage}",
            f"give --method {handoff.stage}",
        )
    changed_settings(handoff.settings, config.to_dict(), stage, f"handoff {path}")
    return handoff
