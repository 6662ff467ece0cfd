"""Workers as actors of Ray, on this machine or on the machines of a cluster.

Ray's ports are open to the network, and whoever may speak to them may run code. So Ray's token
authentication is always on: a local cluster gets a token that lives as long as it does, a running one has to
ask for its own. No dashboard, no usage statistics. Ray is imported only here, and only when asked for.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata, util
from typing import Any

from t2i.batch.workers.worker import Opening, Worker, dumps
from t2i.errors import ResourceError, T2IError, UsageError

LEAST_VERSION = (2, 54)
"""Of Ray: those before let a web page run code (CVE-2025-62593, CVE-2026-27482) or had no token."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_agent_register_timeout_ms": "30000",  # a busy machine needs more than the 15 s that Ray gives itself
    "RAY_worker_niceness": "0",  # they are no background work here
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of what it will do one day
}
OBJECT_STORE_BYTES = 512 * 1024**2  # of a local cluster; larger answers go to the disk
PATIENCE_S = 60.0
SECONDS_TO_KNOCK = 10.0
ACCELERATORS = ("cuda", "xpu")


def check_ray(insecure: bool) -> None:
    """Refuse a machine without Ray, or with one that cannot protect itself.

    Args:
        insecure: An old one will do.

    Raises:
        UsageError: Then.
    """
    install = 'pip install "t2i[ray]"'
    if util.find_spec("ray") is None:
        raise UsageError("--engine ray needs the package ray", install)
    version, least = metadata.version("ray"), ".".join(map(str, LEAST_VERSION))
    if not insecure and tuple(map(int, re.findall(r"\d+", version)[:2])) < LEAST_VERSION:
        raise UsageError(f"--engine ray: ray {version} has known holes, {least} is needed", install)


@contextmanager
def connected(address: str | None, insecure: bool, workers: int) -> Iterator[Any]:
    """The module `ray`, connected to a cluster.

    Args:
        address: Of a running cluster; None starts one for as long as this lasts.
        insecure: The running cluster may be open to everybody.
        workers: For how many a new cluster has room.

    Raises:
        ResourceError: It does not start or answer, or a running one asks for no token.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not insecure:
        os.environ["RAY_AUTH_MODE"] = "token"
    if address is None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with tempfile.TemporaryDirectory(
        prefix="t2i-", dir=_short_folder(), ignore_cleanup_errors=True
    ) as folder:
        try:
            with _as_resource_error(address), _signals_kept(), _stderr_closed():
                if address is None:
                    ray.init(
                        "local", num_cpus=workers, include_dashboard=False, _temp_dir=folder,
                        object_store_memory=OBJECT_STORE_BYTES, **quiet,
                    )  # fmt: skip
                else:
                    _check_reachable(address)
                    ray.init(address, **quiet)
                    if not insecure:
                        _check_guarded(ray)
                _keep_quiet()
            yield ray
        finally:
            with suppress(Exception):
                ray.shutdown()


def cluster_devices(ray: Any) -> list[str]:
    """A worker for each GPU of a cluster; without GPUs, one for each machine."""
    gpus = int(ray.cluster_resources().get("GPU", 0))
    return ["cuda"] * gpus or ["cpu"] * sum(node["Alive"] for node in ray.nodes())


def cluster_threads(ray: Any, workers: int) -> int:
    """Threads of each worker, where they share all processors of a cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)) // workers)


@dataclass
class Actors:
    """A crew of actors; see `t2i.batch.workers.sharing.Crew`.

    Attributes:
        ray: The module, connected.
        devices: One for each worker.
        threads: Of each.
        offline: Never ask the network.
        quiet: Keep the libraries' own lines out of the logs.
    """

    ray: Any
    devices: Sequence[str]
    threads: int
    offline: bool
    quiet: bool
    asked: dict[Any, Any] = field(default_factory=dict)
    """Reference of an answer to come → actor."""

    def start(self, device: str) -> Any:
        """A new actor, on any machine with room for one of its kind."""
        options = {"num_cpus": 1, "num_gpus": int(device in ACCELERATORS), "scheduling_strategy": "SPREAD"}
        actor = self.ray.remote(**options)(Worker).remote()
        self.send(actor, dumps(Opening(device, self.threads, os.getcwd(), self.offline, self.quiet)))
        return actor

    def send(self, worker: Any, message: str) -> None:
        """See `Crew.send`."""
        self.asked[worker.answer.remote(message)] = worker

    def answers(self, seconds: float) -> list[tuple[Any, bytes | str]]:
        """See `Crew.answers`."""
        if not self.asked:
            return []
        self.ray.wait([*self.asked], timeout=seconds)
        ready, _ = self.ray.wait([*self.asked], num_returns=len(self.asked), timeout=0)
        found: list[tuple[Any, bytes | str]] = []
        for reference in ready:
            worker = self.asked.pop(reference)
            try:
                found.append((worker, self.ray.get(reference)))
            except self.ray.exceptions.RayError as error:
                found.append((worker, _cause(error)))
        return found

    def end(self, worker: Any) -> None:
        """See `Crew.end`."""
        self.asked = {reference: actor for reference, actor in self.asked.items() if actor is not worker}
        with suppress(self.ray.exceptions.RayError):
            self.ray.kill(worker)


def _cause(error: Exception) -> str:
    """How an actor has died, by the many lines that Ray writes about it."""
    text = str(getattr(error, "cause", None) or error)
    because = re.search(r"because (its [^.:]+)", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return because[1] if because else (lines or [type(error).__name__])[-1][:200]


def _keep_quiet() -> None:
    """Ray prints what it knows of dead workers to stdout, where only results belong; no option says no."""
    from ray._private import worker

    worker.print_to_stdstream = lambda data, ignore_prefix: None


def _check_reachable(address: str) -> None:
    """Knock at a port: Ray itself would try for a quarter of an hour.

    Raises:
        OSError: Nobody is there.
    """
    found = re.fullmatch(r"(?:ray://)?\[?([^\[\]]+)\]?:(\d+)", address)
    if found is not None:
        socket.create_connection((found[1], int(found[2])), SECONDS_TO_KNOCK).close()


def _check_guarded(ray: Any) -> None:
    """Refuse a running cluster that lets everybody in.

    Raises:
        ResourceError: Then.
    """
    mode = ray.get(ray.remote(num_cpus=0)(_auth_mode).remote(), timeout=PATIENCE_S)
    if mode != "token":
        raise ResourceError(
            "the Ray cluster asks for no token: everybody who reaches it may run code on it",
            "start it with RAY_AUTH_MODE=token, or pass --insecure-cluster",
        )


def _auth_mode() -> str:
    return os.environ.get("RAY_AUTH_MODE", "")


@contextmanager
def _as_resource_error(address: str | None) -> Iterator[None]:
    """Ray raises many kinds of errors when it does not start or cannot be reached, Exception among them."""
    try:
        yield
    except T2IError:
        raise
    except Exception as error:
        text = getattr(error, "strerror", None) or " ".join(str(error).split())
        text = re.split(r"(?<=\.) ", text)[0][:300]
        if address is None:
            message, hint = f"Ray did not start: {text}", "again may help; or leave --engine ray away"
        else:
            message = f"the Ray cluster {address} cannot be used: {text}"
            hint = "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH says its token; --ray-address says where it is"
        raise ResourceError(message, hint) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts its own handler for SIGTERM in the place of ours."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError):  # not in the main thread, where Ray leaves them alone too
                signal.signal(number, handler)


@contextmanager
def _stderr_closed() -> Iterator[None]:
    """Ray's C++ part writes there what it then tells as an exception."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _short_folder() -> str | None:
    """Where Ray's sockets may be: the whole path of one has at most 107 bytes."""
    return "/tmp" if os.path.isdir("/tmp") else None
