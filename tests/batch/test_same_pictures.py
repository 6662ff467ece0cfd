"""Whatever a run does in another way, it draws the same: to the bit with `deterministic`, else nearly."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from t2i import cli, images
from t2i.batch import read_records
from t2i.cli.batch import Plan

LINES = [
    "a dog", "a cat", "a red drum", "a blue trumpet --n pink", "a corgi on the left",
    "a dog --d 5 --num-images 2", "the pink dog --n pink", "a corgi and a cat", "a background of red",
    "a corgi playing a drum --s 3", "a blue background",
    "the left of the trumpet and a red cat and a dog and a corgi on a blue background",
]  # fmt: skip
PICTURES = 2 * (len(LINES) + 1)  # each once with --deterministic
MOST_APART, MOST_SHARE = 1, 0.001  # of 255, of the values of all pictures; see the README, Seeds

Key = tuple[str, int, bool]
Pictures = dict[Key, tuple[np.ndarray, str]]
"""(prompt, seed, deterministic) → pixels, SHA-256 of the file."""


def draw(model: Path, folder: Path, *options: str, lines: list[str] = LINES) -> None:
    """Draw the lines, without and with --deterministic, into a folder."""
    file = folder.with_suffix(".txt")
    file.write_text("\n".join(lines) + "\n")
    line = ["batch", file, "-m", model, "-o", folder, "--steps", 2, "--size", "16x16", "--run-seed", 3]
    line += ["--axis", "deterministic=false,true", "--no-report", *options]
    told, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(said):
        code = cli.run([str(part) for part in line])
    assert code == 0, said.getvalue()


def pictures(*folders: Path) -> Pictures:
    """Everything that was drawn."""
    found: Pictures = {}
    for folder in folders:
        for record in read_records(folder).values():
            path = folder / record["file"]
            exact = images.read_recipe(path)["runtime"]["deterministic"]
            key = record["prompt"], record["seed"], exact
            assert key not in found
            found[key] = images.read_pixels(path), record["sha256"]
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_pocket: Path) -> Pictures:
    """What the others are compared with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        folder = tmp_path_factory.mktemp("base") / "out"
        draw(tiny_pocket, folder)
    found = pictures(folder)
    assert len(found) == PICTURES
    return found


@contextlib.contextmanager
def one_worker_dies() -> Iterator[list[int]]:
    """The oldest process that this one has started is killed when the first picture is there."""
    tell, killed = Plan._tell_record, list[int]()

    def kill(self: Plan, record: dict[str, object]) -> None:
        if not killed:
            children = psutil.Process().children()
            assert len(children) == 2
            killed.append(min(children, key=lambda child: child.create_time()).pid)
            os.kill(killed[0], signal.SIGKILL)
        tell(self, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "_tell_record", kill)
        yield killed


def backwards(model: Path, folder: Path) -> list[Path]:
    draw(model, folder, lines=LINES[::-1])
    return [folder]


def shards(model: Path, folder: Path) -> list[Path]:
    parts = [folder / "1", folder / "2"]
    folder.mkdir()
    for number, part in enumerate(parts, 1):
        draw(model, part, "--shard", f"{number}/2")
    assert all(read_records(part) for part in parts)
    return parts


def two_processes(model: Path, folder: Path) -> list[Path]:
    """Of which one is killed."""
    with one_worker_dies() as killed:
        draw(model, folder, "--devices", "cpu,cpu")
    assert len(killed) == 1 and psutil.Process().children() == [], "nobody is left behind"
    assert len((folder / "manifest.jsonl").read_text().splitlines()) == PICTURES, "each once"
    return [folder]


def with_options(*options: str) -> Callable[[Path, Path], list[Path]]:
    def run(model: Path, folder: Path) -> list[Path]:
        draw(model, folder, *options)
        return [folder]

    return run


without_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='pip install "t2i[ray]"')
WAYS = {
    "lines the other way round": backwards,
    "batches of 1": with_options("--batch-size", "1"),
    "batches of 2": with_options("--batch-size", "2"),
    "batches of 5": with_options("--batch-size", "5"),
    "two shards": shards,
    "two processes": two_processes,
    "two actors of Ray": pytest.param(
        with_options("--engine", "ray", "--devices", "cpu,cpu"), marks=without_ray
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_the_same_pictures(
    way: Callable[[Path, Path], list[Path]],
    base: Pictures,
    tiny_pocket: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = pictures(*way(tiny_pocket, tmp_path / "out"))
    assert found.keys() == base.keys()
    changed = values = 0
    for key, (pixels, digest) in found.items():
        expected, expected_digest = base[key]
        apart = np.abs(pixels.astype(int) - expected.astype(int))
        if key[2]:
            assert apart.max() == 0, key
            # The recipe says at which place of the file the picture was asked for.
            assert digest == expected_digest or way is backwards, key
        else:
            assert apart.max() <= MOST_APART, key
            changed, values = changed + int((apart > 0).sum()), values + apart.size
    assert changed <= MOST_SHARE * values
