"""SHA-256 of files, remembered by path, size and times so that a picture or a resumed run costs no rehash."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from t2i.durable import sha256_file, write_json
from t2i.errors import ModelError, StorageError


def user_cache_folder() -> Path:
    """Where t2i keeps what it can make again: `T2I_CACHE`, else the system's place for caches."""
    if os.environ.get("T2I_CACHE"):
        return Path(os.environ["T2I_CACHE"])
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "t2i"


def hash_files(files: Mapping[str, Path], cache: Path | None = None, fresh: bool = False) -> dict[str, str]:
    """SHA-256 of every file.

    Args:
        files: Name → file.
        cache: JSON file that remembers hashes; None = the user's. It is a convenience: if it is damaged or
            cannot be written, files are hashed again.
        fresh: Read every byte again, whatever the cache says (`t2i verify`).

    Returns:
        Name → hexadecimal digest.

    Raises:
        ModelError: A file is gone or cannot be read.
    """
    where = cache if cache is not None else user_cache_folder() / "hashes.json"
    remembered = _read(where)
    changed = False
    result = {}
    for name, path in files.items():
        try:
            real = path.resolve(strict=True)
            status = real.stat()
            stamp = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
            place = str(real).encode("utf-8", "backslashreplace").decode()  # a name need not be UTF-8
            known = remembered.get(place)
            if fresh or known is None or known[0] != stamp:
                remembered[place] = known = [stamp, sha256_file(real)]
                changed = True
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}") from error
        result[name] = known[1]
    if changed:
        try:
            write_json(where, remembered)
        except (StorageError, OSError):
            pass  # a read-only home costs time, not a picture
    return result


def _read(cache: Path) -> dict[str, list[str]]:
    try:
        values = json.loads(cache.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {
        path: entry
        for path, entry in values.items()
        if isinstance(entry, list) and len(entry) == 2 and all(isinstance(item, str) for item in entry)
    }
