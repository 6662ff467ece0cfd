"""Whatever needs no tensor starts without the libraries that take seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from t2i import images
from t2i.cli import COMMANDS

HEAVY = ("torch", "diffusers", "transformers", "accelerate", "peft", "numpy")

# Runs several command lines in one fresh interpreter, and says after each what has been imported.
PROBE = """
import contextlib, io, json, sys
from t2i.cli import run
for line in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = run(line)
    print(json.dumps([line, code, [name for name in sys.argv[2].split() if name in sys.modules]]))
"""


def test_commands_that_draw_nothing_import_nothing_heavy(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    images.save(picture, np.zeros((4, 4, 3), np.uint8), None, "minimal")
    lines = [
        [],
        ["--help"],
        ["--version"],
        *[[command, "--help"] for command in COMMANDS],
        ["data"],
        ["data", "check", "--help"],
        ["version"],
        ["models"],
        ["models", "show", "sdxl"],
        ["models", "--json"],
        ["schedulers"],
        ["schedulers", "--json"],
        ["show", str(picture)],
        ["nonsense"],
        ["generate"],
        ["generate", "--stepz", "3"],
        ["generate", "a dog", "--steps", "0"],
        ["generate", "a dog", "--width", "100"],
        ["generate", "a dog", "--scheduler", "eulr"],
        ["generate", "a dog", "-o", "x.gif"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(lines), " ".join(HEAVY)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line for line, _, _ in results] == lines
    assert [(line, heavy) for line, _, heavy in results if heavy] == []
    codes = [code for _, code, _ in results]
    assert codes[: -len(lines) + codes.index(4)] == [0] * codes.index(4)  # show finds no recipe: 4
    assert codes[codes.index(4) + 1 :] == [2] * 7


def test_importing_t2i_imports_nothing_heavy() -> None:
    code = f"import sys, t2i, t2i.cli, t2i.config; sys.exit(any(name in sys.modules for name in {HEAVY}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_command_imports_no_other() -> None:
    code = "import sys; from t2i.cli import run; run(['version']); sys.exit('t2i.batch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_garbage_waits_until_a_model_is_loaded() -> None:
    """In a process of its own: what is frozen stays frozen."""
    code = """
import gc
from t2i.environment import collecting_later
try:
    with collecting_later():
        assert not gc.isenabled()
        raise ValueError
except ValueError:
    pass
assert gc.isenabled() and gc.get_freeze_count() > 0
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_offers_its_names_lazily() -> None:
    import t2i

    assert t2i.GenerateConfig.__name__ == "GenerateConfig"
    assert set(t2i.__all__) <= set(dir(t2i))
    with pytest.raises(AttributeError, match="nothing"):
        t2i.nothing  # noqa: B018


def test_help_takes_at_most_half_the_time_of_importing_torch() -> None:
    def seconds(*command: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return time.perf_counter() - start

    for _ in range(3):  # another process may have taken the cores meanwhile
        if seconds("-m", "t2i", "--help") <= 0.5 * seconds("-c", "import torch"):
            return
    pytest.fail("--help takes more than half the time of importing torch")
