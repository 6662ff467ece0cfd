"""LoRA files of the tiny models, made once per session; treat them as read-only."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_loras import make_lora


@pytest.fixture(scope="session")
def loras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the session's LoRA files."""
    return tmp_path_factory.mktemp("loras")


@pytest.fixture(scope="session")
def pocket_lora(loras: Path, tiny_pocket: Path) -> Path:
    """A LoRA for `tiny_pocket`, in PEFT's format."""
    return make_lora(loras / "corgi.safetensors", tiny_pocket)
