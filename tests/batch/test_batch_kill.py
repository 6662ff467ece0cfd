"""kill -9 at any moment of a batch: nothing half, nothing lost, nothing made twice; and two at once.

A sample of what `batch_victims.py` does with more: `python tests/batch/batch_victims.py MODEL FOLDER 1000`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

KILLS = 40


def test_kill_and_run_again(tmp_path: Path) -> None:
    script = Path(__file__).with_name("batch_victims.py")
    arguments = [str(tmp_path / "model"), str(tmp_path), str(KILLS)]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["wrong"] == []
    assert [answer[name] for name in ("half", "lost", "twice", "unknown", "rubbish")] == [0] * 5
    assert answer["kills"] == KILLS and answer["points"] > 10 and answer["two_at_once"]
    assert 0 < answer["steps_again_most"] <= answer["steps_again_allowed"], "a batch, and a step of the next"
