"""Hands the pictures of a batch out to workers, writes what comes back, and outlives every worker that dies.

A parcel is what one batch of the denoiser takes, so that a worker which dies takes little with it. It is
drawn again as it was; if that kills a second worker, its pictures go out one by one, and the one that kills
its worker again is a failed picture. A dead worker is replaced, unless it never started or nothing gets done.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from t2i.batch.drawing import Limits, group_jobs, save
from t2i.batch.manifest import Manifest, Record
from t2i.batch.plan import BatchJob, identity
from t2i.batch.workers.worker import Order, dumps, read_answer
from t2i.batch.writing import Writer
from t2i.config import GenerateConfig
from t2i.errors import ModelError, ResourceError, T2IError
from t2i.version import __version__

SECONDS_BETWEEN_LOOKS = 0.2  # at whether somebody asked to stop, and what is on the disk by now
PATIENCE_S = 600.0
"""For a worker to start: a cluster may first have to start a machine for it."""
DEATHS_IN_A_ROW = 5
UNKNOWN_SIZE = 4  # pictures in a parcel, where the model's size is not known before it is loaded

Tell = Callable[[str], None]
_Result = tuple[BatchJob, bytes | Exception, float, dict[str, Any]]
"""A picture's file or why there is none, its seconds, and what `t2i.batch.drawing.remarks` says."""


class WorkersLost(ResourceError):
    """No worker is left, and not everything is drawn."""


class Crew(Protocol):
    """Starts workers and carries messages. A worker is whatever `start` returns."""

    devices: Sequence[str]

    def start(self, device: str) -> Any:
        """A new worker, which is about to answer its opening message."""

    def send(self, worker: Any, message: str) -> None:
        """Send an order; if the worker is dead by now, `answers` tells."""

    def answers(self, seconds: float) -> list[tuple[Any, bytes | str]]:
        """What comes within that time, at most one thing of each: an answer, or in words how it died."""

    def end(self, worker: Any) -> None:
        """Let one go, dead or not."""


@dataclass
class _Parcel:
    jobs: Sequence[BatchJob]
    deaths: int = 0


@dataclass(eq=False)
class _Hand:
    """One worker, as the parent sees it."""

    device: str
    worker: Any
    parcel: _Parcel | None = None
    opened: bool = False
    began: float = field(default_factory=time.monotonic)


def share(
    crew: Crew,
    todo: Sequence[BatchJob],
    folder: Path,
    manifest: Manifest,
    metadata: str,
    overwrite: bool,
    limits: Limits,
    tell: Tell,
    warn: Tell,
) -> Generator[Record, None, None]:
    """`t2i.batch.draw_batch` by the workers of a crew, one on each of its devices.

    Raises:
        WorkersLost: No worker is left.
        StorageError: The manifest cannot be written.
    """
    writer, not_drawn, not_written = Writer(), 0, 0  # the last is counted by the writer's thread

    def store(result: _Result) -> Record:
        nonlocal not_written
        job, encoded, seconds, remarks = result
        record = save(job, encoded, seconds, folder, manifest, overwrite, remarks)
        not_written += record["status"] == "failed" and isinstance(encoded, bytes)
        return record

    def is_enough() -> bool:
        too_many = limits.failures is not None and not_drawn + not_written >= limits.failures
        return too_many or writer.broken is not None or limits.halting()

    with writer:
        for result in _Sharing(crew, metadata, limits.stopping, tell, warn).results(todo):
            if result is not None:
                encoded = result[1]
                not_drawn += isinstance(encoded, Exception)
                writer.put(partial(store, result), len(encoded) if isinstance(encoded, bytes) else 0)
            yield from writer.written()
            if is_enough():
                break
        yield from writer.finish()


@dataclass
class _Sharing:
    """Who draws what."""

    crew: Crew
    metadata: str
    stopping: Callable[[], bool]
    tell: Tell
    warn: Tell
    waiting: deque[_Parcel] = field(default_factory=deque)
    hands: dict[Any, _Hand] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    deaths: int = 0
    last_death: str = ""

    def results(self, todo: Sequence[BatchJob]) -> Iterator[_Result | None]:
        """What becomes of the pictures; None now and then, for who has something else to do meanwhile.

        Raises:
            WorkersLost: No worker is left.
        """
        yield from ((job, job.problem, 0.0, {}) for job in todo if job.problem is not None)
        for jobs in group_jobs([job for job in todo if job.problem is None]):
            evenly = -(-len(jobs) // len(self.crew.devices))
            step = min(evenly, _parcel_size(jobs[0].config, self.crew.devices[0]))
            self.waiting.extend(_Parcel(jobs[at : at + step]) for at in range(0, len(jobs), step))
        for device in self.crew.devices[: len(self.waiting)]:
            self._start(device)
        while self._go_on():
            yield None
            for worker, answer in self.crew.answers(SECONDS_BETWEEN_LOOKS):
                hand = self.hands[worker]
                if isinstance(answer, str):
                    yield from self._lost(hand, answer)
                elif hand.opened:
                    yield from self._taken(hand, answer)
                else:
                    self._opened(hand, answer)

    def _go_on(self) -> bool:
        """Give every idle worker a parcel; False when nothing is left to do and to wait for.

        Raises:
            WorkersLost: Nobody is left to do it.
        """
        if self.stopping():
            self.waiting.clear()
        for hand in [*self.hands.values()]:
            self._give(hand)
            if not hand.opened and time.monotonic() - hand.began > PATIENCE_S:
                self._dismiss(hand, f"no answer for {PATIENCE_S:.0f} s")
        if not self.waiting and not any(hand.parcel for hand in self.hands.values()):
            return False
        if not self.hands:
            left = sum(len(parcel.jobs) for parcel in self.waiting)
            raise WorkersLost(
                f"no worker is left ({self.last_death}); {left} pictures are not drawn",
                "the same command goes on with the rest",
            )
        return True

    def _start(self, device: str) -> None:
        worker = self.crew.start(device)
        self.hands[worker] = _Hand(device, worker)

    def _opened(self, hand: _Hand, answer: bytes) -> None:
        values, _ = read_answer(answer)
        refused = values.get("refused")
        if values["t2i"] != __version__:
            refused = f"{values['where']} has t2i {values['t2i']}, here is {__version__}"
        if refused is not None:
            self._dismiss(hand, refused)
            return
        self.tell(f"worker on {hand.device}: {values['where']}")
        hand.opened = True
        self._give(hand)

    def _give(self, hand: _Hand) -> None:
        if not (hand.opened and hand.parcel is None and self.waiting):
            return
        hand.parcel = self.waiting.popleft()
        model = hand.parcel.jobs[0].config.model
        if model not in self.models:
            self.models[model] = identity(model)
        self.crew.send(hand.worker, dumps(Order.of(hand.parcel.jobs, self.models[model], self.metadata)))

    def _taken(self, hand: _Hand, answer: bytes) -> Iterator[_Result]:
        """What an answer holds, after its worker has got the next parcel."""
        assert hand.parcel is not None
        jobs, hand.parcel, self.deaths = {job.index: job for job in hand.parcel.jobs}, None, 0
        if not self.stopping():
            self._give(hand)
        values, files = read_answer(answer)
        for told, say in ((values["told"], self.tell), (values["warned"], self.warn)):
            for line in (f"{hand.device}: {line}" for line in told):
                if line not in self.said:
                    self.said.add(line)
                    say(line)
        for outcome in values["outcomes"]:
            index, encoded = outcome["index"], files.get(outcome["index"])
            failure = T2IError(outcome.get("error", ""))
            failure.exit_code = outcome.get("exit_code", T2IError.exit_code)
            made = failure if encoded is None else encoded
            yield jobs[index], made, outcome["seconds"], outcome.get("remarks", {})

    def _lost(self, hand: _Hand, reason: str) -> Iterator[_Result]:
        """A worker has died: its parcel goes back, and another one takes its place."""
        parcel, self.deaths = hand.parcel, self.deaths + 1
        self._dismiss(hand, reason)
        if parcel is not None:
            parcel.deaths += 1
            if parcel.deaths == 1:
                self.waiting.append(parcel)
            elif len(parcel.jobs) > 1:
                self.waiting.extend(_Parcel([job], 1) for job in parcel.jobs)
            else:
                yield parcel.jobs[0], ModelError(f"each worker that drew it died: {reason}"), 0.0, {}
        if self.waiting and hand.opened and self.deaths < DEATHS_IN_A_ROW and not self.stopping():
            self._start(hand.device)

    def _dismiss(self, hand: _Hand, reason: str) -> None:
        self.crew.end(hand.worker)
        del self.hands[hand.worker]
        self.last_death = reason
        line = f"the worker on {hand.device} " + ("died" if hand.opened else "did not start") + f": {reason}"
        if hand.parcel is not None:
            line += f"; what it was drawing is drawn again ({len(hand.parcel.jobs)} of the pictures)"
        self.warn(line)


def _parcel_size(config: GenerateConfig, device: str) -> int:
    """How many pictures of a config a worker denoises together."""
    if config.deterministic:
        return 1
    if config.batch_size is not None:
        return config.batch_size
    if config.width is None or config.height is None:
        return UNKNOWN_SIZE
    import torch

    from t2i import pipeline

    return pipeline.default_batch_size(config, torch.device(device))
