"""kill -9 at any moment of training: the resumed run ends in the bits of one that was never killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import small_config

from t2i.training import train


def kill(shapes: Path, tmp_path: Path, kills: int) -> list[dict[str, object]]:
    prepared = tmp_path / "prepared"
    for method in ("vae", "clip"):
        list(train(small_config(shapes, prepared, method=method)))
    script = Path(__file__).with_name("victims.py")
    arguments = [str(shapes), str(prepared), str(tmp_path), str(kills)]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(rows: list[dict[str, object]]) -> None:
    assert [row for row in rows if row["resumed"] != 0 or not row["same"] or row["rubbish"]] == []
    assert all(row["killed"] for row in rows), "a fault point was never reached"
    # After the first save there is a whole checkpoint at every instant, whatever was being done.
    early = ("checkpoint.save:2", "best.save:2")
    assert [row for row in rows if row["survivor"] is None and row["kill"] not in early] == []


def test_kill_and_resume(shapes: Path, tmp_path: Path) -> None:
    check(kill(shapes, tmp_path, kills=3))


@pytest.mark.slow
def test_kill_and_resume_a_hundred_times(shapes: Path, tmp_path: Path) -> None:
    check(kill(shapes, tmp_path, kills=100))
