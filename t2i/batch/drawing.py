"""Draws what is missing: like settings together, one model in memory, one failure never the end of the rest.

Where a batch fails, its pictures are drawn again in halves until the one that fails is alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i import durable, images
from t2i.batch.manifest import Manifest, Record
from t2i.batch.plan import BatchJob
from t2i.config import GenerateConfig
from t2i.errors import OutOfMemory, StorageError, T2IError, UsageError
from t2i.jobs import Job
from t2i.naming import picture_format

if TYPE_CHECKING:
    from t2i.pipeline import Picture, StepDone
    from t2i.weights import LoadedModel

FOR_ALL = (OutOfMemory, UsageError)  # it is the settings, which all pictures of a group share
LONGEST_ERROR = 500
MODEL_FIELDS = ("model", "device", "dtype", "deterministic")


class _Stopped(Exception):
    """Raised between two batches when somebody asked to stop."""


@dataclass(frozen=True)
class Limits:
    """When to stop before everything is drawn.

    Attributes:
        failures: So many failed pictures end the run; None: never.
        stopping: Asked before every batch; True ends the run.
    """

    failures: int | None = None
    stopping: Callable[[], bool] = lambda: False


@dataclass
class _Model:
    """The one model in memory, or why it is not."""

    key: tuple[Any, ...] | None = None
    loaded: LoadedModel | None = None
    failure: Exception | None = None

    def load(self, config: GenerateConfig) -> LoadedModel:
        from t2i import pipeline

        key = _model_key(config)
        if key != self.key:
            self.key, self.loaded, self.failure = key, None, None  # the one before goes first
            try:
                self.loaded = pipeline.load(config)
            except Exception as error:
                self.failure = error
        if self.failure is not None:
            raise self.failure
        assert self.loaded is not None
        return self.loaded


def draw_batch(
    todo: Sequence[BatchJob],
    folder: Path,
    manifest: Manifest,
    metadata: str = "full",
    overwrite: bool = False,
    limits: Limits | None = None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Record]:
    """Draw pictures, save each and write its line of the manifest.

    Args:
        todo: What is missing.
        folder: Where the pictures go.
        manifest: Of this folder.
        metadata: As `images.save` has it.
        overwrite: Whether a file that no picture of the batch made may be replaced.
        limits: When to stop early.
        tell: Called with lines for a person.

    Yields:
        The line of each picture that was made or failed, as soon as it is on the disk.

    Raises:
        StorageError: The manifest cannot be written.
    """
    limits = limits or Limits()
    model, failed = _Model(), 0
    for jobs in group_jobs(todo):
        if limits.stopping():
            return
        try:
            for job, outcome, seconds in _draw_group(jobs, model, limits, tell):
                if isinstance(outcome, Exception):
                    record = _failure(job, outcome, seconds)
                    manifest.append(record)
                else:
                    record = _save(job, outcome, seconds, folder, manifest, metadata, overwrite)
                yield record
                failed += record["status"] == "failed"
                if limits.failures is not None and failed >= limits.failures:
                    return
        except _Stopped:
            return


def group_jobs(jobs: Sequence[BatchJob]) -> list[list[BatchJob]]:
    """Pictures by config, those of one model one after the other, else in the order of the file."""
    groups: dict[tuple[Any, ...], dict[GenerateConfig, list[BatchJob]]] = {}
    for job in jobs:
        groups.setdefault(_model_key(job.config), {}).setdefault(job.config, []).append(job)
    return [group for of_model in groups.values() for group in of_model.values()]


def _model_key(config: GenerateConfig) -> tuple[Any, ...]:
    return tuple(getattr(config, name) for name in MODEL_FIELDS)


Outcome = tuple[BatchJob, "Picture | Exception", float]


def _draw_group(
    group: Sequence[BatchJob], model: _Model, limits: Limits, tell: Callable[[str], None] | None
) -> Iterator[Outcome]:
    """Each picture of one config, or why there is none, with its share of the seconds of its batch.

    Raises:
        _Stopped: When `limits` says so.
    """
    began = time.perf_counter()
    try:
        if group[0].problem is not None:
            raise group[0].problem
        from t2i import pipeline

        loaded = model.load(group[0].config)
    except Exception as error:
        seconds = time.perf_counter() - began
        yield from ((job, error, seconds / len(group)) for job in group)
        return
    waiting = [list(group)]
    while waiting:
        left = {job.index: job for job in waiting.pop()}
        flight, shared, share = _Flight(limits.stopping), frozenset[int](), 0.0
        jobs = [Job(job.index, job.prompt, 0, 0, job.seed) for job in left.values()]
        began = time.perf_counter()
        try:
            for picture in pipeline.generate(group[0].config, loaded, flight.on_step, jobs, tell):
                if flight.indices != shared:
                    shared, share = flight.indices, (time.perf_counter() - began) / len(flight.indices)
                yield left.pop(picture.index), picture, share
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
    """Which pictures are being denoised; between two batches it asks whether to stop."""

    stopping: Callable[[], bool]
    indices: frozenset[int] = frozenset()

    def on_step(self, done: StepDone) -> None:
        indices = frozenset(job.index for job in done.jobs)
        if indices != self.indices:
            self.indices = indices
            if self.stopping():
                raise _Stopped


def _save(
    job: BatchJob,
    picture: Picture,
    seconds: float,
    folder: Path,
    manifest: Manifest,
    metadata: str,
    overwrite: bool,
) -> Record:
    """Write a picture and its line; the line of the failure where the picture cannot be written.

    Raises:
        StorageError: The manifest cannot be written.
    """
    path = folder / job.file
    try:
        data = images.encode(picture.pixels, picture_format(path), picture.recipe, metadata)
        sha256 = hashlib.sha256(data).hexdigest()
        record = _record(job, "done", seconds, file=job.file, sha256=sha256)

        def write(temporary: Path) -> None:
            temporary.write_bytes(data)
            durable.fsync_path(temporary)
            durable.fault_point("batch.before_line")
            manifest.append(record)
            durable.fault_point("batch.after_line")

        durable.write_with(path, write, overwrite or job.owned)
        durable.fault_point("batch.after_picture")
    except StorageError as error:
        record = _failure(job, error, seconds)
        manifest.append(record)
    return record


def _failure(job: BatchJob, error: Exception, seconds: float) -> Record:
    text = error.message if isinstance(error, T2IError) else f"{type(error).__name__}: {error}"
    text = " ".join(text.split())[:LONGEST_ERROR]
    return _record(job, "failed", seconds, file=job.file if job.owned else None, error=text)


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
