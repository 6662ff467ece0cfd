"""Several processes that train one model: each takes a share of every batch, gradients are averaged.

The first process leads: it alone writes, samples, logs and listens to signals. The others follow it through
the same steps with the same weights, because all of them apply the same averaged gradient. They are started
here (on a CPU), or by a launcher such as `accelerate launch` and `torchrun`, which says so in RANK and
WORLD_SIZE.
"""

from __future__ import annotations

import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

from t2i.config import TrainConfig
from t2i.dataset import Crew
from t2i.devices import pick_device
from t2i.errors import ModelError, PartialError, T2IError, UsageError

PATIENCE = timedelta(days=7)  # a dead process closes its sockets at once; a slow one is only slow
SECONDS_TO_LEAVE = 10


class Team(Crew):
    """One process's place among those that train together.

    Args:
        rank: 0 for the leader.
        size: How many processes there are; 1 needs no others and costs nothing.

    Attributes:
        deadline: When the present stage shall end, by `time.monotonic`.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.deadline = math.inf

    def share(self, rows: np.ndarray) -> np.ndarray:
        """This process's part of a batch, (B,) to (B / size,): every size-th row."""
        return rows[self.rank :: self.size]

    @torch.no_grad()
    def average(self, gradients: Sequence[Tensor], figures: Mapping[str, float]) -> dict[str, float]:
        """Replace gradients by their mean over the processes, in place; the same for the figures.

        Raises:
            ModelError: Another process has died.
        """
        if self.size == 1:
            return dict(figures)
        told = torch.tensor([*figures.values()], device=gradients[0].device)
        flat = torch.cat([*(value.reshape(-1) for value in gradients), told])
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
            work = dist.barrier(async_op=True)
            while not work.is_completed():  # torch itself would wait where no signal gets through
                time.sleep(0.005)
            work.wait()

    def check(self, done: int, pieces: int) -> None:
        """Refuse to go on encoding when the time is up.

        Raises:
            PartialError: Then.
        """
        if self.time_is_up():
            raise PartialError(
                f"--max-train-time is over before the first step: {done} of {pieces} batches of pictures are "
                f"encoded{' by this process' * (self.size > 1)}",
                "they stay: the same command goes on, and with more time it comes to training",
            )

    def time_is_up(self) -> bool:
        """Whether the stage has had its `--max-train-time`."""
        return time.monotonic() > self.deadline


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
        UsageError: Also for more processes on a GPU than a launcher has started, or a batch that cannot be
            shared out evenly.
    """
    device, found = pick_device(config.device).type, launched()
    size = config.num_processes if found is None else found[1]
    if size == 1:
        return
    if config.num_processes not in (1, size):
        raise UsageError(
            f"--num-processes {config.num_processes}: a launcher has started {size} processes",
            "leave the option out; the launcher decides",
        )
    if config.batch_size % size:
        raise UsageError(
            f"batch size {config.batch_size} cannot be shared by {size} processes", "choose a multiple"
        )
    if found is None and device != "cpu":
        raise UsageError(
            f"--num-processes {size} is for a CPU, and this run is on {device}",
            "add --device cpu, or start it with: accelerate launch -m t2i train ...",
        )


def launched() -> tuple[int, int] | None:
    """Rank and number of the processes that a launcher has started; None where there is no launcher.

    Raises:
        UsageError: RANK or WORLD_SIZE is no number.
    """
    try:
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError as error:
        raise UsageError("RANK and WORLD_SIZE are set by a launcher, and are no numbers") from error
    return (rank, size) if size > 1 else None


def follows() -> bool:
    """Whether a launcher has started this process to follow another: it tells nobody anything."""
    found = launched()
    return found is not None and found[0] > 0


@contextmanager
def team(config: TrainConfig) -> Iterator[Team]:
    """Start the other processes of a run that `check_processes` lets pass, and end them with it.

    Raises:
        ModelError: One of them has ended before all had begun.
    """
    found = launched()
    if found is not None:
        _join_launched(config, *found)
        try:
            yield Team(*found)
        finally:
            dist.destroy_process_group()
        return
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
            _meet(size, meeting, others)
            yield Team(0, size)
        finally:
            torch.set_num_threads(threads)
            if dist.is_initialized():
                dist.destroy_process_group()  # closes the sockets: a waiting process ends
            for other in others:
                other.join(SECONDS_TO_LEAVE)
                if other.is_alive():
                    other.kill()


def _meet(size: int, meeting: Path, others: Sequence[multiprocessing.Process]) -> None:
    """Join the others as their leader, or tell that one of them has ended and will never come.

    torch would wait for it in native code, for as long as for a slow one. So the others are waited for until
    they are about to join, and the joining itself is left to a thread, should one of them end in it.
    """
    failures: list[BaseException] = []

    def join() -> None:
        try:
            _join(0, size, meeting)
        except BaseException as error:
            failures.append(error)

    while not all(_arrival(meeting, rank).exists() for rank in range(1, size)):
        _check_alive(others)
        time.sleep(0.05)
    joining = threading.Thread(target=join, daemon=True)
    joining.start()
    while joining.is_alive():
        joining.join(0.1)
        if joining.is_alive():
            _check_alive(others)
    if failures:
        raise failures[0]


def _arrival(meeting: Path, rank: int) -> Path:
    """The file by which a process says that it is about to join."""
    return meeting.with_name(f"{meeting.name}-{rank}")


def _check_alive(others: Sequence[multiprocessing.Process]) -> None:
    if any(other.exitcode is not None for other in others):
        raise ModelError(
            "another process of this training has ended before it had begun",
            "what it said is above; where memory is short, use fewer --num-processes",
        )


def _join_launched(config: TrainConfig, rank: int, size: int) -> None:
    """Meet the processes that a launcher has started, each with a GPU of its own where there are GPUs."""
    with _ended_by_signals():
        _join_by_environment(config, rank, size)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A signal ends the process in this block: native code waits in it, and there is nothing to save yet."""
    before = {}
    with suppress(ValueError):  # not in the main thread: whoever owns it decides about signals
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _join_by_environment(config: TrainConfig, rank: int, size: int) -> None:
    if pick_device(config.device).type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
        dist.init_process_group("nccl", rank=rank, world_size=size, timeout=PATIENCE)
    else:
        dist.init_process_group("gloo", rank=rank, world_size=size, timeout=PATIENCE)


def _join(rank: int, size: int, meeting: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=PATIENCE
    )


def _follow(config: TrainConfig, rank: int, threads: int, meeting: str) -> None:
    """The life of a process that does not lead and was started here."""
    from t2i import environment

    _leave_signals_to_leader()
    threading.Thread(target=_leave_with_leader, daemon=True).start()
    environment.prepare(offline=True, quiet=True)
    torch.set_num_threads(threads)
    try:
        _arrival(Path(meeting), rank).touch()
        _join(rank, config.num_processes, Path(meeting))
        follow(config, Team(rank, config.num_processes))
    except T2IError:
        pass  # the leader has met the same failure, or has gone, and says so


def follow(config: TrainConfig, place: Team) -> None:
    """Go through the stages of a run that another process leads."""
    from t2i.training import run_stages
    from t2i.training.inputs import check_inputs
    from t2i.training.reading import read_dataset
    from t2i.training.session import Stop

    _leave_signals_to_leader()
    folder = check_inputs(config, read_dataset(config))
    for _ in run_stages(config, folder, place, Stop()):
        pass


def _leave_signals_to_leader() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to all; the leader decides
        signal.signal(number, signal.SIG_IGN)


def _leave_with_leader() -> None:
    """End this process when the one that started it is gone, however that was."""
    leader = multiprocessing.parent_process()
    if leader is not None:
        leader.join()
        os._exit(1)
