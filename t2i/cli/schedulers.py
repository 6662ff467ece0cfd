"""`t2i schedulers`: the sampling methods that t2i knows by name, and how they do on a prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i.cli.door import notice, printable
from t2i.cli.options import config_command
from t2i.config import flag_of
from t2i.config.compare import CompareConfig, CompareOutputConfig
from t2i.errors import PartialError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from t2i.comparison import OnCall
    from t2i.comparison.figures import Comparison

PIPED_WIDTH = 180  # columns when stdout is no terminal: no line is broken
SHEET_NAME = "{slug}-{seed}-schedulers.png"


@config_command(CompareConfig, also=CompareOutputConfig, none_means="the model's")
def command(given: dict[str, Any], door: CompareOutputConfig) -> None:
    """List the sampling methods for --scheduler, or compare them on a prompt.

    Models of rectified flow run with those that have "yes" under "flow"; the others refuse them.

    With --compare, every scheduler draws the prompt from the same start noise with each number of --steps,
    and is measured against a 1000-step solution: distance, network calls, seconds. A sheet shows them all.
    """
    config = CompareConfig.from_dict(given)
    if config.compare is None:
        _list(given, door)
    else:
        _compare(config, door)


def _list(given: dict[str, Any], door: CompareOutputConfig) -> None:
    from t2i.schedulers import rows

    plain = CompareOutputConfig().to_dict()
    typed = [*given, *(name for name, value in door.to_dict().items() if value != plain[name])]
    flags = [flag_of(name) for name in typed if name != "json"]
    if flags:
        raise UsageError(f"{', '.join(flags)}: only with --compare", 'as in --compare "a red fox"')
    if door.json:
        for row in rows():
            print(json.dumps(row, ensure_ascii=False))
        return
    from rich.table import Table

    table = Table("name", "class", "order", "stochastic", "flow", "A1111 and other names", "source", box=None)
    table.columns[0].no_wrap = True
    for row in rows():
        missing = "" if row["available"] else f" [needs {row['needs']}]"
        noise, flow = ("yes" if row[key] else "no" for key in ("stochastic", "flow_class"))
        others = ", ".join(row["aliases"])
        table.add_row(
            row["name"], row["class"], str(row["order"]), noise, flow, others, row["source"] + missing
        )
    _print(table)


def _compare(config: CompareConfig, door: CompareOutputConfig) -> None:
    from t2i import environment, images
    from t2i.comparison import chosen_rows
    from t2i.jobs import plan_jobs

    chosen_rows(config)  # an unknown name costs no loading
    job = plan_jobs(config.drawing())[0]
    path = _sheet_path(door, job.name_fields())
    if config.seed is None:
        notice(f"seed {job.seed}")
    environment.prepare(offline=door.offline)

    from t2i import comparison
    from t2i.comparison.sheet import sheet

    with _progress() as on_call:
        compared = comparison.compare(config.replace(seed=job.seed), on_call)
    if door.json:
        for cell in compared.cells:
            print(json.dumps(cell.to_dict(), ensure_ascii=False))
    else:
        _print(_table(compared))
        print("\n".join(printable(note) for note in compared.notes()))
    images.save(path, sheet(compared), None, "minimal", door.overwrite)
    print(json.dumps({"path": str(path), **compared.to_dict()}, ensure_ascii=False) if door.json else path)
    empty = [name for name in compared.schedulers if not compared.row(name)]
    if config.schedulers and empty:  # they were asked for by name
        raise PartialError(f"{', '.join(empty)}: not one picture could be drawn", "stdout says why")


def _sheet_path(door: CompareOutputConfig, values: dict[str, object]) -> Path:
    """Where the sheet goes; fails before anything is loaded."""
    from t2i import naming

    output = SHEET_NAME if door.output is None else door.output
    if naming.is_folder(output) and not naming.is_template(output):
        output = f"{output.rstrip('/')}/{SHEET_NAME}"
    return naming.plan_paths(output, [values], door.overwrite)[0]


def _table(compared: Comparison) -> Table:
    from rich.table import Table

    from t2i.comparison.sheet import psnr_text, star

    table = Table("scheduler", box=None)
    for name in ("steps", "calls", "distance", "PSNR dB", "s/picture", "observed order"):
        table.add_column(name, justify="right")
    for name in compared.schedulers:
        order = compared.order(name)
        shown = f"{order.value:.1f} ({order.steps[0]} to {order.steps[-1]} steps)" if order else "-"
        for cell in compared.row(name):
            figures = (f"{cell.distance:.3g}", psnr_text(cell.psnr), f"{cell.seconds:.3g}")
            table.add_row(star(cell), str(cell.steps), str(cell.network_calls), *figures, shown)
            shown = ""
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)


@contextmanager
def _progress() -> Iterator[OnCall]:
    """A bar on stderr, one tick per network call; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("network calls", total=None)
        yield lambda done, total: bar.update(task, total=total, completed=done)
