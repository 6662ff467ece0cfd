"""What may change between a checkpoint and the run that goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2i.errors import ModelError

# What may differ between a checkpoint and the run that resumes it without changing the bits of a step.
FREE_ON_RESUME = {
    "dataset", "output", "model", "resume", "handoff", "save_handoff", "method", "device", "max_train_time",
    "checkpointing_steps", "checkpoints_total_limit", "log_steps", "sample_steps", "sample_prompts",
    "guidance_scale", "sampling_steps", "save_dtype",
}  # fmt: skip
# These change the rest of the run on purpose (train longer): allowed, said, and recorded as not exact.
RECORDED_ON_RESUME = {
    "max_train_steps", "lr_decay", "learning_rate", "lr_warmup_steps", "weight_decay", "ema_decay",
    "snr_gamma", "timestep_sampling", "logit_mean", "logit_std", "compile", "num_processes",
}  # fmt: skip


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ and are allowed to; one that is not allowed to is refused.

    Raises:
        ModelError: The checkpoint was made with other settings that shape the model or the data.
    """
    changed = [name for name in now if before.get(name) != now[name] and name not in FREE_ON_RESUME]
    for name in changed:
        if name not in RECORDED_ON_RESUME:
            raise ModelError(
                f"the checkpoint was made with {name} {before.get(name)}, this run asks for {now[name]}",
                "resume with the same settings",
            )
    return changed
