"""Tables that several processes compute together, and runs that are stopped while they do."""

from __future__ import annotations

import os
import signal
import threading
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bases import base_config

from t2i.dataset import Crew, cached_table, shared_table
from t2i.dataset import shared_tables as module
from t2i.errors import Interrupted, PartialError, StorageError
from t2i.training import Stage, train

PIECES = np.array_split(np.arange(23), 7)
SHAPE = (23, 2)


def values(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows, rows**2], axis=1).astype(np.float16)


class Thread(Crew):
    """A place in a crew whose processes are threads of this one."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier) -> None:
        self.rank, self.size, self.barrier = rank, size, barrier

    def wait(self) -> None:
        self.barrier.wait(timeout=20)


def together(size: int, path: Path) -> list[list[int]]:
    """Let so many compute a table; the first rows of the pieces that each has computed."""
    barrier = threading.Barrier(size)
    computed: list[list[int]] = [[] for _ in range(size)]

    def work(rank: int) -> None:
        def compute(rows: np.ndarray) -> np.ndarray:
            computed[rank].append(int(rows[0]))
            return values(rows)

        table = shared_table(path, SHAPE, np.float16, PIECES, compute, Thread(rank, size, barrier))
        assert np.array_equal(table, values(np.arange(23)))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return computed


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_everyone_computes_a_share_and_the_bytes_are_those_of_one(size: int, tmp_path: Path) -> None:
    cached_table(tmp_path / "plain.npy", SHAPE, np.float16, lambda: iter([values(np.arange(23))]))
    computed = together(size, tmp_path / "table.npy")
    assert (tmp_path / "table.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()
    assert sorted(chain(*computed)) == [int(piece[0]) for piece in PIECES], "each piece once"
    assert max(map(len, computed)) - min(map(len, computed)) <= 1
    assert {path.name for path in tmp_path.iterdir()} == {"table.npy", "plain.npy"}
    assert together(size, tmp_path / "table.npy") == [[]] * size, "it is there"


def stop_after(count: int, path: Path) -> None:
    done: list[int] = []

    def compute(rows: np.ndarray) -> np.ndarray:
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(1)
        return values(rows)

    with pytest.raises(KeyboardInterrupt):
        shared_table(path, SHAPE, np.float16, PIECES, compute, Crew())


def test_what_is_done_survives_a_stop_whoever_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "table.npy"
    stop_after(3, path)
    assert not path.exists() and not list(tmp_path.glob(".tmp-*"))
    stop_after(1, path)
    assert sorted(chain(*together(2, path))) == [int(piece[0]) for piece in PIECES[4:]]
    assert [file.name for file in tmp_path.iterdir()] == ["table.npy"]


def test_a_damaged_part_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "table.npy"
    stop_after(2, path)
    stop_after(2, path)
    first, second = sorted((tmp_path / f"table-{len(PIECES)}.parts").iterdir())
    first.write_bytes(first.read_bytes()[:100])
    data = bytearray(second.read_bytes())
    data[second.read_bytes().index(b"NUMPY") + 130] ^= 1  # the checksum of the archive tells
    second.write_bytes(data)
    with pytest.raises(StorageError, match="is damaged and was removed"):
        together_alone(path)
    together_alone(path)


def together_alone(path: Path) -> None:
    shared_table(path, SHAPE, np.float16, PIECES, values, Crew())


def test_pieces_are_written_down_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_AT_RISK", -1.0)
    seen = []

    def compute(rows: np.ndarray) -> np.ndarray:
        seen.append(len(list(tmp_path.glob("*.parts/*.npz"))))
        return values(rows)

    shared_table(tmp_path / "table.npy", SHAPE, np.float16, PIECES, compute, Crew())
    assert seen == list(range(7)), "what a kill would leave"


@pytest.fixture
def lora(shapes: Path, tmp_path: Path, tiny_pocket: Path) -> Any:
    """A run whose pictures are encoded in three batches."""
    changes = {"resolution": 32, "random_flip": True, "max_train_steps": 1, "memorisation_samples": 0}
    return base_config("lora", tiny_pocket, shapes, tmp_path / "run", sample_prompts=("x",), **changes)


def test_a_signal_stops_the_encoding_and_the_same_command_goes_on(
    lora: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import AutoencoderKL

    real, encoded = AutoencoderKL.encode, []

    def watched(self: Any, pixels: Any, *arguments: Any, **named: Any) -> Any:
        if len(encoded) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        encoded.append(len(pixels))
        return real(self, pixels, *arguments, **named)

    monkeypatch.setattr(AutoencoderKL, "encode", watched)
    with pytest.raises(Interrupted, match="stopped before the first step") as caught:
        list(train(lora))
    assert caught.value.hint == "the same command goes on" and len(encoded) <= 2
    assert len(list(tmp_path.glob("run/cache/latents-*.parts/*.npz"))) == 1
    assert not list(tmp_path.rglob(".tmp-*")) and not (tmp_path / "run" / "lora").exists()
    monkeypatch.undo()

    # The rest is encoded by the same command; a time limit that is over in it leaves what was done, too.
    with pytest.raises(PartialError, match="--max-train-time is over before the first step: 1 of 2 batches"):
        list(train(lora.replace(max_train_time=1e-9)))
    encoded.clear()
    encoded.append(0)  # no further signal
    monkeypatch.setattr(AutoencoderKL, "encode", lambda *a, **k: encoded.append(1) or real(*a, **k))
    monkeypatch.setattr(Stage, "run", lambda self, stopped: iter(()))  # the rest of it is tested elsewhere
    list(train(lora))
    assert encoded == [0, 1], "one batch was left to do"
    assert [path.suffix for path in tmp_path.glob("run/cache/latents-*")] == [".npy"]
