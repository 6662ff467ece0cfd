"""Writing files that are whole or absent: temporary name in the same folder, fsync, rename, fsync the folder.

Also the named fault points by which the crash tests kill a process exactly there: `T2I_FAULT=name`
sends SIGKILL to the process when it reaches `fault_point("name")`; `T2I_FAULT=name:3` at the third pass.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from t2i.errors import StorageError

TEMPORARY_PREFIX = ".tmp-"
FULL = (errno.ENOSPC, errno.EDQUOT)
ROOM = "free some space or choose another folder"
_passes: dict[str, int] = {}


def fault_point(name: str) -> None:
    """Kill this process with SIGKILL if `T2I_FAULT` names this point (and pass number)."""
    wanted = os.environ.get("T2I_FAULT")
    if wanted is None:
        return
    wanted_name, _, wanted_pass = wanted.partition(":")
    if wanted_name == name:
        _passes[name] = _passes.get(name, 0) + 1
        if _passes[name] == int(wanted_pass or 1):
            os.kill(os.getpid(), signal.SIGKILL)


def temporary_path(path: Path) -> Path:
    """A name beside `path` that no other writer uses."""
    return path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}-{path.name[-80:]}")


def fsync_path(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_error(path: Path, error: OSError) -> StorageError:
    """The one line a person reads for an operating-system error while writing `path`."""
    if error.errno in FULL:
        return StorageError(f"no space left while writing {path}", ROOM)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"no permission to write {path}", "choose a folder you may write to")
    return StorageError(f"cannot write {path}: {error.strerror or error}")


@contextmanager
def as_storage_error(path: Path) -> Iterator[None]:
    """Tell what the operating system refuses while `path` is written as a `StorageError`.

    safetensors and tokenizers hide the system's error in one of their own: "… (os error 28)".
    """
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise storage_error(path, OSError(int(number[1]), os.strerror(int(number[1])))) from error


def reserve(file: IO[bytes], path: Path, size: int) -> None:
    """Take the disk space that a file will fill, so that a full disk is met before the work, not in it.

    Args:
        file: Open for writing.
        path: The name that a person knows it by.
        size: Bytes.

    Raises:
        StorageError: So much is not free.
    """
    free = _free(path)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        if error.errno in FULL:
            raise _no_room(path, size, free) from error
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # this disk cannot reserve
            raise


def check_room(path: Path, size: int) -> None:
    """Refuse to begin a file or folder of `size` bytes that the disk has no room for.

    Raises:
        StorageError: Then; how much is needed and how much is free.
    """
    free = _free(path)
    if free < size:
        raise _no_room(path, size, free)


def _free(path: Path) -> int:
    """Bytes that are free where `path` will be."""
    import shutil

    return shutil.disk_usage(next(place for place in path.absolute().parents if place.is_dir())).free


def _no_room(path: Path, size: int, free: int) -> StorageError:
    return StorageError(f"no space left: {path} needs {size:,} bytes, {free:,} are free", ROOM)


def write_with(path: Path, write: Callable[[Path], None], overwrite: bool = True) -> None:
    """Let `write` fill a temporary file, then give it its name in one step.

    Args:
        path: Where the file will be. Its folder is made if missing.
        write: Called with the temporary path.
        overwrite: When False, an existing `path` is an error and is left untouched, also when
            another process made it meanwhile.

    Raises:
        StorageError: No space, no permission, or the file is already there.
    """
    temporary = temporary_path(path)
    try:
        with as_storage_error(path):
            _make_folder(path.parent)
            write(temporary)
            os.chmod(temporary, 0o666 & ~_umask())  # safetensors makes its files 0600
            fsync_path(temporary)
            fault_point("file.before_rename")
            if overwrite:
                os.replace(temporary, path)
            else:
                try:
                    _rename_to_free_name(temporary, path)
                except FileExistsError as error:
                    hint = "choose another name or pass --overwrite"
                    raise StorageError(f"{path} already exists", hint) from error
            fsync_path(path.parent)
    finally:
        with suppress(OSError):  # the folder itself may be what is wrong; that error is the one to tell
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, overwrite: bool = True) -> None:
    """Write `data` whole or not at all; see `write_with`."""
    write_with(path, lambda temporary: _write(temporary, data), overwrite)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


@contextmanager
def staged_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Fill a temporary folder, then give it its name in one rename.

    Nothing is left behind on an exception.

    Args:
        path: Where the folder will be; without `overwrite` it must not exist yet.
        overwrite: Replace what is there; nothing of it is kept.

    Raises:
        StorageError: No space, no permission, or the folder is there already.
    """
    temporary, retired = temporary_path(path), temporary_path(path)
    try:
        with as_storage_error(path):
            temporary.mkdir(parents=True)
            yield temporary
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    os.chmod(file, 0o666 & ~_umask())
                fsync_path(file)
            fsync_path(temporary)
            fault_point("folder.before_rename")
            if overwrite and os.path.lexists(path):
                os.rename(path, retired)
            os.rename(temporary, path)
            fsync_path(path.parent)
    except StorageError as error:  # a person knows the files in it by their final names
        raise StorageError(error.message.replace(str(temporary), str(path)), error.hint) from error
    finally:
        remove(temporary)
    remove(retired)


def remove(path: Path) -> None:
    """Delete a folder and what is in it, a file or a link; a missing one is fine."""
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rename_to_free_name(temporary: Path, path: Path) -> None:
    """Rename, but fail if the name exists; a hard link does that in one step, where there are such."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # takes the name, or fails
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # its own errno would say that the file to be written exists
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
