"""Files are whole or absent, and nobody's file is replaced by accident."""

from __future__ import annotations

import errno
import os
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


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        durable.write_bytes(tmp_path / "x", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
