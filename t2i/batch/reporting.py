"""The end of a run: compare with what was expected, write the report and JUnit's XML, say what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i import durable
from t2i.batch.golden import Golden, check_distinct, read_golden, update_golden
from t2i.batch.junit import check_replaceable, render_junit
from t2i.batch.manifest import MANIFEST, RUN, Records
from t2i.batch.plan import BatchJob
from t2i.batch.report import OURS, check_room, write_report
from t2i.batch.rows import Row, other_rows, rows_of
from t2i.batch.verdicts import Comparison, compare
from t2i.config.batch import BatchConfig
from t2i.errors import DifferentError, StorageError, T2IError
from t2i.naming import check_writable
from t2i.texts import count_of


@dataclass(frozen=True)
class Reporting:
    """What is told about one run besides its pictures.

    Attributes:
        config: Of the run.
        source: Name of the prompt file.
        folder: Of the pictures.
        every: All that the prompt file asks for.
        jobs: Those of this run's shard.
        tell: Called with lines for a person.
        event: Called with a name and values, for `--json`.
    """

    config: BatchConfig
    source: str
    folder: Path
    every: Sequence[BatchJob]
    jobs: Sequence[BatchJob]
    tell: Callable[[str], None]
    event: Callable[[str, dict[str, Any]], None]

    def check(self, records: Records) -> None:
        """Meet everything that would be in the way of `finish` before anything is drawn.

        Args:
            records: Of the manifest.

        Raises:
            StorageError: A file that may not be replaced or written, or a golden file that cannot be read.
            UsageError: Pictures that a golden file could not tell apart.
        """
        if not self.config.no_report:
            pictures = len({job.id for job in self.every} | records.keys())
            check_room(self.folder, self.every, pictures, self.config.overwrite)
        if self.config.junit is not None:
            self._check_junit(Path(self.config.junit))
            check_writable([Path(self.config.junit)])
        if self.config.expect is not None:
            check_distinct(self.jobs)
            self._golden()
            if self.config.update_golden:
                path = Path(self.config.expect)
                check_writable([path, path.with_suffix("") / "picture.png"])

    def finish(self, records: Records, left: Collection[str]) -> list[T2IError]:
        """Write everything that was asked for; what fails does not keep the rest from being written.

        Args:
            records: Of the manifest.
            left: Jobs that are to be drawn and were not tried.

        Returns:
            What went wrong.
        """
        failures: list[T2IError] = []
        comparison: Comparison | None = None
        with _collected(failures):
            comparison = self._compare(records, left)
        if not self.config.no_report:
            with _collected(failures):
                rows = rows_of(self.every, records, self.folder, left, comparison)
                rows += other_rows(self.every, records, self.folder)
                metadata, overwrite = self._metadata, self.config.overwrite
                page = write_report(self.folder, self.source, rows, comparison, metadata, overwrite)
                self.event("report", {"path": str(page)})
        rows = rows_of(self.jobs, records, self.folder, left, comparison)
        if comparison is not None:
            self._tell(comparison, rows)
        if self.config.junit is not None:
            with _collected(failures):
                junit = render_junit(self.source, rows, self.folder, comparison)
                durable.write_bytes(Path(self.config.junit), junit)
        if comparison is not None and comparison.differences:
            wrong = f"{count_of(comparison.differences, 'picture')} not as {self.config.expect} has them"
            failures.append(DifferentError(wrong, "--update-golden accepts what was drawn"))
        return failures

    def _check_junit(self, path: Path) -> None:
        check_replaceable(path, self.config.overwrite)
        folder, place = self.folder.resolve(), path.resolve()
        name = place.relative_to(folder).as_posix() if place.is_relative_to(folder) else ""
        if name in {MANIFEST, RUN, *(job.file for job in self.every)} or OURS.fullmatch(name):
            raise StorageError(f"--junit {path} is the name of another file of this run", "choose another")

    def _golden(self) -> Golden | None:
        """The expected pictures; None where nobody asks for them, or there are none to be replaced."""
        path = None if self.config.expect is None else Path(self.config.expect)
        if path is None or (self.config.update_golden and not path.exists()):
            return None
        return read_golden(path)

    def _compare(self, records: Records, left: Collection[str]) -> Comparison | None:
        """Compare, or make what was drawn the expected pictures."""
        if self.config.expect is None:
            return None
        rows = rows_of(self.jobs, records, self.folder, left)
        done = [job for job, row in zip(self.jobs, rows, strict=True) if row.status == "done"]
        golden, path = self._golden(), Path(self.config.expect)
        if not self.config.update_golden:
            assert golden is not None
            return compare(golden, done, self.every, self.folder, self.config.min_psnr)
        if len(done) == len(rows):
            for line in update_golden(path, done, self.folder, self.config.min_psnr, self._metadata):
                self.tell(line)
        else:
            missing = count_of(len(rows) - len(done), "picture")
            self.tell(f"{path} stays as it is: {missing} not drawn")
        return None

    def _tell(self, comparison: Comparison, rows: Sequence[Row]) -> None:
        """A line for each picture that is not equal, an event for each."""
        for row in rows:
            if row.verdict is None:
                continue
            path, verdict, shown = self.folder / str(row.file), row.verdict, row.difference_file
            if verdict.kind != "equal":
                seen = shown is not None and (self.folder / shown).is_file()
                self.tell(
                    f"{verdict.kind}: {path}: {verdict.text}" + f"; see {self.folder / str(shown)}" * seen
                )
            values = {"job": row.job, "path": str(path), "verdict": verdict.kind}
            self.event("compared", {**values, "psnr": verdict.psnr, "text": verdict.text})
        count = {"differences": comparison.differences, "compared": len(rows)}
        self.event("comparison", count)
        for expected in comparison.missing:
            self.tell(f"missing: {expected.name}: the prompt file does not ask for it")
            self.event("missing", {"prompt": expected.prompt, "seed": expected.seed})

    @property
    def _metadata(self) -> str:
        return "none" if self.config.metadata == "none" else "minimal"


@contextmanager
def _collected(failures: list[T2IError]) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        failures.append(error)
