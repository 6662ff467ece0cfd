"""Kill training and resume it, over and over; run as a script by `test_kill.py`.

The imports cost seconds, so they are paid once: this process imports everything, computes nothing, and
forks one victim per kill. A victim trains; it is killed with SIGKILL at a named fault point, or by us after
a delay; another fork resumes it to the end. The answer goes to stdout as JSON: one row per kill.

    python victims.py DATASET PREPARED FOLDER KILLS
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from small_run import small_config

import t2i.methods  # noqa: F401  (the heavy imports, paid here)
from t2i.checkpoints import list_checkpoints, newest_checkpoint
from t2i.training import train

STEPS = 10
POINTS = ["checkpoint.save:2", "checkpoint.save:5", "folder.before_rename:3", "file.before_rename:9"]
POINTS += ["checkpoint.rotate:1", "checkpoint.rotate:3", "best.save:2", "page.write:2"]


def fork(dataset: Path, output: Path, resume: bool, fault: str = "") -> int:
    """Start a victim; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        if fault:
            os.environ["T2I_FAULT"] = fault
        config = small_config(
            dataset, output, method="unet", max_train_steps=STEPS, checkpointing_steps=2, sample_steps=1000,
            checkpoints_total_limit=1, train_text_encoder=True, resume="latest" if resume else None,
            validation_split=0.2, memorisation_samples=0,
        )  # fmt: skip
        for _ in train(config):
            pass
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def ended(child: int) -> int:
    """Exit code of a victim; negative is the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def digest(output: Path) -> str:
    """One hash over the trained weights and average of the last checkpoint, the best, and the models."""
    last = list_checkpoints(output / "unet" / "checkpoints")[-1]
    files = [*sorted(last.glob("*.safetensors")), *sorted((output / "model").rglob("*.safetensors"))]
    files += [output / "unet" / "best.safetensors", *sorted((output / "best").rglob("*.safetensors"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def rubbish(output: Path) -> list[str]:
    """Temporary files left anywhere."""
    return [str(path) for path in output.rglob(".tmp-*")]


def main(dataset: Path, prepared: Path, folder: Path, kills: int) -> None:
    """Run one victim to the end, then `kills` timed ones and every fault point; print what became of them."""

    def begin(name: str) -> Path:
        return Path(shutil.copytree(prepared, folder / name))

    whole = begin("whole")
    child = fork(dataset, whole, resume=False)
    while newest_checkpoint(whole / "unet" / "checkpoints")[0] is None:
        time.sleep(0.002)
    first = time.monotonic()
    assert ended(child) == 0
    span = time.monotonic() - first
    answer = digest(whole)

    rows = []
    for number in range(kills + len(POINTS)):
        fault = POINTS[number - kills] if number >= kills else ""
        output, code, after = begin(f"victim{number}"), 0, span * (number + 0.5) / kills
        if fault:
            code = ended(fork(dataset, output, resume=False, fault=fault))
        while not fault and code != -signal.SIGKILL:  # spread over the time after the first checkpoint
            shutil.rmtree(output)
            child = fork(dataset, begin(output.name), resume=False)
            while newest_checkpoint(output / "unet" / "checkpoints")[0] is None:
                time.sleep(0.002)
            time.sleep(after)
            os.kill(child, signal.SIGKILL)
            code = ended(child)
            assert code in (0, -signal.SIGKILL), "the victim failed by itself"
            after /= 2  # should it have ended before, because the machine has become faster
        survivor, _ = newest_checkpoint(output / "unet" / "checkpoints")
        resumed = ended(fork(dataset, output, resume=survivor is not None))
        rows.append({
            "kill": fault or f"{after * 2:.2f} s",
            "killed": code == -signal.SIGKILL,
            "survivor": survivor.name if survivor else None,
            "resumed": resumed,
            "same": resumed == 0 and digest(output) == answer,
            "rubbish": rubbish(output),
        })  # fmt: skip
        shutil.rmtree(output)
    print(json.dumps(rows))


if __name__ == "__main__":
    main(*(Path(text) for text in sys.argv[1:4]), int(sys.argv[4]))
