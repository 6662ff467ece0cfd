"""What a stage tells of itself besides its figures: notices, seconds in each phase, what it works on.

`journal.json` in the folder of the stage is written with each checkpoint; the page of the run is made of it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from t2i import durable

FILE = "journal.json"


class Journal:
    """The journal of one stage.

    Args:
        folder: Of the stage.
        step: At which it begins or goes on; what was told after it is forgotten.
    """

    def __init__(self, folder: Path, step: int) -> None:
        before = read_journal(folder) if step else {}
        self.path = folder / FILE
        self.run_id: str = before.get("run_id") or uuid.uuid4().hex[:12]
        self.notices: list[dict[str, Any]] = [
            notice for notice in before.get("notices", []) if notice["step"] <= step
        ]
        self.seconds: dict[str, float] = dict(before.get("seconds", {}))
        self.about: dict[str, Any] = dict(before.get("about", {}))

    def tell(self, step: int, text: str) -> None:
        """Keep a line for a person."""
        self.notices.append({"step": step, "text": text})

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to a phase."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began

    def save(self, step: int) -> None:
        """Write it, whole or not at all."""
        self.about["peak_memory_bytes"] = max(self.about.get("peak_memory_bytes", 0), peak_memory_bytes())
        values = {
            "step": step,
            "run_id": self.run_id,
            "about": self.about,
            "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
            "notices": self.notices,
        }
        durable.write_json(self.path, values)


def read_journal(folder: Path) -> dict[str, Any]:
    """The journal of a stage as it was written; empty where there is none."""
    try:
        values = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def peak_memory_bytes() -> int:
    """The most that this process has held: on the GPU if it has used one, else in main memory."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if _counts_bytes() else peak * 1024


def _counts_bytes() -> bool:
    import sys

    return sys.platform == "darwin"
