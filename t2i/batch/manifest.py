"""What became of each picture: `manifest.jsonl`, appended one whole line at a time, and the folder's lock.

A line is a JSON object with job, status ("done" or "failed"), line, seed, prompt, file, sha256, seconds and
error; one that failed also exit_code, one that was made recipe_sha256, and where there is something to say
metadata, notes or memory (see `drawing.remarks`). The last line of a job counts. The line of a picture is on
the disk before the picture gets its name: a kill in between leaves a line whose file is missing, never a file
that nobody knows, and the picture counts as done only if its file has the SHA-256 of its line.

`batch.json` beside it keeps what is of the folder as a whole: its run seed, and which reports are t2i's.
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
TEMPORARY = re.compile(
    re.escape(durable.TEMPORARY_PREFIX) + r"[0-9a-f]{32}-.+\.(png|jpe?g|webp|json|html)", re.I
)
HEAD = b'{"job":'
KINDS: dict[str, Any] = {
    "job": str, "status": str, "line": int, "seed": int, "prompt": str, "file": str | None,
    "sha256": str | None, "seconds": int | float, "error": str | None,
}  # fmt: skip

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
        StorageError: Another process works in it, it cannot be written, or its manifest is another program's.
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
        StorageError: The file cannot be read, or is another program's.
    """
    path = folder / MANIFEST
    records: Records = {}
    try:
        with open(path, "rb") as file:
            _refuse_others(path, file.peek(len(HEAD)))
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
    seed = _read_run(folder).get("run_seed")
    if seed is not None and (type(seed) is not int or seed < 0):
        raise _damaged(folder)
    return seed


def keep_run_seed(folder: Path, seed: int) -> None:
    """Keep the run seed, so that the seeds nobody gave stay the same.

    Raises:
        StorageError: It cannot be written.
    """
    _keep(folder, "run_seed", seed)


def kept_reports(folder: Path) -> dict[str, str | None]:
    """Name → what its content was made from, of the files that `keep_reports` noted; None: begun only.

    A damaged file, which `kept_run_seed` complains about, has none.
    """
    try:
        reports = _read_run(folder).get("reports")
    except StorageError:
        return {}
    found = reports if isinstance(reports, dict) else {}
    return {name: made for name, made in found.items() if _is_inside(name)}


def keep_reports(folder: Path, reports: Mapping[str, str | None]) -> None:
    """Note which files beside the pictures are t2i's own and may be replaced.

    Raises:
        StorageError: It cannot be written.
    """
    _keep(folder, "reports", dict(reports))


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
    if not isinstance(record, dict):
        return None
    if any(not isinstance(record.setdefault(name, None), kinds) for name, kinds in KINDS.items()):
        return None
    return record if record["file"] is None or _is_inside(record["file"]) else None


def _is_inside(file: str) -> bool:
    """Whether a path stays in the folder that it is relative to."""
    inside = PurePosixPath(file)
    return not (inside.is_absolute() or ".." in inside.parts or "\0" in file) and bool(inside.name)


def _read_run(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / RUN).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(folder) from error
    if not isinstance(values, dict):
        raise _damaged(folder)
    return values


def _keep(folder: Path, name: str, value: Any) -> None:
    values: dict[str, Any] = {}
    with suppress(StorageError):  # a damaged file is replaced
        values = _read_run(folder)
    if values.get(name) != value:
        durable.write_json(folder / RUN, {**values, name: value})


def _damaged(folder: Path) -> StorageError:
    return StorageError(f"{folder / RUN} is damaged", "delete it, or give --run-seed")


def _mend(descriptor: int, path: Path) -> None:
    """Cut off a last line that a kill tore."""
    try:
        data = path.read_bytes()
        _refuse_others(path, data)
        if data and not data.endswith(b"\n"):
            os.ftruncate(descriptor, data.rfind(b"\n") + 1)
            os.fsync(descriptor)
    except OSError as error:
        raise durable.storage_error(path, error) from error


def _refuse_others(path: Path, data: bytes) -> None:
    """Refuse a file that does not begin as a manifest; many programs call one of theirs so."""
    if not HEAD.startswith(data[: len(HEAD)]):
        raise StorageError(f"{path} is no manifest of t2i batch", "choose another --output")


def _remove_leftovers(folder: Path) -> None:
    """Delete what was half written when an earlier run was killed; the lock says that nobody writes.

    Folders inside with a manifest of their own are another batch's, which may be writing.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not Path(place, name, MANIFEST).exists()]
        for name in filter(TEMPORARY.fullmatch, names):
            Path(place, name).unlink(missing_ok=True)
