"""`t2i batch`: every picture that a prompt file asks for, each made once."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from t2i import batch, environment, naming
from t2i.batch import BatchJob, Estimate
from t2i.batch.manifest import MANIFEST
from t2i.cli import drawing
from t2i.cli.door import notice, raise_all
from t2i.cli.options import config_command
from t2i.config import GenerateConfig
from t2i.config.batch import BatchConfig
from t2i.errors import (
    Interrupted,
    OutOfMemory,
    PartialError,
    ResourceError,
    StorageError,
    T2IError,
    UsageError,
)
from t2i.promptfiles import Mistake, PromptFile, PromptFileError, PromptOptions, parse_prompt_file
from t2i.promptfiles.sources import format_of, read_bytes
from t2i.texts import count_of

SECONDS_BETWEEN_LINES = 30.0
AGAIN = "the same command goes on with the rest"


@config_command(
    GenerateConfig, also=BatchConfig, skip=("prompts",), none_means="the model's",
    defaults={"seed": "from the prompt and --run-seed"},
)  # fmt: skip
def command(
    given: dict[str, Any],
    config: BatchConfig,
    file: Annotated[str, typer.Argument(help="prompt file; - reads stdin", metavar="FILE")],
    size: Annotated[str | None, typer.Option(help="width and height, as 512x768", metavar="WxH")] = None,
) -> None:
    """Draw every picture that a prompt file asks for, each once.

    FILE is .txt (a prompt a line), .jsonl, .csv, .toml or .yaml; its keys are the options of `t2i generate`,
    which given here are defaults of all lines. Everything wrong is told at once, before a model is loaded.
    The same command again draws only what is missing, damaged or failed. Paths go to stdout as the pictures
    appear; OUTPUT holds the pictures, manifest.jsonl, a line for each, report.html and contact-sheet.png.
    With --expect the pictures are compared with those of a file that --update-golden made: equal pixels on
    the same machine, else a PSNR; OUTPUT then shows what differs, and the exit code is 1.
    """
    folder = Path(str(config.output))
    parse = _parser(file, config, drawing.with_size(given, size))
    kept = batch.kept_run_seed(folder) if config.run_seed is None else config.run_seed
    fixed = config.shard is not None or config.expect is not None
    parsed = parse(0 if kept is None and fixed else kept)
    environment.prepare(offline=config.offline, quiet=not config.verbose)
    if config.is_shared:
        batch.check_crew(config)
    if config.dry_run or not (folder / MANIFEST).exists():  # refusing before anything is written
        try:
            records = batch.read_records(folder)
            plan = Plan.make(parsed, records, folder, config)
            plan.refuse(records)
        except StorageError:
            if config.dry_run or not (folder / MANIFEST).exists():
                raise  # else another process has begun here meanwhile, and we look again when it is our turn
        if config.dry_run:
            plan.show()
            return
    with batch.open_manifest(folder, config.wait) as manifest, stop_softly() as stopping:
        kept = batch.kept_run_seed(folder) if config.run_seed is None else None
        if kept is None:
            batch.keep_run_seed(folder, parsed.run_seed)
        elif kept != parsed.run_seed:  # a process that we waited for has drawn one
            parsed = parse(kept)
        plan = Plan.make(parsed, manifest.records, folder, config)
        plan.refuse(manifest.records)
        plan.tell()
        plan.draw(manifest, batch.Limits(config.most_failures, stopping))


def _parser(file: str, config: BatchConfig, defaults: dict[str, Any]) -> Callable[[int | None], PromptFile]:
    """Read the file once; what is returned checks it, with a run seed."""
    format, data = format_of(file, config.format), read_bytes(file)

    def parse(run_seed: int | None) -> PromptFile:
        options = PromptOptions(defaults, config.axis, config.repeat, config.wildcards, run_seed)
        try:
            return parse_prompt_file(data, format, "stdin" if file == "-" else file, options)
        except PromptFileError as error:
            folder, metadata = Path(str(config.output)), config.metadata
            raise_all(batch.with_refusals(error, folder, metadata, config.is_shared).each())
            raise

    return parse


@contextmanager
def stop_softly() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask to stop, and only the second one interrupts; yields whether somebody asked."""
    asked = False
    before: dict[int, Any] = {}

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked and callable(before[number]):
            before[number](number, frame)
        asked = True
        notice("stopping after the pictures that are being drawn; once more stops at once")

    numbers: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        try:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, ask)
        except ValueError:
            pass  # not in the main thread: whoever owns it decides about signals
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Plan:
    """The pictures of one run, and what is said about them."""

    config: BatchConfig
    folder: Path
    parsed: PromptFile
    every: list[BatchJob]
    jobs: list[BatchJob]
    done: list[BatchJob]
    todo: list[BatchJob]
    estimate: Estimate | None
    last_line: float = field(default_factory=time.monotonic)

    @classmethod
    def make(cls, parsed: PromptFile, records: batch.Records, folder: Path, config: BatchConfig) -> Plan:
        """Plan everything, then keep what is in the shard."""
        every = batch.plan_batch(parsed.entries, records, folder, config.overwrite, ask_hub=config.dry_run)
        jobs = [job for job in every if batch.in_shard(job, config.shard_of)]
        done = [job for job in jobs if batch.is_done(job, records, folder, config.metadata)]
        finished = {job.id for job in done}
        todo = [job for job in jobs if job.id not in finished]
        estimate = batch.estimate(todo, done, records, folder, batch.count_workers(config))
        return cls(config, folder, parsed, every, jobs, done, todo, estimate)

    @property
    def reporting(self) -> batch.Reporting:
        """What is told at the end."""
        source = Path(self.parsed.source).name
        return batch.Reporting(self.config, source, self.folder, self.every, self.jobs, notice, self._event)

    def figures(self) -> dict[str, Any]:
        """What `--json` says about the plan."""
        seconds = self.estimate.seconds if self.estimate else None
        return {
            "prompts": self.parsed.prompts,
            "pictures": self.parsed.images,
            "duplicates": self.parsed.duplicates,
            "shard": self.config.shard,
            "run_seed": self.parsed.run_seed,
            "done": len(self.done),
            "todo": len(self.todo),
            "estimated_s": round(seconds, 4) if seconds is not None else None,
            "estimated_bytes": self.estimate.size_bytes if self.estimate else None,
            "estimate_is_measured": self.estimate.measured if self.estimate else None,
        }

    def refuse(self, records: batch.Records) -> None:
        """Refuse, before anything is drawn, what cannot be drawn on this machine and what is in the way.

        Raises:
            UsageError: There are such lines, mistakes of the file.
            StorageError: A file or folder that may not be written, or a golden file that cannot be read.
        """
        lines = {job.line for job in self.todo}
        entries = [entry for entry in self.parsed.entries if entry.line in lines]
        found = batch.find_refusals(entries, self.todo, self.config.metadata, self.config.is_shared)
        raise_all(self.refused(found))
        naming.check_writable([self.folder / MANIFEST])
        self.reporting.check(records)

    def refused(self, found: Sequence[Mistake]) -> list[UsageError]:
        """What a person is told of refusals, one each."""
        return PromptFileError(self.parsed.source, found).each() if found else []

    def show(self) -> None:
        """`--dry-run`.

        Raises:
            PartialError: Some pictures cannot be drawn.
            ResourceError: None can.
        """
        if not self.config.json:
            self.tell()
            for job in self.todo:
                print(self.folder / job.file)
        else:
            open_jobs = {job.id for job in self.todo}
            rows = [
                {
                    "job": job.id,
                    "line": job.line,
                    "seed": job.seed,
                    "prompt": job.prompt,
                    "path": str(self.folder / job.file),
                    "done": job.id not in open_jobs,
                    "problem": job.problem.message if job.problem else None,
                }
                for job in self.jobs
            ]
            print(json.dumps({**self.figures(), "jobs": rows}, ensure_ascii=False))
        lost = [job.problem for job in self.todo if job.problem is not None]
        if lost:
            kind = PartialError if len(lost) < len(self.jobs) else ResourceError
            raise kind(f"{count_of(len(lost), 'picture')} of {len(self.jobs)} cannot be drawn", lost[0].hint)

    def tell(self) -> None:
        """The plan in a line or two on stderr, and as an event."""
        line = f"{count_of(self.parsed.prompts, 'prompt')}, {count_of(self.parsed.images, 'picture')}"
        if self.config.shard is not None:
            line += f", {len(self.jobs)} in shard {self.config.shard}"
        if self.done:
            line += f", {len(self.done)} done, {len(self.todo)} to draw"
        if self.estimate is not None:
            line += f", {_about(self.estimate)}"
        notice(line)
        if self.parsed.duplicates:
            notice(f"{count_of(self.parsed.duplicates, 'picture')} asked for more than once, drawn once")
        for message in {job.problem.message: None for job in self.todo if job.problem}:
            notice(f"cannot be drawn: {message}")
        if self.done and self.config.expect is not None:
            notice(f"{count_of(len(self.done), 'picture')} of an earlier run count as they are")
        if not self.config.dry_run:
            self._event("plan", self.figures())

    def draw(self, manifest: batch.Manifest, limits: batch.Limits) -> None:
        """Draw what is missing, and end as the pictures did.

        Raises:
            Interrupted: Somebody asked to stop.
            PartialError: Some failed or are left.
            ResourceError: All did.
            OutOfMemory: All did, for that reason.
            DifferentError: All are there, and not as expected.
            WorkersLost: No worker is left to draw the rest.
            StorageError: A report cannot be written.
        """
        made = failed = 0
        codes: set[int] = set()
        left = {job.id for job in self.todo}
        tell = notice if self.config.verbose else None
        metadata, overwrite = self.config.metadata, self.config.overwrite
        lost: list[T2IError] = []
        warn = cache(notice)  # groups of one prompt have the same to tell; workers tell theirs themselves
        records = batch.draw_batch(self.todo, self.folder, manifest, metadata, overwrite, limits, tell, warn)
        if self.config.is_shared:
            records = batch.draw_shared(self.config, self.todo, self.folder, manifest, limits, tell, notice)
        with closing(records), self._progress() as advance:
            try:
                for record in records:
                    made += record["status"] == "done"
                    failed += record["status"] == "failed"
                    codes |= {record["exit_code"]} if record["status"] == "failed" else set()
                    left.discard(record["job"])
                    self._tell_record(record)
                    advance(made, failed)
            except batch.WorkersLost as error:
                lost.append(error)
        failures = self.reporting.finish(manifest.records, left)
        counts = {"done": len(self.done) + made, "made": made, "failed": failed, "left": len(left)}
        self._event("end", counts)
        if left and limits.stopping():
            failures.append(Interrupted(f"stopped after {made} of {len(self.todo)} pictures", AGAIN))
        elif failed:
            message = f"{count_of(failed, 'picture')} of {len(self.jobs)} failed"
            message += f", {len(left)} not tried" if left else ""
            worst = OutOfMemory if codes == {OutOfMemory.exit_code} else ResourceError
            kind = PartialError if made or self.done else worst
            failures.append(kind(message, f"{manifest.path} says why; {AGAIN}"))
        raise_all([*failures, *lost])

    def _tell_record(self, record: batch.Record) -> None:
        for line in [record["error"]] if record["status"] == "failed" else record.get("notes", ()):
            notice(f"line {record['line']}, seed {record['seed']}: {line}")
        path = str(self.folder / record["file"]) if record["status"] == "done" else None
        self._event(record["status"], {**record, "path": path})
        if path is not None and not self.config.json:
            print(path, flush=True)

    def _event(self, name: str, values: dict[str, Any]) -> None:
        if self.config.json:
            print(json.dumps({"event": name, **values}, ensure_ascii=False), flush=True)

    @contextmanager
    def _progress(self) -> Iterator[Callable[[int, int], None]]:
        """A bar on a terminal, a line now and then elsewhere."""
        if not sys.stderr.isatty():
            yield self._line_now_and_then
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        # rich would send stdout to the terminal of stderr; it may, where both are one.
        with Progress(
            *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
        ) as bar:
            task = bar.add_task("", total=len(self.todo))
            yield lambda made, failed: bar.update(task, completed=made + failed)

    def _line_now_and_then(self, made: int, failed: int) -> None:
        now = time.monotonic()
        if now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            notice(f"{made + failed} of {len(self.todo)}" + (f", {failed} failed" if failed else ""))


def _about(estimate: Estimate) -> str:
    """Time and disk in words, and how far to trust them."""
    figures = [] if estimate.seconds is None else [_time(estimate.seconds)]
    if estimate.size_bytes is not None:
        figures.append(_size(estimate.size_bytes))
    if not figures:
        return "how long is not known before the model is here"
    source = "by the pictures that are there" if estimate.measured else "a guess from the size of the model"
    return f"about {' and '.join(figures)} ({source})"


def _size(size_bytes: int) -> str:
    unit, name = (1e9, "GB") if size_bytes >= 1e9 else (1e6, "MB") if size_bytes >= 1e6 else (1e3, "kB")
    return f"{size_bytes / unit:.3g} {name}"


def _time(seconds: float) -> str:
    if seconds < 1:
        return "a second"
    return f"{seconds:.2g} s" if seconds < 90 else f"{seconds / 60:.0f} min"
