"""The log of a stage: metrics.jsonl, one line of JSON for each step that is logged."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import IO

from t2i import durable


def open_log(folder: Path, step: int) -> IO[str]:
    """metrics.jsonl in the folder of a stage, cut back to `step`, open for appending.

    Raises:
        StorageError: It cannot be written.
    """
    path = folder / "metrics.jsonl"
    with durable.as_storage_error(path):
        if path.is_file():
            lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            durable.write_bytes(path, "".join(line + "\n" for line in lines).encode())
        folder.mkdir(parents=True, exist_ok=True)
        return open(path, "a", encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line torn by a kill
