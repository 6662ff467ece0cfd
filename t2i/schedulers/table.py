"""The sampling methods a person can name: one row each, read by the command line, the tests and `--help`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from t2i.errors import UsageError


@dataclass(frozen=True)
class Row:
    """One sampling method.

    Attributes:
        name: What a person types.
        class_name: The Diffusers class that does the work.
        source: Paper the method comes from.
        arguments: Solver options that make this row what it is; they win over the checkpoint's.
        order: Order of accuracy of the solver. How often it calls the network is `calls_per_step`.
        stochastic: Draws noise while it runs.
        aliases: Names used elsewhere, AUTOMATIC1111's first.
        needs: A package that this row needs beyond t2i's own, or None.
        calls_per_step: Network calls per step.
        flow_class: The Diffusers class that does it for models of rectified flow; None = no class does.
    """

    name: str
    class_name: str
    source: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    order: int = 1
    stochastic: bool = False
    aliases: tuple[str, ...] = ()
    needs: str | None = None
    calls_per_step: int = 1
    flow_class: str | None = None


# Options by which one Diffusers class becomes several rows; a row says all of them, so that options of
# a checkpoint that uses the same class cannot turn one row into another.
_PLAIN_2M = {
    "algorithm_type": "dpmsolver++",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
}

_ROWS = (
    Row("ddpm", "DDPMScheduler", "Ho et al. 2020, arXiv:2006.11239", stochastic=True, aliases=("DDPM",)),
    Row(
        "ddim",
        "DDIMScheduler",
        "Song et al. 2020, arXiv:2010.02502",
        aliases=("DDIM",),
        flow_class="FlowMatchEulerDiscreteScheduler",  # on straight paths the two make the same step
    ),
    # Without the Runge-Kutta start, as every latent-diffusion checkpoint asks for: then it is PLMS.
    Row(
        "pndm",
        "PNDMScheduler",
        "Liu et al. 2022, arXiv:2202.09778",
        {"skip_prk_steps": True},
        order=4,
        aliases=("PLMS",),
    ),
    Row(
        "euler",
        "EulerDiscreteScheduler",
        "Karras et al. 2022, arXiv:2206.00364",
        aliases=("Euler",),
        flow_class="FlowMatchEulerDiscreteScheduler",
    ),
    Row(
        "euler-a",
        "EulerAncestralDiscreteScheduler",
        "Crowson 2022, k-diffusion; Song et al. 2020, arXiv:2011.13456",
        stochastic=True,
        aliases=("Euler a", "Euler ancestral"),
    ),
    Row(
        "heun",
        "HeunDiscreteScheduler",
        "Karras et al. 2022, arXiv:2206.00364, algorithm 1",
        order=2,
        aliases=("Heun",),
        calls_per_step=2,
        flow_class="FlowMatchHeunDiscreteScheduler",
    ),
    Row(
        "dpm++2m",
        "DPMSolverMultistepScheduler",
        "Lu et al. 2022, arXiv:2211.01095, algorithm 2",
        _PLAIN_2M,
        order=2,
        aliases=("DPM++ 2M",),
        flow_class="DPMSolverMultistepScheduler",
    ),
    Row(
        "dpm++2m-karras",
        "DPMSolverMultistepScheduler",
        "Lu et al. 2022, arXiv:2211.01095; noise levels of Karras et al. 2022, eq. (5)",
        _PLAIN_2M | {"use_karras_sigmas": True},
        order=2,
        aliases=("DPM++ 2M Karras",),
    ),
    # Not DPMSolverSDEScheduler: that one needs torchsde and takes no generator.
    Row(
        "dpm++sde",
        "DPMSolverSinglestepScheduler",
        "Lu et al. 2022, arXiv:2211.01095",
        {
            "algorithm_type": "sde-dpmsolver++",
            "solver_order": 2,
            "lower_order_final": True,  # otherwise the class sets it itself, with a warning, for odd steps
            "use_karras_sigmas": False,
            "use_exponential_sigmas": False,
            "use_beta_sigmas": False,
        },
        order=2,
        stochastic=True,
        aliases=("DPM++ SDE",),
        flow_class="DPMSolverSinglestepScheduler",
    ),
    Row(
        "unipc",
        "UniPCMultistepScheduler",
        "Zhao et al. 2023, arXiv:2302.04867",
        order=2,
        aliases=("UniPC",),
        flow_class="UniPCMultistepScheduler",
    ),
    Row(
        "lcm",
        "LCMScheduler",
        "Luo et al. 2023, arXiv:2310.04378 (for models distilled for it)",
        stochastic=True,
        aliases=("LCM",),
    ),
    Row(
        "lms",
        "LMSDiscreteScheduler",
        "Crowson 2022, k-diffusion (linear multistep)",
        order=4,
        aliases=("LMS",),
        needs="scipy",
    ),
)

SCHEDULERS: dict[str, Row] = {row.name: row for row in _ROWS}


def _key(name: str) -> str:
    """Spelling without what people vary: case, spaces, hyphens, underscores, "pp" for "++"."""
    letters = "".join(letter for letter in name.lower() if letter not in " _-")
    return letters.replace("dpmpp", "dpm++")


def _spellings() -> dict[str, Row]:
    known: dict[str, Row] = {}
    for row in _ROWS:
        for name in (row.name, *row.aliases):
            known.setdefault(_key(name), row)
    for row in _ROWS:  # last, so that a class with two rows means the first of them
        known.setdefault(_key(row.class_name), row)
    return known


def find_row(name: str) -> Row:
    """The row a person means: by its name, AUTOMATIC1111's name or the Diffusers class, in any case.

    Raises:
        UsageError: No such row; the hint has the nearest names.
    """
    known = _spellings()
    row = known.get(_key(name))
    if row is None:
        import difflib

        near = difflib.get_close_matches(_key(name), known, n=4, cutoff=0.5)
        names = dict.fromkeys(known[key].name for key in near)
        hint = f"did you mean {' or '.join(names)}?" if names else f"known: {', '.join(SCHEDULERS)};"
        raise UsageError(f"unknown scheduler {name!r}", f"{hint} `t2i schedulers` lists all")
    return row


def is_available(row: Row) -> bool:
    """Whether the package that the row needs is installed."""
    return row.needs is None or importlib.util.find_spec(row.needs) is not None


def check_available(row: Row) -> None:
    """Refuse a row whose package is missing.

    Raises:
        UsageError: Then.
    """
    if not is_available(row):
        raise UsageError(
            f"scheduler {row.name} needs the package {row.needs}",
            f'pip install "t2i[{row.name}]", or choose another',
        )


def rows() -> list[dict[str, Any]]:
    """The table as plain values, for display and JSON."""
    return [
        {
            "name": row.name,
            "class": row.class_name,
            "flow_class": row.flow_class,
            "order": row.order,
            "calls_per_step": row.calls_per_step,
            "stochastic": row.stochastic,
            "aliases": list(row.aliases),
            "source": row.source,
            "needs": row.needs,
            "available": is_available(row),
        }
        for row in _ROWS
    ]
