"""Several processes that train one model: each takes a share of every batch, gradients are averaged.

The first process leads: it alone writes, samples, logs and listens to signals. The others follow it through
the same steps with the same weights, because all of them apply the same averaged gradient.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

from t2i.config import TrainConfig
from t2i.devices import pick_device
from t2i.errors import ModelError, T2IError, UsageError

PATIENCE = timedelta(days=7)  # a dead process closes its sockets at once; a slow one is only slow
SECONDS_TO_LEAVE = 10


class Team:
    """One process's place among those that train together.

    Args:
        rank: 0 for the leader.
        size: How many processes there are; 1 needs no others and costs nothing.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.leads = rank == 0

    def share(self, rows: np.ndarray) -> np.ndarray:
        """This process's part of a batch, (B,) to (B / size,): every size-th row."""
        return rows[self.rank :: self.size]

    def seed(self, seed: int, step: int) -> int:
        """Seed of the noise of one step: another stream for every run seed, process and step."""
        return (seed << 32) + (self.rank << 24) + step

    @torch.no_grad()
    def average(self, gradients: Sequence[Tensor], figures: Mapping[str, float]) -> dict[str, float]:
        """Replace gradients by their mean over the processes, in place; the same for the figures.

        Raises:
            ModelError: Another process has died.
        """
        if self.size == 1:
            return dict(figures)
        flat = torch.cat([*(value.reshape(-1) for value in gradients), torch.tensor([*figures.values()])])
        with _others_alive():
            dist.all_reduce(flat)
        flat /= self.size
        parts = flat.split([*(value.numel() for value in gradients), len(figures)])
        for value, mean in zip(gradients, parts, strict=False):  # one part more: the figures
            value.copy_(mean.view_as(value))
        return dict(zip(figures, parts[-1].tolist(), strict=True))

    def wait(self) -> None:
        """Go on when all processes are here.

        Raises:
            ModelError: Another process has died.
        """
        if self.size == 1:
            return
        with _others_alive():
            dist.barrier()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The leader runs the block alone, then the others: they find in caches what it has computed."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


@contextmanager
def _others_alive() -> Iterator[None]:
    """Tell what torch says of a broken connection, with places in its own source, in words for a person."""
    try:
        yield
    except RuntimeError as error:
        raise ModelError(
            "another process of this training has failed or was killed",
            "continue with --resume latest; where memory is short, with fewer --num-processes",
        ) from error


def check_processes(config: TrainConfig) -> None:
    """Refuse a device that is not here, and processes that cannot share its work.

    Raises:
        UsageError: Also for more than one process on a GPU, or a batch that cannot be shared out evenly.
    """
    device, size = pick_device(config.device).type, config.num_processes
    if size == 1:
        return
    if config.batch_size % size:
        raise UsageError(
            f"batch size {config.batch_size} cannot be shared by {size} processes", "choose a multiple"
        )
    if device != "cpu":
        raise UsageError(
            f"--num-processes {size} is for a CPU, and this run is on {device}",
            "add --device cpu, or use one process",
        )


@contextmanager
def team(config: TrainConfig) -> Iterator[Team]:
    """Start the other processes of a run that `check_processes` lets pass, and end them with it."""
    size = config.num_processes
    if size == 1:
        yield Team()
        return
    threads = torch.get_num_threads()
    share = max(1, threads // size)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        others = [
            context.Process(target=_follow, args=(config, rank, share, str(meeting)), daemon=True)
            for rank in range(1, size)
        ]
        for other in others:
            other.start()
        try:
            torch.set_num_threads(share)
            _join(0, size, meeting)
            yield Team(0, size)
        finally:
            torch.set_num_threads(threads)
            if dist.is_initialized():
                dist.destroy_process_group()  # closes the sockets: a waiting process ends
            for other in others:
                other.join(SECONDS_TO_LEAVE)
                if other.is_alive():
                    other.kill()


def _join(rank: int, size: int, meeting: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=PATIENCE
    )


def _follow(config: TrainConfig, rank: int, threads: int, meeting: str) -> None:
    """The life of a process that does not lead."""
    from t2i import environment
    from t2i.dataset import read_folder
    from t2i.training import run_stages

    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to all; the leader decides
        signal.signal(number, signal.SIG_IGN)
    environment.prepare(offline=True, quiet=True)
    torch.set_num_threads(threads)
    try:
        _join(rank, config.num_processes, Path(meeting))
        folder = read_folder(Path(config.dataset), config.captions)
        for _ in run_stages(config, folder, Team(rank, config.num_processes), threading.Event()):
            pass
    except T2IError:
        pass  # the leader has met the same failure, or has gone, and says so
