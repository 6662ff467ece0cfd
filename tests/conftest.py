"""What every test relies on: no network, no user cache, one thread; and the tiny models as fixtures.

`tiny_sd1`, `tiny_sd2`, `tiny_sdxl` and `tiny_pocket` are model folders, made once per session. Treat them as
read-only; copy one (`copy_model`) to change it.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Two threads that share busy cores wait for each other ten times longer than they work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
os.environ["HF_HOME"] = os.path.join(tempfile.gettempdir(), f"t2i-tests-{os.getpid()}", "hub")
os.environ["XDG_CACHE_HOME"] = os.path.join(tempfile.gettempdir(), f"t2i-tests-{os.getpid()}", "cache")

import pytest
from command_line import Run, run_line
from tiny_models import save_pocket, save_sd1, save_sd2, save_sdxl


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's tiny models are."""
    return tmp_path_factory.mktemp("models")


def _made(folder: Path, save: Callable[[Path], None]) -> Path:
    if not folder.exists():
        save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sd1(models_folder: Path) -> Path:
    """Folder of the miniature Stable Diffusion 1."""
    return _made(models_folder / "tiny-sd1", save_sd1)


@pytest.fixture(scope="session")
def tiny_sd2(models_folder: Path) -> Path:
    """Folder of the miniature Stable Diffusion 2 (v-prediction)."""
    return _made(models_folder / "tiny-sd2", save_sd2)


@pytest.fixture(scope="session")
def tiny_sdxl(models_folder: Path) -> Path:
    """Folder of the miniature SDXL."""
    return _made(models_folder / "tiny-sdxl", save_sdxl)


@pytest.fixture(scope="session")
def tiny_pocket(models_folder: Path) -> Path:
    """Folder of the miniature pocket."""
    return _made(models_folder / "tiny-pocket", save_pocket)


@pytest.fixture
def copy_model(tmp_path: Path) -> Callable[[Path], Path]:
    """A function that copies a model folder to a place the test may change."""

    def copy(folder: Path) -> Path:
        target = tmp_path / f"copy-of-{folder.name}"
        shutil.copytree(folder, target)
        return target

    return copy


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run command lines in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return functools.partial(run_line, capsys)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every attempt to open a connection or look up a name fail the test."""
    import socket

    def refuse(*arguments: Any, **_: Any) -> Any:
        raise AssertionError(f"a connection was tried: {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For a module whose tensors are so small that two threads cost more than they bring."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
