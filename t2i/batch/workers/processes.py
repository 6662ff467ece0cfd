"""Workers as processes of this machine, spoken to over a socket each.

A worker that dies closes its end, so that nothing waits for it; a parent that dies closes its own, and the
worker ends after the parcel it is drawing. Ctrl-C in a terminal reaches the parent alone.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import t2i
from t2i.batch.workers.worker import Opening, dumps

START = "import sys; sys.path.append(sys.argv[1]); from t2i.batch.workers import worker; worker.serve({})"
SECONDS_TO_DIE = 10


@dataclass(eq=False)
class _Process:
    process: subprocess.Popen[bytes]
    connection: Connection


@dataclass
class Processes:
    """A crew of processes; see `t2i.batch.workers.sharing.Crew`.

    Attributes:
        devices: One for each worker.
        threads: Of each.
        offline: Never ask the network.
        quiet: Keep the libraries' own lines out of stderr.
    """

    devices: Sequence[str]
    threads: int
    offline: bool
    quiet: bool
    running: list[_Process] = field(default_factory=list)

    def start(self, device: str) -> _Process:
        """A new process on a device."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            # Not started by the folder's or the parent's main module: neither may be run again.
            command = [sys.executable, "-P", "-c", START.format(theirs.fileno()), str(_root())]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            worker = _Process(process, Connection(ours.detach()))
        self.running.append(worker)
        opening = Opening(device, self.threads, os.getcwd(), self.offline, self.quiet)
        self.send(worker, dumps(opening))
        return worker

    def send(self, worker: _Process, message: str) -> None:
        """Send a message; see `Crew.send`."""
        with suppress(OSError):
            worker.connection.send_bytes(message.encode())

    def answers(self, seconds: float) -> list[tuple[Any, bytes | str]]:
        """See `Crew.answers`."""
        workers = {worker.connection: worker for worker in self.running}
        found: list[tuple[Any, bytes | str]] = []
        for ready in wait(list(workers), seconds):
            connection = cast(Connection, ready)
            worker = workers[connection]
            try:
                found.append((worker, connection.recv_bytes()))
            except (EOFError, OSError):
                found.append((worker, _cause(worker.process)))
        return found

    def end(self, worker: _Process) -> None:
        """Kill one: it holds no file."""
        self.running.remove(worker)
        worker.connection.close()
        worker.process.kill()
        worker.process.wait()

    def close(self) -> None:
        """Kill all."""
        for worker in [*self.running]:
            self.end(worker)


def _cause(process: subprocess.Popen[bytes]) -> str:
    """How a process that has closed its end has died."""
    try:
        code = process.wait(SECONDS_TO_DIE)
    except subprocess.TimeoutExpired:
        return "it does not speak any more"
    return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"


def _root() -> Path:
    """Where this t2i is imported from."""
    return Path(t2i.__file__).parents[1]
