"""Tables that take long: several processes compute a share each, and what is done survives a stop.

A table is computed in numbered pieces that never change, so its bytes depend neither on how many processes
share the work nor on how often it was interrupted. Finished pieces wait beside the table in `*.parts/`, until
the leader joins them.
"""

from __future__ import annotations

import math
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from t2i import durable
from t2i.dataset.tables import cached_table
from t2i.errors import StorageError

SECONDS_AT_RISK = 20.0
"""What a kill costs at most: finished pieces are written down this often."""


class Crew:
    """The processes that compute a table together. This one is alone."""

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        """Whether this process writes what all have computed."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all processes are here."""

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The leader runs the block alone, then the others: they find in caches what it has computed."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def check(self, done: int, pieces: int) -> None:
        """Called before each piece but a process's first; what it raises ends the work.

        Args:
            done: Pieces that this process has computed.
            pieces: Those that it had to compute.
        """


def shared_table(
    path: Path,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    pieces: Sequence[np.ndarray],
    compute: Callable[[np.ndarray], np.ndarray],
    crew: Crew,
) -> np.ndarray:
    """A table computed once, in pieces: mapped from its file, which is written first if it is not there.

    Every process of the crew must call it, for the same tables in the same order.

    Args:
        path: A .npy file.
        shape: Of the whole table.
        dtype: Of its values.
        pieces: Which rows each piece has; together all rows, in order.
        compute: Rows → their values. Called where they are nowhere yet.
        crew: Who shares the work.

    Raises:
        StorageError: The disk has no room for all of it; told before the first row is computed.
    """
    crew.wait()  # all look for the table before any of them can have written it
    if path.is_file():
        return np.load(path, mmap_mode="r")
    folder = path.with_name(f"{path.stem}-{len(pieces)}.parts")
    there = _finished(folder)
    crew.wait()  # all have seen the same parts
    missing = [number for number in range(len(pieces)) if number not in there]
    mine = np.array_split(np.array(missing, dtype=np.int64), crew.size)[crew.rank].tolist()
    fresh: dict[int, np.ndarray] = {}

    def rest() -> Iterator[np.ndarray]:
        """All rows in order; the leader's own last pieces never touch the disk but in the table."""
        nonlocal fresh
        written = time.monotonic()
        try:
            for count, number in enumerate(mine):
                if count:
                    crew.check(count, len(mine))
                fresh[number] = compute(pieces[number]).astype(dtype, copy=False)
                if time.monotonic() - written > SECONDS_AT_RISK:
                    _write_part(folder, fresh)
                    fresh, written = {}, time.monotonic()
            if not crew.leads:
                _write_part(folder, fresh)
            crew.wait()
        except BaseException:
            with suppress(StorageError):  # what has ended the work is the one to tell
                _write_part(folder, fresh)
            raise
        if crew.leads:
            yield from _in_order(len(pieces), fresh, _finished(folder))

    if crew.leads:
        cached_table(path, shape, dtype, rest)
        durable.remove(folder)
    else:
        durable.check_room(folder, math.prod(shape) * np.dtype(dtype).itemsize // crew.size)
        for _ in rest():
            pass
    crew.wait()  # the table has its name
    return np.load(path, mmap_mode="r")


def _write_part(folder: Path, pieces: Mapping[int, np.ndarray]) -> None:
    """Write finished pieces down, whole or not at all."""
    if not pieces:
        return
    first, last = min(pieces), max(pieces)

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            named: dict[str, Any] = {str(number): values for number, values in pieces.items()}
            np.savez(file, **named)

    durable.write_with(folder / f"{first:08d}-{last:08d}.npz", write)


def _finished(folder: Path) -> dict[int, Path]:
    """Piece → the file that has it; a damaged file has none."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("[0-9]*.npz")):
        with suppress(OSError, ValueError, zipfile.BadZipFile), np.load(path) as part:
            found |= {int(name): path for name in part.files}
    return found


def _in_order(
    count: int, fresh: Mapping[int, np.ndarray], finished: Mapping[int, Path]
) -> Iterator[np.ndarray]:
    """The values of all pieces; one file is open at a time."""
    opened: Path | None = None
    part: Any = None
    for number in range(count):
        if number in fresh:
            yield fresh[number]
            continue
        path = finished[number]
        try:
            if path != opened:
                opened, part = path, np.load(path)
            yield part[str(number)]
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            path.unlink(missing_ok=True)
            raise StorageError(
                f"{path} is damaged and was removed", "the same command computes what was in it again"
            ) from error
