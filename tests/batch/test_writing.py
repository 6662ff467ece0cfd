"""The thread that writes while the next pictures are drawn: order, bounds, ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Result, Run, run_line

from t2i import images, latents
from t2i.batch import writing
from t2i.batch.writing import Writer
from t2i.cli.batch import Plan
from t2i.durable import sha256_file
from t2i.errors import StorageError
from t2i.families.clip import ClipFamily

PROMPTS = "a dog\na cat\na red drum\na blue trumpet\n"


def line(number: int) -> dict[str, Any]:
    return {"job": str(number), "status": "done"}


def test_lines_come_in_order_and_leaving_waits() -> None:
    done: list[int] = []

    def write(number: int) -> dict[str, Any]:
        time.sleep(0.01)
        done.append(number)
        return line(number)

    with Writer() as writer:
        for number in range(4):
            writer.put(lambda number=number: write(number), 1)
        assert [record["job"] for record in writer.finish()] == ["0", "1", "2", "3"]
        writer.put(lambda: write(4), 1)
    assert done == [0, 1, 2, 3, 4] and [record["job"] for record in writer.written()] == ["4"]


@pytest.mark.parametrize(("size", "most"), [(1, 3), (40, 2), (1000, 1)])
def test_little_waits(monkeypatch: pytest.MonkeyPatch, size: int, most: int) -> None:
    """By number and by bytes; a picture that is larger than all that may wait goes alone."""
    monkeypatch.setattr(writing, "MOST_WAITING", 3)
    monkeypatch.setattr(writing, "MOST_WAITING_BYTES", 100)
    waiting, counts, gate = 0, list[int](), threading.Event()

    def write() -> dict[str, Any]:
        nonlocal waiting
        gate.wait(10)
        waiting -= 1
        return line(0)

    with Writer() as writer:
        for number in range(6):
            if number == most:
                threading.Timer(0.05, gate.set).start()
            writer.put(write, size)
            waiting += 1
            counts.append(waiting)
    assert counts[:most] == list(range(1, most + 1)) and max(counts) <= most


def test_what_cannot_go_on_is_told_and_nothing_follows() -> None:
    done: list[int] = []

    def fail() -> dict[str, Any]:
        raise StorageError("no space left while writing manifest.jsonl")

    with Writer() as writer:
        writer.put(lambda: line(0), 1)
        writer.put(fail, 1)
        writer.put(lambda: done.append(2) or line(2), 1)
        finish = writer.finish()
        assert next(finish) == line(0)
        with pytest.raises(StorageError, match="no space"):
            next(finish)
    assert done == []


# ---- in a batch


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_pocket: Path
) -> Run:
    """`t2i batch` of four prompts in batches of one, without reports."""
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text(PROMPTS)
    fixed = ["-m", tiny_pocket, "--steps", 2, "--size", "32x32", "--run-seed", 3, "-o", "out"]

    def run_here(*arguments: object) -> Result:
        return run_line(capsys, "batch", "p.txt", *fixed, "--batch-size", 1, "--no-report", *arguments)

    return run_here


def before_batch(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call `act` with 1, 2, … before the batches."""
    make, number = latents.initial_noise, 0

    def initial_noise(*arguments: Any) -> Any:
        nonlocal number
        number += 1
        act(number)
        return make(*arguments)

    monkeypatch.setattr(latents, "initial_noise", initial_noise)


def assert_whole(folder: str = "out") -> int:
    """Each line has its file and each file its line, once; returns how many."""
    lines = [json.loads(text) for text in Path(folder, "manifest.jsonl").read_text().splitlines()]
    done = {record["file"]: record["sha256"] for record in lines if record["status"] == "done"}
    assert len(done) == len(lines)
    assert {path.name: sha256_file(path) for path in Path(folder).glob("*.png")} == done
    assert list(Path(folder).glob(".tmp*")) == []
    return len(done)


def test_a_picture_is_written_while_the_next_is_drawn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, second_began, seen = images.encode, threading.Event(), list[bool]()

    def wait_for_the_second(*arguments: Any) -> bytes:
        seen.append(second_began.wait(30) and threading.current_thread() is not threading.main_thread())
        return encode(*arguments)

    before_batch(monkeypatch, lambda number: second_began.set() if number == 2 else None)
    monkeypatch.setattr(images, "encode", wait_for_the_second)
    assert run().code == 0 and seen == [True] * 4 and assert_whole() == 4


def test_a_batch_is_on_the_disk_before_the_second_step_of_the_next(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, predict, there = images.encode, ClipFamily._predict, list[int]()

    def count(*arguments: Any) -> Any:
        there.append(len(list(Path("out").glob("0*.png"))))
        return predict(*arguments)

    monkeypatch.setattr(ClipFamily, "_predict", count)
    monkeypatch.setattr(images, "encode", lambda *given: time.sleep(0.2) or encode(*given))
    assert run("--batch-size", 2).code == 0 and assert_whole() == 4
    assert there[:2] == [0, 0] and there[3:] == [2], "a kill costs a batch and a step"


def test_the_second_ctrl_c_loses_nothing_that_was_drawn(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(number: int) -> None:
        if number == 4:
            raise KeyboardInterrupt

    encode = images.encode
    with monkeypatch.context() as patch:
        patch.setattr(images, "encode", lambda *given: time.sleep(0.1) or encode(*given))
        before_batch(patch, interrupt)
        assert run().code == 130
    assert assert_whole() == 3
    assert len(run().lines) == 1 and assert_whole() == 4


def test_a_failure_elsewhere_leaves_the_folder_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a closed stdout: the thread has ended before the manifest is closed."""

    def refuse(*_: Any) -> None:
        raise ValueError("nobody listens")

    encode = images.encode
    with monkeypatch.context() as patch:
        patch.setattr(images, "encode", lambda *given: time.sleep(0.1) or encode(*given))
        patch.setattr(Plan, "_tell_record", refuse)
        result = run()
    assert result.code == 4 and "nobody listens" in result.err
    assert not any(thread.name.startswith("t2i-writer") for thread in threading.enumerate())
    made = assert_whole()
    assert made >= 2  # one was told, another drawn meanwhile
    assert len(run().lines) == 4 - made and assert_whole() == 4
