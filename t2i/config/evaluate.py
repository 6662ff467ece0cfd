"""What `t2i eval` measures, on what, and where the report goes; how it draws stands in `GenerateConfig`."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass
from itertools import product
from typing import Any

from t2i.config.fields import Config, check, flag_of, option
from t2i.config.generate import SEED_LIMIT, GenerateConfig
from t2i.errors import UsageError

SWEPT: dict[str, type] = {
    "steps": int, "guidance_scale": float, "scheduler": str, "width": int, "height": int,
}  # fmt: skip
"""What --sweep may vary, and the type of its values."""
SWEPT_FLAGS = tuple(flag_of(name)[2:] for name in SWEPT)

DEFAULT_NUM_IMAGES = 2
MOST_SETTINGS = 500
SEEDS_PER_PROMPT = 1000
"""Prompt number p starts at seed + p times this, so that no two pictures start from the same noise."""

FIGURES = (
    "adherence", "single object", "two objects", "counting", "colours", "position", "attribute binding",
    "things there", "backgrounds right", "CLIPScore", "FID", "KID", "CMMD", "validation loss", "diversity",
    "diversity in pixels", "seconds per image", "images per second", "peak memory",
)  # fmt: skip
"""Every figure that a report can hold, by name."""

Settings = dict[str, Any]
"""One combination of a sweep: field of `GenerateConfig` → value."""


@dataclass(frozen=True)
class Requirement:
    """What a figure must reach.

    Attributes:
        figure: One of `FIGURES`.
        at_least: Whether the bound is a lower one.
        bound: In the unit of the figure; of a share 0...1.
        text: As it was given.
    """

    figure: str
    at_least: bool
    bound: float
    text: str

    def is_met(self, value: float) -> bool:
        """Whether a figure of this value will do."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass(frozen=True)
class EvaluateConfig(Config):
    """One `t2i eval` run. `None` means not given."""

    prompts: str | None = option(
        None, "a suite (pocket) or a file: .txt with a prompt a line, .jsonl; default: pocket"
    )
    images: str | None = option(None, "measure the pictures of this folder instead of drawing any")
    reference: str | None = option(
        None, "folder of real pictures for FID, KID and CMMD; with captions also for the validation loss"
    )
    reference_limit: int = option(5000, "most reference pictures used, spread evenly", low=2, high=1_000_000)
    clip: str | None = option(
        None, "CLIP model for CLIPScore and CMMD: a folder or Hub id with safetensors", "--clip-model"
    )
    features: str = option(
        "recogniser",
        "network whose features FID, KID and diversity compare; clip needs --clip",
        choices=("recogniser", "clip"),
    )
    num_images: int | None = option(
        None, f"pictures per prompt; default: {DEFAULT_NUM_IMAGES}", "-N", "--batch-count",
        low=1, high=SEEDS_PER_PROMPT,
    )  # fmt: skip
    seed: int | None = option(
        None, f"start noise; prompt p begins at seed + {SEEDS_PER_PROMPT} p; default: 0", "-s",
        low=0, high=SEED_LIMIT // 2,
    )  # fmt: skip
    limit: int | None = option(
        None, "use only this many prompts, of all categories in turn; default: all", low=1, high=1_000_000
    )
    sweep: tuple[str, ...] = option(
        (), f"NAME=VALUE,VALUE…; repeat it for every combination; NAME: {', '.join(SWEPT_FLAGS)}"
    )
    require: tuple[str, ...] = option(
        (), 'exit 1 unless a figure is so good, as "counting>=80%" or "FID<=20"; repeatable'
    )
    validation_rows: int = option(
        64, "captioned reference pictures for the validation loss; 0 = off", low=0, high=100_000
    )
    bootstrap: int = option(200, "resamples for each interval; 0 = no intervals", low=0, high=100_000)
    report_pictures: int = option(400, "most pictures shown in report.html", low=0, high=100_000)
    output: str = option("runs/eval", "folder for the report and the drawn pictures", "-o", "--outdir")
    overwrite: bool = option(False, "replace an earlier report in that folder")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images is not None:
            for name in ("num_images", "seed", "limit"):
                if getattr(self, name) is not None:
                    raise UsageError(f"{flag_of(name)} says how to draw, and with --images nothing is drawn")
            if self.sweep:
                raise UsageError("--sweep varies how pictures are drawn, and with --images nothing is drawn")
        if self.features == "clip" and self.clip is None:
            raise UsageError("--features clip needs a CLIP model", "name one with --clip")
        _ = self.settings, self.requirements

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """What --require asks for.

        Raises:
            UsageError: Not NAME>=VALUE or NAME<=VALUE, or an unknown figure.
        """
        return tuple(map(parse_requirement, self.require))

    @property
    def settings(self) -> tuple[Settings, ...]:
        """Every combination of --sweep, in the order given; one empty one without a sweep.

        Raises:
            UsageError: Not NAME=VALUES, an unknown or repeated name, or a value out of its bounds.
        """
        axes: dict[str, list[Any]] = {}
        for text in self.sweep:
            name, values = parse_sweep(text)
            if name in axes:
                raise UsageError(
                    f"--sweep {text}: {flag_of(name)[2:]} was given before", "list all its values"
                )
            axes[name] = values
        count = math.prod(map(len, axes.values()))
        if count > MOST_SETTINGS:
            raise UsageError(f"--sweep: {count} combinations, at most {MOST_SETTINGS}")
        return tuple(dict(zip(axes, values, strict=True)) for values in product(*axes.values()))


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """ "steps=5,10,20" as ("steps", [5, 10, 20]); each value once, checked as `t2i generate` would.

    Raises:
        UsageError: Anything else, in one line.
    """
    typed, equals, listed = text.partition("=")
    name = typed.strip().lstrip("-").replace("-", "_")
    options = GenerateConfig.options()
    for known in SWEPT:
        if name in {flag.lstrip("-").replace("-", "_") for flag in options[known].names}:
            name = known
    if not equals or not listed.strip():
        raise UsageError(f"--sweep {text}: not NAME=VALUE,VALUE", "for example --sweep steps=5,10,20")
    if name not in SWEPT:
        near = difflib.get_close_matches(name, SWEPT, n=1)
        hint = f"did you mean {flag_of(near[0])[2:]}?" if near else ""
        known_names = f"known: {', '.join(SWEPT_FLAGS)}"
        raise UsageError(f"--sweep {text}: {typed.strip()!r} cannot be varied", hint or known_names)
    values: list[Any] = []
    for part in listed.split(","):
        try:
            value = SWEPT[name](part.strip())
        except ValueError:
            kind = "a whole number" if SWEPT[name] is int else "a number"
            raise UsageError(f"--sweep {text}: {part.strip()!r} is not {kind}") from None
        if value == "":
            raise UsageError(f"--sweep {text}: a value is missing")
        check(name, value, options[name])
        if value not in values:
            values.append(value)
    return name, values


def parse_requirement(text: str) -> Requirement:
    """ "counting>=80%" as a requirement.

    Raises:
        UsageError: Anything else, in one line.
    """
    parts = re.fullmatch(r"\s*(.+?)\s*(>=|<=)\s*([0-9.eE+-]+)\s*(%?)\s*", text)
    try:
        bound = float(parts[3]) if parts else math.nan
    except ValueError:
        bound = math.nan
    if parts is None or not math.isfinite(bound):
        raise UsageError(f"--require {text}: not NAME>=NUMBER or NAME<=NUMBER", 'as "counting>=80%"')
    names = {name.lower(): name for name in FIGURES}
    typed = parts[1].lower().replace("-", " ").replace("_", " ")
    if typed not in names:
        near = difflib.get_close_matches(typed, names, n=1)
        hint = f"did you mean {names[near[0]]}?" if near else f"known: {', '.join(FIGURES)}"
        raise UsageError(f"--require {text}: no figure is called {parts[1]!r}", hint)
    return Requirement(names[typed], parts[2] == ">=", bound / 100 if parts[4] else bound, text)
