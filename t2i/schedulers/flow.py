"""Models of rectified flow: how a configuration tells that it is one, and the scheduler that runs it.

Such a network was taught the velocity ε − x_0 of straight paths x_t = (1−s) x_0 + s ε, with s in [0, 1] told
as the timestep 1000 s (Liu et al. 2022, arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747). Betas have
no part in it; what a checkpoint may say is a shift of the levels that are visited.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from t2i.errors import ModelError, UsageError
from t2i.schedulers.table import SCHEDULERS, Row

FLOW = "flow_prediction"
CLASSES = "FlowMatch"  # how the classes begin that run nothing else and write no prediction type
# Further ways to place the levels, which Diffusers has for networks that are no UNet.
OTHER_LEVELS = (
    "use_dynamic_shifting", "shift_terminal", "invert_sigmas", "stochastic_sampling", "use_karras_sigmas",
    "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas",
)  # fmt: skip


def prediction_type(config: Mapping[str, Any]) -> str:
    """What the network of a checkpoint predicts: "epsilon", "v_prediction", "sample" or "flow_prediction".

    Args:
        config: The checkpoint's scheduler_config.json.
    """
    if str(config.get("_class_name", "")).startswith(CLASSES):
        return FLOW
    return str(config.get("prediction_type", "epsilon"))


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is a model of rectified flow, by its scheduler_config.json."""
    return prediction_type(config) == FLOW


def make_flow_scheduler(row: Row, config: Mapping[str, Any]) -> Any:
    """A scheduler for a model of rectified flow, ready for `set_timesteps`.

    Args:
        row: The method.
        config: The checkpoint's scheduler_config.json: `shift` or `flow_shift` and the number of training
            timesteps are respected; where its class is the row's, solver options as well.

    Raises:
        UsageError: The method has no form for straight paths.
        ModelError: The configuration asks for levels that t2i does not list.
    """
    if row.flow_class is None:
        able = [known.name for known in SCHEDULERS.values() if known.flow_class is not None]
        raise UsageError(
            f"scheduler {row.name} cannot run a model of rectified flow",
            f"choose --scheduler {', '.join(able[:-1])} or {able[-1]}",
        )
    shift = config.get("shift", config.get("flow_shift", 1.0))
    odd = [name for name in OTHER_LEVELS if config.get(name)]
    if isinstance(shift, bool) or not isinstance(shift, (int, float)) or not 0 < shift < float("inf"):
        odd = ["shift"]
    if odd:
        value = shift if odd == ["shift"] else config[odd[0]]
        told = f"scheduler_config.json: {odd[0]} = {str(value)[:40]!r}"
        raise ModelError(f"{told}: t2i runs rectified flow with a fixed shift")

    from t2i.schedulers.flow_solvers import flow_solver

    solver = flow_solver(row.flow_class)
    taken = inspect.signature(solver).parameters
    given = dict(config) if config.get("_class_name") == row.flow_class else {}
    given |= {
        **row.arguments,
        "num_train_timesteps": config.get("num_train_timesteps", 1000),
        "prediction_type": FLOW,
        "use_flow_sigmas": True,
        "final_sigmas_type": "zero",
        "flow_shift": shift,
        "shift": shift,
    }
    try:
        scheduler = solver(**{key: value for key, value in given.items() if key in taken})
    except (NotImplementedError, ValueError) as error:
        raise UsageError(f"scheduler {row.name} cannot run this checkpoint: {error}") from error
    scheduler.register_to_config(prediction_type=FLOW)  # some of the classes have no such argument
    scheduler.stochastic = row.stochastic
    return scheduler
