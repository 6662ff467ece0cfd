"""Sweeps: one prompt drawn with every combination of some options, as sheets, a table and a page.

    sweep = read_sweep("a red fox", {}, ["steps=5,10,20", "guidance-scale=1,4"])
    cells = sweep.cells(seed=7)
    jobs = plan_batch([cell.entry(len(cells)) for cell in cells], records, folder)

`axes` reads what varies, `cells` makes it entries of a batch, which draws them; `outcome` arranges what came
of it, and `grid` (PNG), `page` (HTML) and `report` (CSV, all files) show it. Nothing heavy is imported
before a picture is shown.
"""

from t2i.sweep.cells import Cell, Sweep, SweepError, jobs_of, read_sweep
from t2i.sweep.outcome import Outcome
from t2i.sweep.report import check_room, write_report

__all__ = [
    "Cell",
    "Outcome",
    "Sweep",
    "SweepError",
    "check_room",
    "jobs_of",
    "read_sweep",
    "write_report",
]
