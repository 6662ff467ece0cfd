"""`t2i sweep`: one prompt with every combination of some options, on a labelled sheet."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from t2i import batch, environment, settling, sweep
from t2i.batch import BatchJob
from t2i.batch.rows import rows_of
from t2i.cli import drawing
from t2i.cli.batch import Plan, stop_softly
from t2i.cli.door import notice, raise_all
from t2i.cli.options import config_command
from t2i.config import GenerateConfig
from t2i.config.sweep import SweepConfig
from t2i.errors import StorageError, T2IError, UsageError
from t2i.jobs import DRAWN_SEED_LIMIT
from t2i.promptfiles import Mistake, PromptFile
from t2i.promptfiles.entries import count_duplicates
from t2i.sweep import Cell, Sweep, SweepError


@config_command(
    GenerateConfig, also=SweepConfig, skip=("prompts", "num_images"), none_means="the model's",
    defaults={"seed": "the folder's, else drawn; one for all pictures"},
)  # fmt: skip
def command(
    given: dict[str, Any],
    config: SweepConfig,
    prompt: Annotated[
        str | None, typer.Argument(help="what to draw; none where --axis prompt says it", metavar="PROMPT")
    ] = None,
    size: Annotated[str | None, typer.Option(help="width and height, as 512x768", metavar="WxH")] = None,
) -> None:
    """Draw a prompt with every combination of some options, on labelled sheets.

    --axis NAME=VALUE,VALUE… takes options of this command by their long names, 1 to 3 times: columns, rows,
    a sheet for each value. 1..4 is 1,2,3,4. Values of prompt and negative-prompt stand between | and not
    commas, as in prompt="a cat, sitting|a dog"; so do all that have a |. replace=red,blue,green draws the
    prompt as it is and with the other words in place of red. All pictures have one seed, if no axis sets it.

    OUTPUT holds grid.png (grid-2.png …), sweep.csv, sweep.html and the pictures. The same command again draws
    only what is missing or failed. A picture that fails is marked on the sheet, and the exit code is 3.
    """
    folder = Path(str(config.output))
    environment.prepare(offline=config.offline, quiet=not config.verbose)
    try:
        read = sweep.read_sweep(prompt, drawing.with_size(given, size), config.axis)
    except SweepError as error:
        raise_all(error.each)
        raise
    settling.preview(GenerateConfig(model=read.shared.get("model", GenerateConfig.model)))
    records = batch.read_records(folder)
    plan = _SweepPlan.of(read, _seed(folder), records, folder, config)
    plan.refuse(records)
    if config.dry_run:
        plan.show()
        return
    with batch.open_manifest(folder, config.wait) as manifest, stop_softly() as stopping:
        seed = _seed(folder)
        if not read.gives_seed:
            batch.keep_run_seed(folder, seed)
        plan = _SweepPlan.of(read, seed, manifest.records, folder, config)
        plan.refuse(manifest.records)
        plan.tell()
        plan.draw(manifest, batch.Limits(stopping=stopping))


def _seed(folder: Path) -> int:
    """Of a sweep for which nobody gave one: what the folder keeps, or a new one."""
    kept = batch.kept_run_seed(folder)
    return secrets.randbelow(DRAWN_SEED_LIMIT) if kept is None else kept


@dataclass(frozen=True)
class _SweepReporting(batch.Reporting):
    """The sheets, the table and the page, in place of a batch's report."""

    sweep: Sweep
    cells: Sequence[Cell]
    cell_jobs: Sequence[BatchJob]

    def check(self, records: batch.Records) -> None:
        if not self.config.overwrite:
            sweep.check_room(self.folder, self.sweep)

    def finish(self, records: batch.Records, left: Collection[str]) -> list[T2IError]:
        rows = rows_of(self.cell_jobs, records, self.folder, left)
        outcome = sweep.Outcome(self.sweep, self.cells, self.cell_jobs, rows)
        try:
            *grids, table, page = sweep.write_report(
                outcome, self.folder, self._metadata, self.config.overwrite
            )
        except StorageError as error:
            return [error]
        self.event("report", {"grids": list(map(str, grids)), "table": str(table), "path": str(page)})
        return []


@dataclass(kw_only=True)
class _SweepPlan(Plan):
    """A batch that is told by the values of its axes."""

    sweep: Sweep
    seed: int
    cells: list[Cell]
    cell_jobs: list[BatchJob]

    @classmethod
    def of(
        cls, read: Sweep, seed: int, records: batch.Records, folder: Path, config: SweepConfig
    ) -> _SweepPlan:
        """Plan every cell; `seed` is for those that have none."""
        cells = read.cells(seed)
        entries = tuple(cell.entry(len(cells)) for cell in cells)
        prompts = len({cell.config.prompts for cell in cells})
        asked = PromptFile("sweep", entries, prompts, len(cells), count_duplicates(entries), seed)
        plan = Plan.make(asked, records, folder, config.as_batch())
        jobs = sweep.jobs_of(cells, plan.every, records, folder, config.overwrite)
        return cls(**vars(plan), sweep=read, seed=seed, cells=cells, cell_jobs=jobs)

    @property
    def reporting(self) -> _SweepReporting:
        return _SweepReporting(
            **vars(super().reporting), sweep=self.sweep, cells=self.cells, cell_jobs=self.cell_jobs
        )

    def refused(self, found: Sequence[Mistake]) -> list[UsageError]:
        cells = {cell.number: cell.name for cell in self.cells}
        names = ["" if one.line is None else f"{cells[one.line]}: " for one in found]
        return [UsageError(name + one.message, one.hint) for name, one in zip(names, found, strict=True)]

    def figures(self) -> dict[str, Any]:
        told = super().figures()
        axes = dict(self.sweep.heads(number) for number in range(len(self.sweep.axes)))
        seed = None if "seed" in axes else self.cell_jobs[0].seed
        unsaid = ("shard", "run_seed")
        return {"axes": axes, "seed": seed} | {name: told[name] for name in told if name not in unsaid}

    def show(self) -> None:
        if not self.config.json:
            super().show()
            return
        missing = {job.id for job in self.todo}
        rows = [
            {
                "job": job.id,
                "axes": dict(cell.labels),
                "seed": job.seed,
                "prompt": job.prompt,
                "path": str(self.folder / job.file),
                "done": job.id not in missing,
            }
            for cell, job in zip(self.cells, self.cell_jobs, strict=True)
        ]
        print(json.dumps({**self.figures(), "jobs": rows}, ensure_ascii=False))

    def tell(self) -> None:
        for what, number in zip(("columns", "rows", "sheets"), range(len(self.sweep.axes)), strict=False):
            name, values = self.sweep.heads(number)
            notice(f"{what}: {name}: {' | '.join(values)}")
        if not self.sweep.gives_seed:
            notice(f"seed {self.seed}")
        super().tell()

    def _tell_record(self, record: batch.Record) -> None:
        cell = next(
            cell for cell, job in zip(self.cells, self.cell_jobs, strict=True) if job.id == record["job"]
        )
        for line in [record["error"]] if record["status"] == "failed" else record.get("notes", ()):
            notice(f"{cell.name}: {line}")
        path = str(self.folder / record["file"]) if record["status"] == "done" else None
        self._event(record["status"], {**record, "axes": dict(cell.labels), "path": path})
        self._print([path] if path else [])

    def _event(self, name: str, values: dict[str, Any]) -> None:
        super()._event(name, values)
        if name == "report":
            self._print([*values["grids"], values["table"], values["path"]])

    def _print(self, paths: Sequence[str]) -> None:
        """The results, where nobody wants events."""
        if not self.config.json:
            for path in paths:
                print(path, flush=True)
