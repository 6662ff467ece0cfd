"""Scheduler names, and making the Diffusers scheduler that a name and a checkpoint's configuration ask for.

What belongs to the checkpoint (betas, prediction type, timestep spacing) is always respected; what
belongs to the solver comes from the row. torch and Diffusers are imported when a scheduler is made.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from t2i.errors import ModelError, UsageError
from t2i.schedulers.flow import is_flow, make_flow_scheduler, prediction_type
from t2i.schedulers.table import SCHEDULERS, Row, check_available, find_row, is_available, rows

__all__ = [
    "SCHEDULERS",
    "Row",
    "check_available",
    "find_row",
    "is_available",
    "is_flow",
    "make_scheduler",
    "prediction_type",
    "row_for_class",
    "rows",
    "set_timesteps",
]

# What the checkpoint was trained with, whichever solver runs it. A key that the checkpoint does not
# write keeps the default of the class that runs: so does `from_config` in Diffusers.
MODEL_KEYS = ("trained_betas", "prediction_type", "timestep_spacing", "steps_offset", "set_alpha_to_one")
# Defaults of these differ between classes and would change the noise schedule itself: they are taken
# from the checkpoint's own class when it does not write them.
BETA_KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
# Latents have no fixed range, so clipping x̂_0 to [−1, 1], a default of DDIM and DDPM, destroys them.
LATENT_ARGUMENTS = {"clip_sample": False}
NO_SAMPLE_PREDICTION = ("PNDMScheduler", "EulerAncestralDiscreteScheduler")
OTHER_PROCESS = ("EDM", "VQDiffusion", "ScoreSde", "CogVideo")


def row_for_class(class_name: str, config: Mapping[str, Any]) -> str:
    """The name of the row that runs a checkpoint's own scheduler.

    Args:
        class_name: `_class_name` of the checkpoint's scheduler_config.json.
        config: The whole of that file.

    Raises:
        ModelError: The noise process is not the one of these models.
        UsageError: The process fits, but no row has this solver; the hint has near ones.
    """
    if class_name.startswith(OTHER_PROCESS):
        raise ModelError(f"{class_name} describes another noise process than t2i's schedulers run")
    sde = str(config.get("algorithm_type", "")).startswith("sde")
    if class_name == "DPMSolverMultistepScheduler" and not sde:
        return "dpm++2m-karras" if config.get("use_karras_sigmas") else "dpm++2m"
    if class_name == "DPMSolverSinglestepScheduler" and not sde:
        raise UsageError("the checkpoint's own scheduler has no row here", "choose --scheduler dpm++2m")
    for row in reversed(SCHEDULERS.values()):  # the last of two rows: euler, not ddim, for flow matching
        mine = (row.class_name, row.flow_class if is_flow(config) else None)
        if class_name in mine and row.name not in ("dpm++2m", "dpm++2m-karras"):
            return row.name
    named = {row.class_name: row.name for row in SCHEDULERS.values()}
    near = [named[name] for name in difflib.get_close_matches(class_name, named, n=2, cutoff=0.6)]
    raise UsageError(
        f"the checkpoint's own scheduler {class_name} has no row here",
        f"choose one with --scheduler, such as {' or '.join(near or ['dpm++2m', 'euler'])}",
    )


def make_scheduler(name: str | None, scheduler_config: Mapping[str, Any]) -> Any:
    """A scheduler for a checkpoint, ready for `set_timesteps`.

    Args:
        name: A row by any of its names, or None for the checkpoint's own.
        scheduler_config: The checkpoint's scheduler_config.json. If its class is the row's class, its
            solver options (`variance_type`, `solver_order`, …) are kept as well.

    Returns:
        A Diffusers scheduler of a subclass that stays on the noise levels it lists. Its `stochastic`
        says whether it draws noise. With `rescale_betas_zero_snr` the betas are given to every class
        alike, as `trained_betas`, with a last ᾱ of 2⁻²⁴.

    Raises:
        UsageError: Unknown name, a missing package, or a configuration that the row cannot run.
        ModelError: The checkpoint's noise process is another one.
    """
    own_class = scheduler_config.get("_class_name", "DDPMScheduler")
    own_name = None if name else row_for_class(own_class, scheduler_config)
    if own_class.startswith(OTHER_PROCESS):
        row_for_class(own_class, scheduler_config)  # raises: no row can run this process
    row = find_row(name or own_name or "")
    check_available(row)
    if is_flow(scheduler_config):
        return make_flow_scheduler(row, scheduler_config)
    if scheduler_config.get("prediction_type") == "sample" and row.class_name in NO_SAMPLE_PREDICTION:
        raise UsageError(
            f"scheduler {row.name} cannot run a model that predicts the sample", "try --scheduler ddim"
        )

    from t2i.schedulers.solvers import solver_class

    solver = solver_class(row.class_name)
    taken = inspect.signature(solver).parameters
    given = dict(scheduler_config) if own_class == row.class_name else {}
    given |= {key: scheduler_config[key] for key in MODEL_KEYS if key in scheduler_config}
    given |= _noise_schedule(own_class, scheduler_config) | LATENT_ARGUMENTS | dict(row.arguments)
    try:
        scheduler = solver(**{key: value for key, value in given.items() if key in taken})
    except (NotImplementedError, ValueError) as error:
        raise UsageError(f"scheduler {row.name} cannot run this checkpoint: {error}") from error
    scheduler.stochastic = row.stochastic
    if row.class_name == "DPMSolverSinglestepScheduler":  # its constructor has no such arguments
        scheduler.timestep_spacing = scheduler_config.get("timestep_spacing", scheduler.timestep_spacing)
        scheduler.steps_offset = scheduler_config.get("steps_offset", scheduler.steps_offset)
    return scheduler


def _noise_schedule(own_class: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for the checkpoint's betas, the same for every class."""
    import diffusers

    from t2i.schedulers.solvers import terminal_betas

    defaults = inspect.signature(getattr(diffusers, own_class, diffusers.DDPMScheduler)).parameters
    known = {key: defaults[key].default for key in BETA_KEYS if key in defaults}
    betas = known | {key: config[key] for key in BETA_KEYS if key in config}
    if not config.get("rescale_betas_zero_snr"):
        return betas
    rescaled = diffusers.DDIMScheduler(
        **betas, trained_betas=config.get("trained_betas"), rescale_betas_zero_snr=True
    ).betas
    return betas | {"trained_betas": terminal_betas(rescaled), "rescale_betas_zero_snr": False}


def set_timesteps(scheduler: Any, steps: int, device: Any = None) -> None:
    """Have a scheduler list its timesteps, and refuse a list that cannot be walked.

    Call it before every run: it also clears what the solver remembers of the last one.

    Args:
        scheduler: From `make_scheduler`.
        steps: Denoising steps.
        device: Where `timesteps` will be.

    Raises:
        UsageError: The scheduler has no such number of steps: too many for the training timesteps,
            levels that repeat, or a list of another length.
    """
    kind, flow = type(scheduler).__name__, is_flow(scheduler.config)
    try:
        scheduler.set_timesteps(steps, device=device)
    except ValueError as error:
        limit = scheduler.config.get("original_inference_steps", scheduler.config.num_train_timesteps)
        raise UsageError(f"--steps {steps}: {kind} takes at most {limit}", f"try --steps {limit}") from error
    timesteps = scheduler.timesteps.tolist()
    if len(timesteps) != scheduler.calls(steps):
        raise UsageError(
            f"--steps {steps}: {kind} lists {len(timesteps)} timesteps", "try one step more or less"
        )
    levels = scheduler.sigmas.tolist() if hasattr(scheduler, "sigmas") else timesteps
    repeats = len(levels) - len(set(levels))
    allowed = len(timesteps) - steps  # Heun lists all but the first level twice, PNDM its second timestep
    if (
        repeats > max(allowed, 0)
        or max(timesteps) >= scheduler.config.num_train_timesteps + flow  # pure noise is 1000, else 999
        or min(timesteps) < 0
    ):
        raise UsageError(f"--steps {steps}: too many for {kind} on this model", "try fewer steps")
