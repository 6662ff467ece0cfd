"""Which workers a run has: what `--devices` and `--engine` mean."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from t2i.batch.drawing import Limits
from t2i.batch.manifest import Manifest, Record
from t2i.batch.plan import BatchJob
from t2i.batch.workers import ray_actors
from t2i.batch.workers.processes import Processes
from t2i.batch.workers.sharing import Crew, share
from t2i.config.batch import BatchConfig


def check_crew(config: BatchConfig) -> None:
    """Refuse, before anything is planned or written, workers that this machine cannot have.

    Raises:
        UsageError: A device that is not here, or no usable Ray.
    """
    if config.engine == "ray":
        ray_actors.check_ray(config.insecure_cluster)
    if config.devices is not None and config.ray_address is None:
        local_devices(config.devices)


def count_workers(config: BatchConfig) -> int | None:
    """How many draw at once; None where only a running cluster knows.

    Raises:
        UsageError: A device that is not here.
    """
    if not config.is_shared:
        return 1
    if config.devices not in (None, "all"):
        return len(str(config.devices).split(","))
    return len(local_devices("all")) if config.ray_address is None else None


def draw_shared(
    config: BatchConfig,
    todo: Sequence[BatchJob],
    folder: Path,
    manifest: Manifest,
    limits: Limits,
    tell: Callable[[str], None] | None,
    warn: Callable[[str], None],
) -> Generator[Record, None, None]:
    """`t2i.batch.draw_batch` by the workers that a run asks for.

    Close it (`contextlib.closing`) before the manifest where it may not be read to its end.

    Args:
        config: Of the run.
        todo: What is missing; `find_refusals` has refused those with a device of their own.
        folder: Where the pictures go.
        manifest: Of this folder.
        limits: When to stop early; what other workers are drawing then is drawn by the next run.
        tell: Called with lines for a person: what was chosen.
        warn: Called with lines for a person: what had to change, and which worker died.

    Yields:
        The line of each picture that was made or failed, when it is on the disk.

    Raises:
        WorkersLost: No worker is left.
        ResourceError: There is no such Ray cluster.
        StorageError: The manifest cannot be written.
    """
    if todo:
        tell = tell or (lambda line: None)
        with _opened(config) as crew:
            if config.devices == "all" and warn is not None and [*crew.devices] == ["cpu"]:
                warn("--devices all: there is no GPU here, one worker draws on the CPU; cpu,cpu makes two")
            yield from share(
                crew, todo, folder, manifest, config.metadata, config.overwrite, limits, tell, warn
            )


@contextmanager
def _opened(config: BatchConfig) -> Iterator[Crew]:
    """The workers of a run, none of them started yet; they end with it."""
    offline, quiet = config.offline, not config.verbose
    if config.engine == "processes":
        devices = local_devices(config.devices or "all")
        processes = Processes(devices, _threads(len(devices)), offline, quiet)
        try:
            yield processes
        finally:
            processes.close()
        return
    address, threads = config.ray_address, 0
    devices = [] if config.devices in (None, "all") else str(config.devices).split(",")
    if address is None:
        devices = [name.partition(":")[0] for name in local_devices(config.devices or "all")]
        threads = _threads(len(devices))
    with ray_actors.connected(address, config.insecure_cluster, len(devices)) as ray:
        devices = devices or ray_actors.cluster_devices(ray)
        threads = threads or ray_actors.cluster_threads(ray, len(devices))
        yield ray_actors.Actors(ray, devices, threads, offline, quiet)


def local_devices(devices: str) -> list[str]:
    """The devices of this machine that `--devices` names; "all" is every GPU, or else the CPU.

    Raises:
        UsageError: One is not here.
    """
    import torch

    from t2i.devices import pick_device

    if devices != "all":
        return [str(pick_device(name)) for name in devices.split(",")]
    kind = pick_device().type
    if kind in ray_actors.ACCELERATORS:
        return [f"{kind}:{index}" for index in range(getattr(torch, kind).device_count())]
    return [kind]


def _threads(workers: int) -> int:
    """Threads inside one operation of each worker of this machine."""
    from t2i.devices import usable_threads

    return max(1, usable_threads() // workers)
