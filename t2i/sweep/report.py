"""The files of a sweep beside its pictures: `grid.png` (one for each value of a third axis), CSV and page.

They tell of the sweep that ran last in the folder; pictures of earlier ones stay. Which of these files are
t2i's own stands in `batch.json`, as for the reports of a batch; any other file of such a name is left alone.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

from t2i.batch.manifest import kept_reports
from t2i.batch.report import Made, digest, replace_files
from t2i.errors import StorageError
from t2i.sweep.cells import Sweep
from t2i.sweep.outcome import Outcome, Sheet
from t2i.texts import printable

TABLE, PAGE = "sweep.csv", "sweep.html"
OURS = re.compile(r"sweep\.(csv|html)|grid(-\d+)?\.png", re.I)
COLUMNS = ("prompt", "seed", "file", "seconds", "status", "error")


def report_names(sweep: Sweep) -> list[str]:
    """The sheets, the table and the page."""
    sheets = sweep.sizes[2] if len(sweep.sizes) == 3 else 1
    return ["grid.png", *(f"grid-{number}.png" for number in range(2, sheets + 1)), TABLE, PAGE]


def check_room(folder: Path, sweep: Sweep) -> None:
    """Refuse, before anything is drawn, to replace a file that is not t2i's.

    Raises:
        StorageError: One is there.
    """
    ours = kept_reports(folder)
    for name in report_names(sweep):
        if name not in ours and (folder / name).exists():
            hint = "pass --overwrite, or choose another --output"
            raise StorageError(f"{folder / name} exists and was not made by a sweep", hint)


def write_report(outcome: Outcome, folder: Path, metadata: str, overwrite: bool) -> list[Path]:
    """Write what has changed: sheets, table, page.

    Args:
        outcome: Of the sweep.
        folder: Of its pictures.
        metadata: Of the sheets, "minimal" or "none".
        overwrite: Whether files of others may be replaced.

    Returns:
        All of them: the sheets in order, the table, the page.

    Raises:
        StorageError: A file cannot be written.
    """
    from t2i import images
    from t2i.sweep.grid import draw_sheet
    from t2i.sweep.page import render_page

    def grid(sheet: Sheet) -> Callable[[], bytes]:
        return lambda: images.encode(draw_sheet(outcome, sheet, folder), "PNG", metadata=metadata)

    names = report_names(outcome.sweep)
    grids = names[:-2]
    facts = [
        outcome.title(),
        outcome.settings(),
        *(outcome.sweep.heads(n) for n in range(len(outcome.sweep.axes))),
    ]
    sheets = outcome.sheets()
    wanted: dict[str, Made] = {}
    for name, sheet in zip(grids, sheets, strict=True):
        shown = [(one.row.status, one.row.sha256, one.row.error) for row in sheet.rows for one in row]
        wanted[name] = digest(facts, sheet.title, shown, metadata), grid(sheet)
    table = table_of(outcome).encode()
    wanted[TABLE] = digest(table.decode()), lambda: table
    told = [
        (one.row.prompt, one.row.seed, one.row.file, one.row.sha256, one.row.seconds) for one in outcome.shown
    ]
    wanted[PAGE] = digest(facts, told, wanted[TABLE][0]), lambda: render_page(outcome, folder, grids).encode()
    replace_files(folder, wanted, OURS, overwrite)
    return [folder / name for name in names]


def table_of(outcome: Outcome) -> str:
    """CSV with a line for each picture: its value on each axis, then what of `COLUMNS` no axis has.

    `file` is inside the folder of the sweep, `seconds` are of drawing, `status` is done, failed or missing.
    """
    axes = [name for name, _ in outcome.cells[0].labels]
    columns = [name for name in COLUMNS if name not in axes]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*axes, *columns])
    for shown in outcome.shown:
        row, done = shown.row, shown.row.status == "done"
        told = {
            "prompt": row.prompt,
            "seed": row.seed,
            "file": row.file if done else "",
            "seconds": f"{row.seconds:.4f}" if done else "",
            "status": row.status,
            "error": row.error or "",
        }
        values = [value for _, value in shown.cell.labels]
        writer.writerow([printable(str(value)) for value in (*values, *(told[name] for name in columns))])
    return buffer.getvalue()
