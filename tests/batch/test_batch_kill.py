"""kill -9 at any moment of a batch: nothing half, nothing lost, nothing made twice; and two at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def check(tiny_pocket: Path, tmp_path: Path, kills: int) -> None:
    script = Path(__file__).with_name("batch_victims.py")
    arguments = [str(tiny_pocket), str(tmp_path), str(kills)]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    rows = answer["rows"]
    wrong = ("half", "unknown", "again", "made_twice", "extra_lines", "rubbish")
    assert [
        row for row in rows if not row["same"] or not row["reported"] or any(row[name] for name in wrong)
    ] == []
    assert all(row["killed"] for row in rows if not row["kill"].endswith(" s")), "a point was never reached"
    assert (answer["pair"], answer["pair_same"], answer["pair_lines"]) == ([0, 0], True, 8)


def test_kill_and_run_again(tiny_pocket: Path, tmp_path: Path) -> None:
    check(tiny_pocket, tmp_path, kills=4)


@pytest.mark.slow
def test_kill_and_run_again_forty_times(tiny_pocket: Path, tmp_path: Path) -> None:
    check(tiny_pocket, tmp_path, kills=40)
