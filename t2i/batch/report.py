"""What became of a batch, beside its pictures: `report.html`, contact sheets, pictures of differences.

A report tells of the whole folder, whichever run or shard drew it, and of what the prompt file still asks
for. Equal facts give equal bytes, so nothing is written anew without need. `batch.json` keeps which files are
t2i's own; any other file of such a name is left alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from t2i import durable
from t2i.batch.manifest import keep_reports, kept_reports
from t2i.batch.plan import BatchJob
from t2i.batch.rows import DIFFERENCES, Row
from t2i.batch.verdicts import Comparison
from t2i.errors import StorageError
from t2i.version import __version__

PAGE = "report.html"
PICTURES_PER_SHEET = 150
OURS = re.compile(rf"report\.html|contact-sheet(-\d+)?\.png|{DIFFERENCES}/.*", re.I)

Made = tuple[str, Callable[[], bytes]]
"""Of a file: the digest of what it is made from, and how to make it."""


def check_room(folder: Path, jobs: Sequence[BatchJob], pictures: int, overwrite: bool) -> None:
    """Refuse, before anything is drawn, to replace a file that is not t2i's with a report.

    Args:
        folder: Of the pictures.
        jobs: None of them may have the name of a report.
        pictures: At most so many will be in the report.
        overwrite: Whether files of others may be replaced.

    Raises:
        StorageError: One is there.
    """
    for job in jobs:
        if OURS.fullmatch(job.file):
            raise StorageError(
                f"line {job.line}: {folder / job.file} is the name of a report",
                "choose another name, or pass --no-report",
            )
    if overwrite:
        return
    ours = kept_reports(folder)
    for name in (PAGE, *map(sheet_name, range(-(-pictures // PICTURES_PER_SHEET)))):
        if name not in ours and (folder / name).exists():
            raise StorageError(
                f"{folder / name} exists and is not this batch's report",
                "pass --no-report or --overwrite, or choose another --output",
            )


def write_report(
    folder: Path,
    source: str,
    rows: Sequence[Row],
    comparison: Comparison | None,
    metadata: str,
    overwrite: bool,
) -> Path:
    """Write the page, the contact sheets and the pictures of differences, and remove those of before.

    Args:
        folder: Of the pictures.
        source: Name of the prompt file.
        rows: Everything that the report tells of.
        comparison: With the expected pictures.
        metadata: Of the sheets, "minimal" or "none".
        overwrite: Whether files of others may be replaced.

    Returns:
        The page.

    Raises:
        StorageError: A file cannot be written.
    """
    from t2i import images
    from t2i.batch.page import render_page
    from t2i.batch.sheet import contact_sheet, side_by_side

    def sheet(shown: Sequence[Row]) -> Callable[[], bytes]:
        return lambda: images.encode(contact_sheet(shown, folder), "PNG", metadata=metadata)

    def difference(row: Row) -> Callable[[], bytes]:
        return lambda: images.encode(side_by_side(row, folder), "PNG", metadata=metadata)

    done = [row for row in rows if row.status == "done"]
    wanted: dict[str, Made] = {}
    for number, start in enumerate(range(0, len(done), PICTURES_PER_SHEET)):
        shown = done[start : start + PICTURES_PER_SHEET]
        facts = [(row.line, row.seed, row.prompt, row.file, row.sha256) for row in shown]
        wanted[sheet_name(number)] = digest(facts, metadata), sheet(shown)
    sheets = list(wanted)
    for row in done:
        if row.difference_file is not None and row.verdict is not None:
            made = digest(
                row.line, row.prompt, row.sha256, str(row.verdict.reference), row.verdict.text, metadata
            )
            wanted[row.difference_file] = made, difference(row)
    page = render_page(source, rows, folder, sheets, comparison).encode()
    wanted[PAGE] = hashlib.sha256(page).hexdigest(), lambda: page
    replace_files(folder, wanted, OURS, overwrite)
    return folder / PAGE


def replace_files(folder: Path, wanted: Mapping[str, Made], ours: re.Pattern[str], overwrite: bool) -> None:
    """Write what is missing or made from other facts, remove those of before that nobody wants any more.

    Args:
        folder: Of the pictures.
        wanted: Names → files; `batch.json` notes that they are t2i's.
        ours: Matches every name that `wanted` may have; other files that `batch.json` notes stay.
        overwrite: Whether files that it does not note may be replaced.

    Raises:
        StorageError: A file cannot be written.
    """
    before = kept_reports(folder)
    stale = [
        name
        for name, (facts, _) in wanted.items()
        if before.get(name) != facts or not (folder / name).is_file()
    ]
    keep_reports(folder, {**before, **dict.fromkeys(stale)})  # from here on their names are t2i's
    for name in stale:
        durable.write_bytes(folder / name, wanted[name][1](), overwrite or name in before)
    others = {name: facts for name, facts in before.items() if not ours.fullmatch(name)}
    for name in before.keys() - wanted.keys() - others.keys():
        _remove(folder, name)
    keep_reports(folder, {**others, **{name: facts for name, (facts, _) in wanted.items()}})


def sheet_name(number: int) -> str:
    """contact-sheet.png, contact-sheet-2.png, …; `number` counts from 0."""
    return "contact-sheet.png" if number == 0 else f"contact-sheet-{number + 1}.png"


def digest(*facts: object) -> str:
    """What a file was made from, this t2i included, in short; hexadecimal."""
    return hashlib.sha256(json.dumps([__version__, *facts]).encode()).hexdigest()


def _remove(folder: Path, name: str) -> None:
    """Delete a report of before, and its folder if that is empty then."""
    try:
        (folder / name).unlink(missing_ok=True)
        parent = folder / PurePosixPath(name).parent
        if parent != folder and not any(parent.iterdir()):
            parent.rmdir()
    except OSError as error:
        raise durable.storage_error(folder / name, error) from error
