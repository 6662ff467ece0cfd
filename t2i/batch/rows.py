"""What became of each picture, by the plan, the manifest and the files: the rows of every report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from t2i.batch.manifest import Record, Records
from t2i.batch.plan import BatchJob
from t2i.batch.verdicts import Comparison, Verdict

DIFFERENCES = "differences"  # folder


@dataclass(frozen=True)
class Row:
    """One picture, made or not.

    Attributes:
        job: Its id.
        line: Of the prompt file.
        seed: Its own.
        prompt: Wildcards picked.
        file: Inside the folder; None for one that never had a name.
        status: "done", "failed" or "missing" (not drawn yet, or the file is gone).
        seconds: It took; 0 if it was not drawn.
        error: Why it failed.
        sha256: Of the file.
        notes: What a person should know of how it came about, a line each.
        verdict: Against the expected picture, where one was asked for.
    """

    job: str
    line: int
    seed: int
    prompt: str
    file: str | None
    status: str
    seconds: float
    error: str | None
    sha256: str | None
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None

    @property
    def differs(self) -> bool:
        """Whether another picture was expected."""
        return self.verdict is not None and not self.verdict.holds

    @property
    def difference_file(self) -> str | None:
        """Where the expected picture, this one and their difference are shown, inside the folder."""
        if self.verdict is None or self.verdict.reference is None or self.file is None:
            return None
        return f"{DIFFERENCES}/{self.file}" + ("" if self.file.lower().endswith(".png") else ".png")


def rows_of(
    jobs: Sequence[BatchJob],
    records: Records,
    folder: Path,
    left: Collection[str] = (),
    comparison: Comparison | None = None,
) -> list[Row]:
    """Rows in the order of the prompt file.

    Args:
        jobs: What it asks for.
        records: Of the manifest.
        folder: Of the pictures.
        left: Jobs that are missing whatever the manifest says.
        comparison: With the expected pictures.
    """
    verdicts = {} if comparison is None else comparison.verdicts
    rows = []
    for job in jobs:
        record = records.get(job.id)
        asked = job.line, job.seed, job.prompt, job.file
        if record is None or job.id in left:
            rows.append(Row(job.id, *asked, "missing", 0.0, None, None))
        elif record["status"] == "done" and (folder / job.file).is_file():
            seconds, sha256, verdict = float(record["seconds"]), record["sha256"], verdicts.get(job.id)
            rows.append(Row(job.id, *asked, "done", seconds, None, sha256, notes_of(record), verdict))
        else:
            status = "failed" if record["status"] == "failed" else "missing"
            rows.append(Row(job.id, *asked, status, float(record["seconds"]), record["error"], None))
    return rows


def other_rows(jobs: Sequence[BatchJob], records: Records, folder: Path) -> list[Row]:
    """Rows of pictures in the folder that the prompt file does not ask for (any more)."""
    asked = {job.id for job in jobs}
    return [
        Row(job, record["line"], record["seed"], record["prompt"], record["file"], "done",
            float(record["seconds"]), None, record["sha256"], notes_of(record))
        for job, record in records.items()
        if job not in asked and record["status"] == "done" and (folder / str(record["file"])).is_file()
    ]  # fmt: skip


def notes_of(record: Record) -> tuple[str, ...]:
    """What a line of the manifest says besides of its picture, in sentences; see `drawing.remarks`."""
    notes, memory = (record.get(name) for name in ("notes", "memory"))
    told = [str(note) for note in notes] if isinstance(notes, list) else []
    if isinstance(memory, list) and memory:
        told.append(f"memory ran out: {', '.join(map(str, memory))}")
    return tuple(told)
