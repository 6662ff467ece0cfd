"""Files are whole or absent, and nobody's file is replaced by accident."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from t2i import durable
from t2i.errors import StorageError


@pytest.mark.parametrize("links", [True, False])
def test_a_taken_name_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:  # exFAT and some network mounts

        def refuse(*_: Any) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a" / "x.txt"
    durable.write_bytes(path, b"first", overwrite=False)
    assert path.read_bytes() == b"first"
    with pytest.raises(StorageError, match="already exists"):
        durable.write_bytes(path, b"second", overwrite=False)
    assert path.read_bytes() == b"first" and [file.name for file in path.parent.iterdir()] == ["x.txt"]
    durable.write_bytes(path, b"third")
    assert path.read_bytes() == b"third"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(b"old")

    def full(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="no space left"):
        durable.write_with(path, full)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        durable.write_bytes(tmp_path / "file" / "x.txt", b"")


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with durable.staged_folder(tmp_path / "done") as stage:
        (stage / "a").write_bytes(b"1")
        assert not (tmp_path / "done").exists()
    assert (tmp_path / "done" / "a").read_bytes() == b"1"
    with pytest.raises(RuntimeError), durable.staged_folder(tmp_path / "half") as stage:
        (stage / "a").write_bytes(b"1")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["done"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_staged_folder_replaces_only_when_told(tmp_path: Path, kind: str) -> None:
    path, elsewhere = tmp_path / "done", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_bytes(b"")
    if kind == "folder":
        path.mkdir()
        (path / "old").write_bytes(b"")
    elif kind == "file":
        path.write_bytes(b"")
    else:
        path.symlink_to(elsewhere)
    with pytest.raises(StorageError), durable.staged_folder(path) as stage:
        (stage / "new").write_bytes(b"")
    with durable.staged_folder(path, overwrite=True) as stage:
        (stage / "new").write_bytes(b"")
    assert [file.name for file in path.iterdir()] == ["new"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["done", "elsewhere"]
    assert (elsewhere / "kept").exists()


def test_a_full_disk_is_told_by_the_final_name(tmp_path: Path) -> None:
    """Also where the error is that of a library, which has the system's number in its text only."""
    with (
        pytest.raises(StorageError, match=f"no space left while writing {tmp_path}/model/unet/x$"),
        durable.staged_folder(tmp_path / "model") as stage,
    ):

        def full(temporary: Path) -> None:
            raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

        durable.write_with(stage / "unet" / "x", full)
    with pytest.raises(RuntimeError, match="another"), durable.staged_folder(tmp_path / "model"):
        raise RuntimeError("another mistake")
    assert not list(tmp_path.iterdir())


def test_space_is_reserved_or_refused_with_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "x", "wb") as file:
        durable.reserve(file, tmp_path / "x", 100_000)
    assert os.stat(tmp_path / "x").st_blocks * 512 >= 100_000

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with open(tmp_path / "x", "wb") as file, pytest.raises(StorageError) as caught:
        durable.reserve(file, tmp_path / "table.npy", 100_000)
    assert re.search(r"table\.npy needs 100,000 bytes, [\d,]+ are free", caught.value.message)

    monkeypatch.delattr(os, "posix_fallocate")
    with open(tmp_path / "x", "wb") as file, pytest.raises(StorageError, match="needs"):
        durable.reserve(file, tmp_path / "table.npy", 2**60)


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        durable.write_bytes(tmp_path / "x", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
