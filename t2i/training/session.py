"""The run folder's lock and the signals that end a run between two steps."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from t2i import durable
from t2i.dataset import HASHES
from t2i.errors import Interrupted, StorageError, T2IError

LOCK, CACHE = ".lock", "cache"


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Hold the run folder for this process; the system lets go of it when the process dies.

    A folder that was made for this run and is still empty when it fails goes with it.
    """
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
        with open(output / LOCK, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StorageError(
                    f"{output} is in use by another t2i train", "choose another --output"
                ) from error
            try:
                yield
            except BaseException:
                _withdraw(output, made)
                raise
    except T2IError:
        raise
    except OSError as error:
        raise durable.storage_error(output, error) from error


def _withdraw(output: Path, made: Sequence[Path]) -> None:
    """Remove the folders that were made, innermost first, if no work was written in them."""
    of_no_use = (output / LOCK, output / CACHE / HASHES)
    if not made or any(path.is_file() and path not in of_no_use for path in output.rglob("*")):
        return
    durable.remove(output)
    with suppress(OSError):
        for folder in made[1:]:
            folder.rmdir()


class Stop(threading.Event):
    """Set when the run shall end after the present step."""

    def __init__(self) -> None:
        super().__init__()
        self.immediate = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that has no checkpoint to save: a signal ends it where it is.

        Raises:
            Interrupted: Then. Tables keep the pieces of theirs that are finished.
        """
        self.immediate = True
        try:
            if self.is_set():
                raise KeyboardInterrupt
            yield
        except KeyboardInterrupt as error:
            raise Interrupted(
                "stopped before the first step of the stage; what was computed once and for all stays",
                "the same command goes on",
            ) from error
        finally:
            self.immediate = False


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """SIGINT and SIGTERM are noted, so that the loop stops between two steps; a second is immediate."""
    stopped, owner = Stop(), os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, frame: object) -> None:
        if os.getpid() != owner:  # a process that decodes, to which a terminal sends the signal too
            return
        again = stopped.is_set()
        stopped.set()
        if again or stopped.immediate:
            raise KeyboardInterrupt

    kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
