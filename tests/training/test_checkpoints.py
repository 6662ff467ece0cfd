"""Checkpoints: whole or absent, verified, rotated after the new one stands; handoffs."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from t2i import checkpoints, durable
from t2i.checkpoints import Handoff
from t2i.errors import ModelError, StorageError

GROUPS = {"weights": {"a": torch.arange(6.0).reshape(2, 3)}, "average": {"a": torch.ones(2, 3)}}


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return checkpoints.save_checkpoint(folder, step, GROUPS, {"step": step}, keep)


def test_round_trip_and_rotation(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] != []
    assert [path.name for path in checkpoints.list_checkpoints(tmp_path)] == [
        "checkpoint-00000002",
        "checkpoint-00000003",
    ]
    groups, state = checkpoints.load_checkpoint(tmp_path / "checkpoint-00000003")
    assert state == {"step": 3} and torch.equal(groups["weights"]["a"], GROUPS["weights"]["a"])
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("file", ["weights.safetensors", "state.json"])
def test_one_changed_byte_makes_it_torn(tmp_path: Path, file: str) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    raw = bytearray((path / file).read_bytes())
    raw[-2] ^= 1
    (path / file).write_bytes(raw)
    newest, torn = checkpoints.newest_checkpoint(tmp_path)
    assert newest is not None and newest.name == "checkpoint-00000001" and torn == [path]
    with pytest.raises(ModelError, match="not a whole checkpoint"):
        checkpoints.load_checkpoint(path)


def test_a_missing_file_makes_it_torn(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "average.safetensors").unlink()
    assert checkpoints.newest_checkpoint(tmp_path) == (None, [path])


def test_full_disk_leaves_the_old_one_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = save(tmp_path, 1, keep=1)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable, "fsync_path", full)
    with pytest.raises(StorageError, match="no space left"):
        save(tmp_path, 2, keep=1)
    assert checkpoints.newest_checkpoint(tmp_path) == (old, [])
    assert [path.name for path in tmp_path.iterdir()] == [old.name]


def test_handoff_keeps_weights_as_bf16(tmp_path: Path) -> None:
    raw, average = {"a": torch.randn(4, 4)}, {"a": torch.randn(4, 4)}
    path = tmp_path / "h.safetensors"
    checkpoints.save_handoff(path, Handoff(raw, average, 7, "unet", {"unet_channels": [8, 16]}))
    found = checkpoints.load_handoff(path)
    assert (found.step, found.stage, found.settings) == (7, "unet", {"unet_channels": [8, 16]})
    assert torch.equal(found.weights["a"], raw["a"].bfloat16().float())
    assert torch.equal(found.ema["a"], average["a"].bfloat16().float())


def test_a_handoff_from_before_stages_were_kept_still_loads(tmp_path: Path) -> None:
    path = tmp_path / "old.safetensors"
    save_file({"ema.a": torch.ones(2).bfloat16()}, path, metadata={"step": "5", "t2i": "handoff"})
    found = checkpoints.load_handoff(path)
    assert (found.step, found.stage, found.settings) == (5, "", {}) and found.weights["a"].sum() == 2


def test_what_safetensors_cannot_write_is_a_storage_error_with_the_file_s_name(tmp_path: Path) -> None:
    """The library's own error, made by the smallest of disks: a limit on the size of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = {"a": torch.zeros(2_000_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(StorageError, match=r"h\.safetensors: File too large"):
            checkpoints.save_handoff(tmp_path / "h.safetensors", Handoff(large, large, 1))
        with pytest.raises(StorageError, match="checkpoint-00000001: File too large"):
            checkpoints.save_checkpoint(tmp_path, 1, {"weights": large}, {}, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_told_with_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one of two megabytes: one checkpoint fits, a second does not, told before or in writing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a disk")
    try:
        large = {"a": torch.zeros(300_000)}
        first = checkpoints.save_checkpoint(disk, 1, {"weights": large}, {}, 1)
        with pytest.raises(StorageError, match=r"needs 1,200,000 bytes, [\d,]+ are free"):
            checkpoints.save_checkpoint(disk, 2, {"weights": large}, {}, 1)
        monkeypatch.setattr(durable, "check_room", lambda *_: None)
        with pytest.raises(StorageError, match=r"no space left while writing .*checkpoint-00000002"):
            checkpoints.save_checkpoint(disk, 2, {"weights": large}, {}, 1)
        assert [path.name for path in disk.iterdir()] == [first.name]
        assert checkpoints.verify_checkpoint(first)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_handoff_drops_the_raw_weights_before_it_gets_too_large(tmp_path: Path) -> None:
    large = {"a": torch.zeros(18_000_000)}
    checkpoints.save_handoff(tmp_path / "h.safetensors", Handoff(large, large, 1))
    assert (tmp_path / "h.safetensors").stat().st_size < checkpoints.HANDOFF_LIMIT
    with pytest.raises(StorageError, match="over the limit"):
        checkpoints.save_handoff(
            tmp_path / "i.safetensors", Handoff(large, {"a": torch.zeros(40_000_000)}, 1)
        )


def test_any_safetensors_file_is_not_a_handoff(tmp_path: Path) -> None:
    path = save(tmp_path, 1) / "weights.safetensors"
    with pytest.raises(ModelError, match="not a handoff"):
        checkpoints.load_handoff(path)
    with pytest.raises(ModelError, match="cannot be read"):
        checkpoints.load_handoff(tmp_path / "missing")
