"""Draws what is missing: like settings together, one model in memory, one failure never the end of the rest.

Where a batch fails, its pictures are drawn again in halves until the one that fails is alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i import durable, images, recipes
from t2i.batch.manifest import Manifest, Record
from t2i.batch.plan import BatchJob, in_common
from t2i.batch.writing import Writer
from t2i.config import GenerateConfig
from t2i.errors import OutOfMemory, StorageError, T2IError, UsageError
from t2i.jobs import Job
from t2i.naming import picture_format

if TYPE_CHECKING:
    from t2i.pipeline import Picture, Room, StepDone
    from t2i.weights import LoadedModel

FOR_ALL = (OutOfMemory, UsageError)  # it is the settings, which all pictures of a group share
LONGEST_ERROR = 500
MODEL_FIELDS = ("model", "device", "dtype", "deterministic")
ENCODERS = 4  # threads: a batch of large pictures takes longer to compress than a GPU takes for a step


class _Stopped(Exception):
    """Raised while drawing when `Limits` says so."""


@dataclass(frozen=True)
class Limits:
    """When to stop before everything is drawn.

    Attributes:
        failures: So many failed pictures end the run; None: never.
        stopping: Asked before every batch; True ends the run.
        halting: Asked at every step; True ends the run without this batch.
    """

    failures: int | None = None
    stopping: Callable[[], bool] = lambda: False
    halting: Callable[[], bool] = lambda: False


@dataclass
class ModelInMemory:
    """The one model in memory, or why it is not.

    Attributes:
        device: Where it is, instead of where a config says.
    """

    device: str | None = None
    key: tuple[Any, ...] | None = None
    loaded: LoadedModel | None = None
    room: Room | None = None
    failure: Exception | None = None

    def load(self, config: GenerateConfig) -> tuple[LoadedModel, Room]:
        """The model of a config, and what is known of its memory; where it cannot be loaded, why not."""
        from t2i import pipeline

        key = _model_key(config)
        if key != self.key:
            self.key, self.failure = key, None
            self.loaded = self.room = None  # the one before goes first
            try:
                where = config.device if self.device is None else self.device
                self.loaded = pipeline.load(config.replace(device=where))
                self.room = pipeline.Room(self.loaded)
            except Exception as error:
                self.failure = error
        if self.failure is not None:
            raise self.failure
        assert self.loaded is not None and self.room is not None
        return self.loaded, self.room


def draw_batch(
    todo: Sequence[BatchJob],
    folder: Path,
    manifest: Manifest,
    metadata: str = "full",
    overwrite: bool = False,
    limits: Limits | None = None,
    tell: Callable[[str], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Generator[Record, None, None]:
    """Draw pictures; a thread saves each and writes its line of the manifest while the next are drawn.

    However it ends, what was drawn is written first; where it is killed, at most a batch is drawn again, and
    another one's first step. Close it (`contextlib.closing`) before the manifest where it may not be read to
    its end.

    Args:
        todo: What is missing.
        folder: Where the pictures go.
        manifest: Of this folder.
        metadata: As `images.save` has it.
        overwrite: Whether a file that no picture of the batch made may be replaced.
        limits: When to stop early.
        tell: Called with lines for a person: what was chosen.
        warn: Called with lines for a person: what had to change; default: `tell`.

    Yields:
        The line of each picture that was made or failed, when it is on the disk and the next batch is drawn.

    Raises:
        StorageError: The manifest cannot be written.
    """
    limits, model, writer = limits or Limits(), ModelInMemory(), Writer()
    not_drawn = not_written = 0  # the second is counted by the writer's thread

    def store(
        job: BatchJob, outcome: Picture | Exception, seconds: float, encoded: Future[bytes | Exception]
    ) -> Record:
        nonlocal not_written
        record = save(job, encoded.result(), seconds, folder, manifest, overwrite, remarks(outcome, metadata))
        not_written += record["status"] == "failed" and not isinstance(outcome, Exception)
        return record

    def is_enough() -> bool:
        too_many = limits.failures is not None and not_drawn + not_written >= limits.failures
        return too_many or writer.broken is not None or limits.halting()

    def is_enough_at_a_step() -> bool:
        writer.wait()
        return is_enough()

    with ThreadPoolExecutor(ENCODERS, "t2i-encoder") as encoders, writer:
        try:
            for jobs in group_jobs(todo):
                if limits.stopping():
                    break
                for job, outcome, seconds in draw_group(
                    jobs, model, replace(limits, halting=is_enough_at_a_step), tell, warn
                ):
                    not_drawn += isinstance(outcome, Exception)
                    size = 0 if isinstance(outcome, Exception) else outcome.pixels.nbytes
                    encoded = encoders.submit(encode, job, outcome, metadata)
                    writer.put(partial(store, job, outcome, seconds, encoded), size)
                    yield from writer.written()
                    if is_enough():
                        raise _Stopped
        except _Stopped:
            pass
        yield from writer.finish()


def group_jobs(jobs: Sequence[BatchJob]) -> list[list[BatchJob]]:
    """Pictures by what a batch has in common, those of one model together, else in the order of the file.

    What cannot be drawn comes first.
    """
    groups: dict[tuple[Any, ...], dict[tuple[Any, ...], list[BatchJob]]] = {}
    for job in jobs:
        key = in_common(job.config), str(job.problem)
        groups.setdefault(_model_key(job.config), {}).setdefault(key, []).append(job)
    ordered = [group for of_model in groups.values() for group in of_model.values()]
    return sorted(ordered, key=lambda group: group[0].problem is None)  # what surely fails needs no model


def _model_key(config: GenerateConfig) -> tuple[Any, ...]:
    return tuple(getattr(config, name) for name in MODEL_FIELDS)


Outcome = tuple[BatchJob, "Picture | Exception", float]


def draw_group(
    group: Sequence[BatchJob],
    model: ModelInMemory,
    limits: Limits,
    tell: Callable[[str], None] | None,
    warn: Callable[[str], None] | None = None,
) -> Iterator[Outcome]:
    """Each picture of a group of `group_jobs`, or why there is none, with its share of its batch's seconds.

    Raises:
        _Stopped: When `limits` says so.
    """
    began = time.perf_counter()
    try:
        if group[0].problem is not None:
            raise group[0].problem
        from t2i import pipeline

        loaded, room = model.load(group[0].config)
    except Exception as error:
        seconds = time.perf_counter() - began
        yield from ((job, error, seconds / len(group)) for job in group)
        return
    waiting = [list(group)]
    while waiting:
        left = {job.index: job for job in waiting.pop()}
        flight, shared, share = _Flight(limits), frozenset[int](), 0.0
        jobs = [
            Job(job.index, job.prompt, 0, 0, job.seed, job.config.negative_prompt, job.config.guidance_scale)
            for job in left.values()
        ]
        began = time.perf_counter()
        try:
            config, on_step = group[0].config, flight.on_step
            for made in pipeline.generate_each(config, loaded, on_step, jobs, tell, warn, room):
                if flight.indices != shared:
                    shared, share = flight.indices, (time.perf_counter() - began) / len(flight.indices)
                if isinstance(made, pipeline.Failed):
                    yield left.pop(made.job.index), made.error, share
                else:
                    yield left.pop(made.index), made, share
                began = time.perf_counter()
        except _Stopped:
            raise
        except Exception as error:
            seconds = time.perf_counter() - began
            for_all = isinstance(error, FOR_ALL)
            suspects = [job for job in left.values() if for_all or job.index in flight.indices]
            suspects = suspects or list(left.values())
            rest = [job for job in left.values() if job not in suspects]
            if for_all or len(suspects) == 1:
                yield from ((job, error, seconds / len(suspects)) for job in suspects)
                suspects = []
            half = len(suspects) // 2
            waiting += [part for part in (rest, suspects[half:], suspects[:half]) if part]


@dataclass
class _Flight:
    """Which pictures are being denoised; at every step it asks whether to go on."""

    limits: Limits
    indices: frozenset[int] = frozenset()

    def on_step(self, done: StepDone) -> None:
        indices = frozenset(job.index for job in done.jobs)
        if self.limits.halting() or (indices != self.indices and self.limits.stopping()):
            raise _Stopped
        self.indices = indices


def encode(job: BatchJob, outcome: Picture | Exception, metadata: str) -> bytes | Exception:
    """The bytes of a picture's file, or why there are none.

    Args:
        job: The picture; its file name says the format.
        outcome: What `draw_group` made of it.
        metadata: As `images.save` has it.
    """
    if isinstance(outcome, Exception):
        return outcome
    try:
        return images.encode(outcome.pixels, picture_format(Path(job.file)), outcome.recipe, metadata)
    except StorageError as error:
        return error


def save(
    job: BatchJob,
    encoded: bytes | Exception,
    seconds: float,
    folder: Path,
    manifest: Manifest,
    overwrite: bool,
    remarks: Mapping[str, Any] | None = None,
) -> Record:
    """Write a picture and its line; the line of the failure where there is none or it cannot be written.

    Args:
        job: The picture.
        encoded: From `encode`.
        seconds: It took.
        folder: Of the pictures.
        manifest: Of this folder.
        overwrite: Whether a file that no picture of the batch made may be replaced.
        remarks: Of `remarks`.

    Raises:
        StorageError: The manifest cannot be written.
    """
    if isinstance(encoded, bytes):
        data = encoded
        record = _record(job, "done", seconds, file=job.file, sha256=hashlib.sha256(data).hexdigest())
        record |= remarks or {}

        def write(temporary: Path) -> None:
            temporary.write_bytes(data)
            durable.fsync_path(temporary)
            durable.fault_point("batch.before_line")
            manifest.append(record)
            durable.fault_point("batch.after_line")

        try:
            durable.write_with(folder / job.file, write, overwrite or job.owned)
            durable.fault_point("batch.after_picture")
            return record
        except StorageError as error:
            encoded = error
    file = job.file if job.owned else None
    record = _record(job, "failed", seconds, file=file, error=describe(encoded))
    record["exit_code"] = encoded.exit_code if isinstance(encoded, T2IError) else T2IError.exit_code
    manifest.append(record)
    return record


def remarks(outcome: Picture | Exception, metadata: str) -> dict[str, Any]:
    """What a line of the manifest says besides of a picture that was made.

    Args:
        outcome: Of `draw_group`.
        metadata: What of the recipe is in the file.

    Returns:
        "recipe_sha256", of the whole recipe as JSON; "metadata" where that is not "full". And of one that did
        not come about as planned "notes", what a person should know of it, or "memory", what was given up so
        that it fits (of `t2i.memory.STEPS`).
    """
    if isinstance(outcome, Exception):
        return {}
    found = {
        "recipe_sha256": recipes.digest(outcome.recipe),
        "metadata": None if metadata == "full" else metadata,
        "notes": list(outcome.notes),
        "memory": outcome.recipe["runtime"].get("memory"),
    }
    return {name: value for name, value in found.items() if value}


def describe(error: Exception) -> str:
    """Why a picture failed, in one line; of memory also what to do."""
    text = error.message if isinstance(error, T2IError) else f"{type(error).__name__}: {error}"
    if isinstance(error, OutOfMemory) and error.hint:
        text += f"; {error.hint}"
    return " ".join(text.split())[:LONGEST_ERROR]


def _record(
    job: BatchJob,
    status: str,
    seconds: float,
    file: str | None,
    sha256: str | None = None,
    error: str | None = None,
) -> Record:
    return {
        "job": job.id,
        "status": status,
        "line": job.line,
        "seed": job.seed,
        "prompt": job.prompt,
        "file": file,
        "sha256": sha256,
        "seconds": round(seconds, 4),
        "error": error,
    }
