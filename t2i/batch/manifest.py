"""What became of each picture: `manifest.jsonl`, appended one whole line at a time, and the folder's lock.

A line is a JSON object with job, status ("done" or "failed"), line, seed, prompt, file, sha256, seconds and
error; the last line of a job counts. The line of a picture is on the disk before the picture gets its
name: a kill in between leaves a line whose file is missing, never a file that nobody knows, and the picture
counts as done only if its file has the SHA-256 of its line.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from t2i import durable
from t2i.errors import StorageError

MANIFEST = "manifest.jsonl"
RUN = "batch.json"
TEMPORARY = re.compile(re.escape(durable.TEMPORARY_PREFIX) + r"[0-9a-f]{32}-.+\.(png|jpe?g|webp|json)", re.I)

Record = dict[str, Any]
Records = dict[str, Record]


@dataclass
class Manifest:
    """The manifest of a folder that nobody else works in.

    Attributes:
        descriptor: The locked file.
        path: Its path.
        records: Job id → its last line, in the order of these lines.
    """

    descriptor: int
    path: Path
    records: Records

    def append(self, record: Record) -> None:
        """Write one line, whole or not at all, and flush it to the disk.

        Raises:
            StorageError: No space, or the disk failed.
        """
        data = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "replace")
        size = os.fstat(self.descriptor).st_size
        try:
            if os.write(self.descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self.descriptor)
        except OSError as error:
            os.ftruncate(self.descriptor, size)
            raise durable.storage_error(self.path, error) from error
        _note(self.records, record)


@contextmanager
def open_manifest(folder: Path, wait: bool = False) -> Iterator[Manifest]:
    """Lock a folder, made if missing, and read its manifest; what a kill tore or left half written goes.

    Args:
        folder: Of the batch.
        wait: While another process has the folder, wait instead of refusing.

    Raises:
        StorageError: Another process works in it, or it cannot be written.
    """
    path = folder / MANIFEST
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        raise StorageError(f"{folder} is not a folder", "choose another --output") from error
    except OSError as error:
        raise durable.storage_error(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            hint = "let it finish, wait for it with --wait, or choose another --output"
            raise StorageError(f"another t2i batch works in {folder}", hint) from error
        _mend(descriptor, path)
        _remove_leftovers(folder)
        yield Manifest(descriptor, path, read_records(folder))
    finally:
        os.close(descriptor)


def read_records(folder: Path) -> Records:
    """Job id → its last line. Lines that are not of a manifest are passed over, a missing file is empty.

    Raises:
        StorageError: The file cannot be read.
    """
    path = folder / MANIFEST
    records: Records = {}
    try:
        with open(path, "rb") as file:
            for line in file:
                record = _parse(line)
                if record is not None:
                    _note(records, record)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    return records


def kept_run_seed(folder: Path) -> int | None:
    """The run seed that `keep_run_seed` wrote, or None.

    Raises:
        StorageError: The file is damaged.
    """
    path = folder / RUN
    try:
        seed = json.loads(path.read_bytes())["run_seed"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StorageError(f"{path} is damaged", "delete it, or give --run-seed") from error
    if type(seed) is not int or seed < 0:
        raise StorageError(f"{path} is damaged", "delete it, or give --run-seed")
    return seed


def keep_run_seed(folder: Path, seed: int) -> None:
    """Keep the run seed, so that the seeds nobody gave stay the same.

    Raises:
        StorageError: It cannot be written.
    """
    with suppress(StorageError):  # a damaged file is replaced
        if kept_run_seed(folder) == seed:
            return
    durable.write_json(folder / RUN, {"run_seed": seed})


def owners(records: Mapping[str, Record]) -> dict[str, str]:
    """File → id of the job that made it last."""
    return {record["file"]: job for job, record in records.items() if record["file"] is not None}


def _note(records: Records, record: Record) -> None:
    records.pop(record["job"], None)  # so that the order is that of the last lines
    records[record["job"]] = record


def _parse(line: bytes) -> Record | None:
    """A line, if it is whole and names no file outside the folder."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("job"), str):
        return None
    file = record.setdefault("file", None)
    if file is None:
        return record
    if not isinstance(file, str) or "\0" in file:
        return None
    inside = PurePosixPath(file)
    return None if inside.is_absolute() or ".." in inside.parts or not inside.name else record


def _mend(descriptor: int, path: Path) -> None:
    """Cut off a last line that a kill tore."""
    try:
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.ftruncate(descriptor, data.rfind(b"\n") + 1)
            os.fsync(descriptor)
    except OSError as error:
        raise durable.storage_error(path, error) from error


def _remove_leftovers(folder: Path) -> None:
    """Delete what was half written when an earlier run was killed; the lock says that nobody writes."""
    for path in folder.rglob(durable.TEMPORARY_PREFIX + "*"):
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)
