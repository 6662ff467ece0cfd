"""t2i: text to image from the command line and from Python.

    import t2i

    for picture in t2i.generate(t2i.GenerateConfig(prompts=("a corgi playing a trumpet",), seed=1)):
        picture.pixels  # uint8, (H, W, 3)

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from t2i.version import __version__

__all__ = ["GenerateConfig", "__version__", "generate"]

_HOMES = {"generate": "t2i.pipeline", "GenerateConfig": "t2i.config"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 't2i' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
