"""The drawn dataset, once per session."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import write_dataset


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset folder. Read-only."""
    return write_dataset(tmp_path_factory.mktemp("shapes"))
