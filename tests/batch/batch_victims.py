"""Kill batches and run them again, over and over; `test_batch_kill.py` runs it with a sample.

    python tests/batch/batch_victims.py MODEL FOLDER KILLS

MODEL is a small model, made if it is not there; FOLDER an empty folder. This process imports
everything, loads the model and draws the pictures once, then forks one victim per kill: KILLS at moments
spread evenly over the time from a victim's first picture to its end, and one at each of the named fault
points. Another fork runs the same command to its end. One line of JSON goes to stdout: what was counted, and
the first rows in which something is wrong.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process that has started threads must not fork

from t2i import cli, pipeline
from t2i.config import GenerateConfig

PROMPTS = "a dog\na red drum --n blue\n"
PICTURES, STEPS = 4, 2
STEPS_AGAIN = STEPS + 1
"""A kill costs at most so many network calls: the batch that is being drawn or written (one picture here),
and the first step of the next."""
POINTS = [
    f"{name}:{number}"
    for name, passes in {
        "batch.before_line": (1, 4),
        "batch.after_line": (1, 3, 4),
        "batch.after_picture": (2, 4),
        # batch.json, 4 pictures, the names of the reports, sheet, page, the note that they are written
        "file.before_rename": (1, 2, 5, 6, 7, 8, 9),
    }.items()
    for number in passes
]
LOADED: list[Any] = []


def load(model: Path) -> None:
    """Load the model once; whoever asks for one gets this."""
    if not model.exists():
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from tiny_models import save_smallest_pocket

        save_smallest_pocket(model)
    LOADED.append(pipeline.load(GenerateConfig(model=str(model))))
    pipeline.load = lambda config, runtime=None: LOADED[0]


def line_of(model: Path, folder: Path) -> list[str]:
    """The command line that draws into a folder."""
    line = ["batch", str(folder.parent / "p.txt"), "-m", str(model), "-o", str(folder), "-N", "2"]
    return [*line, "--steps", str(STEPS), "--size", "8x8", "--batch-size", "1", "--run-seed", "1"]


def fork(model: Path, folder: Path, *more: str, fault: str = "") -> int:
    """Start a victim; returns its process id. What it prints and its network calls go to files."""
    child = os.fork()
    if child:
        return child
    if fault:
        os.environ["T2I_FAULT"] = fault
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    os.dup2(os.open(folder.with_suffix(".out"), flags), 1)
    os.dup2(os.open(folder.parent / "stderr.txt", flags), 2)
    calls = os.open(folder.with_suffix(".calls"), flags)
    LOADED[0].unet.register_forward_pre_hook(lambda *_: os.write(calls, b"x") and None)
    os._exit(cli.run([*line_of(model, folder), *more]))


def ended(child: int) -> int:
    """Exit code of a victim; negative is the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for_a_picture(folder: Path, child: int) -> None:
    """Until the first picture has its name."""
    while os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        try:
            if any(name[0] == "0" for name in os.listdir(folder)):
                return
        except FileNotFoundError:
            pass
        time.sleep(0.0005)


def span_of(model: Path, folder: Path) -> float:
    """Seconds from the first picture of a run to its end."""
    child = fork(model, folder)
    wait_for_a_picture(folder, child)
    first = time.monotonic()
    assert ended(child) == 0
    seconds = time.monotonic() - first
    remove(folder)
    return seconds


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


def remove(folder: Path) -> None:
    """A victim's folder and files."""
    shutil.rmtree(folder)
    for suffix in (".out", ".calls"):
        folder.with_suffix(suffix).unlink()


def look_at(model: Path, folder: Path, kill: str, code: int, whole: Path) -> dict[str, Any]:
    """What a kill has left, and what the same command makes of it; lists and numbers of what is wrong."""
    answer, survivors, lines = digests(whole), digests(folder), done_lines(folder)
    before = {name: (folder / name).stat().st_mtime_ns for name in survivors}
    told = {Path(line).name for line in folder.with_suffix(".out").read_text().split()}
    calls = folder.with_suffix(".calls").stat().st_size if folder.with_suffix(".calls").exists() else 0
    again = ended(fork(model, folder))
    after = digests(folder)
    row = {
        "kill": kill,
        "code": code,
        "half": [name for name, digest in survivors.items() if answer.get(name) != digest],
        "lost": sorted((told | survivors.keys()) - survivors.keys() | (survivors.keys() - after.keys())),
        "twice": [n for n, at in before.items() if (folder / n).stat().st_mtime_ns != at],
        "unknown": sorted(survivors.keys() - set(lines)),
        "steps_again": calls - STEPS * len(survivors),
        "again": again,
        "other": after != answer or reports(folder) != reports(whole),
        "extra_lines": len(done_lines(folder)) - PICTURES - len(set(lines) - survivors.keys()),
        "rubbish": [str(path) for path in folder.rglob(".tmp-*")],
    }
    remove(folder)
    return row


def is_wrong(row: dict[str, Any]) -> bool:
    """Whether anything is not as it is promised."""
    promised = {"kill": row["kill"], "code": -signal.SIGKILL, "steps_again": row["steps_again"]}
    return row["steps_again"] > STEPS_AGAIN or any(
        value != promised[name] if name in promised else bool(value) for name, value in row.items()
    )


def main(model: Path, folder: Path, kills: int) -> None:
    """One run to the end, the kills, then two processes on one folder."""
    began, rows, missed, draw = time.monotonic(), list[dict[str, Any]](), 0, random.Random(0)
    (folder / "p.txt").write_text(PROMPTS)
    load(model)
    whole = folder / "whole"
    stdout = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    assert cli.run(line_of(model, whole)) == 0
    os.dup2(stdout, 1)
    assert len(digests(whole)) == PICTURES
    gc.collect()
    gc.freeze()  # what is there stays shared with the victims

    spans = [span_of(model, folder / "span") for _ in range(3)]
    while len(rows) < kills + len(POINTS):
        number = len(rows)
        fault = POINTS[number - kills] if number >= kills else ""
        output, delay = folder / f"victim{number}", 0.0
        child = fork(model, output, fault=fault)
        if not fault:
            delay = statistics.median(spans[-5:]) * (number + draw.random()) / kills
            wait_for_a_picture(output, child)
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        code = ended(child)
        if code == 0 and not fault:  # it was faster than those before
            missed += 1
            assert missed <= 50 + kills, "this machine changes its speed too much"
            remove(output)
            spans.append(span_of(model, folder / "span"))
            continue
        rows.append(look_at(model, output, fault or f"{delay:.3f} s", code, whole))
        if len(rows) % max(1, kills // 20) == 0:
            wrong = sum(map(is_wrong, rows))
            print(f"{len(rows)} of {kills + len(POINTS)} kills, {wrong} wrong", file=sys.stderr, flush=True)
    pair = folder / "pair"
    codes = [ended(child) for child in [fork(model, pair, "--wait") for _ in range(2)]]
    together = codes == [0, 0] and digests(pair) == digests(whole) and len(done_lines(pair)) == PICTURES
    figures = {
        name: sum(len(row[name]) for row in rows) for name in ("half", "lost", "twice", "unknown", "rubbish")
    }
    print(json.dumps({
        "kills": kills, "points": len(POINTS), "missed": missed, **figures,
        "steps_again_most": max(row["steps_again"] for row in rows), "steps_again_allowed": STEPS_AGAIN,
        "two_at_once": together, "seconds": round(time.monotonic() - began, 1),
        "span_s": round(statistics.median(spans), 3), "wrong": [row for row in rows if is_wrong(row)][:5],
    }))  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
