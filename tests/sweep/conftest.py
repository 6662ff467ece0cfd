"""The browser that the report of a batch is looked at with."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "batch"))
