"""Kill batches and run them again, over and over; run as a script by `test_batch_kill.py`.

This process imports everything once, draws nothing, and forks one victim per kill. A victim is killed
with SIGKILL at a named fault point, or by us after a delay; another fork runs the same command to the end.
The answer goes to stdout as JSON: one row per kill, and what two processes at once made.

    python batch_victims.py MODEL FOLDER KILLS
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from t2i import cli, pipeline
from t2i.config import GenerateConfig

PROMPTS = "a dog\na cat\na red drum --n blue\na corgi\n"
PICTURES = 8
POINTS = ["batch.before_line:1", "batch.after_line:3", "file.before_rename:5", "batch.after_picture:2"]
POINTS += ["file.before_rename:1", "batch.after_picture:8"]
POINTS += [
    "file.before_rename:10",
    "file.before_rename:12",
]  # contact sheet, then the note that all is written


def fork(model: Path, folder: Path, *more: str, fault: str = "") -> int:
    """Start a victim; returns its process id."""
    child = os.fork()
    if child:
        return child
    if fault:
        os.environ["T2I_FAULT"] = fault
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    line = ["batch", str(folder.parent / "p.txt"), "-m", str(model), "-o", str(folder), "--steps", "2"]
    line += ["--size", "32x32", "-N", "2", "--batch-size", "1", "--run-seed", "1", *more]
    os._exit(cli.run(line))


def ended(child: int) -> int:
    """Exit code of a victim; negative is the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def digests(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of the pictures."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("0*.png"))
    }


def reports(folder: Path) -> tuple[bytes, set[str], bool]:
    """The contact sheet, the names of all reports, and whether each of them is finished."""
    noted = json.loads((folder / "batch.json").read_text())["reports"]
    return (folder / "contact-sheet.png").read_bytes(), set(noted), all(noted.values())


def done_lines(folder: Path) -> list[str]:
    """Files of the whole lines that say "done"; a line that is whole but no JSON ends the script."""
    path = folder / "manifest.jsonl"
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []
    return [record["file"] for record in map(json.loads, whole) if record["status"] == "done"]


def main(model: Path, folder: Path, kills: int) -> None:
    """Run one victim to the end, then the kills, then two processes on one folder."""
    (folder / "p.txt").write_text(PROMPTS)
    pipeline.load(GenerateConfig(model=str(model)))  # the heavy imports, paid here
    whole = folder / "whole"
    child = fork(model, whole)
    while not digests(whole):
        time.sleep(0.001)
    first = time.monotonic()
    assert ended(child) == 0
    span, answer = time.monotonic() - first, digests(whole)
    assert len(answer) == PICTURES

    rows = []
    for number in range(kills + len(POINTS)):
        fault = POINTS[number - kills] if number >= kills else ""
        output = folder / f"victim{number}"
        child = fork(model, output, fault=fault)
        if not fault:
            while not digests(output):
                time.sleep(0.001)
            time.sleep(span * (number + 0.5) / kills)
            os.kill(child, signal.SIGKILL)
        code = ended(child)
        survivors = digests(output)
        before = {name: (output / name).stat().st_mtime_ns for name in survivors}
        lines = done_lines(output)
        again = ended(fork(model, output))
        rows.append({
            "kill": fault or f"{span * (number + 0.5) / kills:.3f} s",
            "killed": code == -signal.SIGKILL,
            "half": [name for name, digest in survivors.items() if answer.get(name) != digest],
            "unknown": sorted(set(survivors) - set(lines)),
            "again": again,
            "made_twice": [n for n, at in before.items() if (output / n).stat().st_mtime_ns != at],
            "same": digests(output) == answer,
            "extra_lines": len(done_lines(output)) - PICTURES - len(set(lines) - set(survivors)),
            "reported": reports(output) == reports(whole),
            "rubbish": [str(path) for path in output.rglob(".tmp-*")],
        })  # fmt: skip
        shutil.rmtree(output)
    pair = folder / "pair"
    children = [fork(model, pair, "--wait") for _ in range(2)]
    codes = [ended(child) for child in children]
    print(json.dumps({
        "rows": rows, "pair": codes, "pair_same": digests(pair) == answer, "pair_lines": len(done_lines(pair))
    }))  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
