"""`.csv`: the first row names the keys, every further row is a prompt (RFC 4180: commas, double quotes).

A cell in quotes may hold commas and line ends; a record counts from the line where it starts. An empty cell,
or one that a short row lacks, is a value that was not given. Blank rows are skipped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from t2i.errors import UsageError
from t2i.promptfiles.keys import find_key
from t2i.promptfiles.mistakes import Mistakes
from t2i.promptfiles.sources import Item, Parsed, Record


def read(text: str, mistakes: Mistakes) -> Parsed:
    """The rows of a CSV file.

    Args:
        text: With plain newlines.
        mistakes: Where unknown columns and torn rows are noted; the rest is still read.
    """
    rows = _rows(text, mistakes)
    line, header = next(rows, (1, []))
    known = [_is_known(key, line, mistakes) for key in header]
    if header and "prompt" not in known:
        mistakes.add(
            line, "the first row names no column `prompt`", "the first row has the keys: prompt,seed,…"
        )
        known.append("prompt")
    for name in {name for name in known if name and known.count(name) > 1}:
        mistakes.add(line, f"two columns are called {name.replace('_', '-')}")
    records = []
    for number, row in rows:
        if len(row) > len(header):
            mistakes.add(
                number,
                f"{len(row)} cells, but {len(header)} columns",
                'put a text that has commas in "quotes"',
            )
            continue
        items = [
            Item(name, cell, number)
            for position, (name, cell) in enumerate(zip(known, row, strict=False))
            if name and cell != "" and name not in known[:position]
        ]
        records.append(Record(number, tuple(items)))
    if len(known) > len(header):  # told once, in the header
        records = []
    return Parsed(None, records, textual=True)


def _is_known(key: str, line: int, mistakes: Mistakes) -> str | None:
    try:
        return find_key(key)
    except UsageError as error:
        mistakes.add_error(line, error)
        return None


def _rows(text: str, mistakes: Mistakes) -> Iterator[tuple[int, list[str]]]:
    """(line where it starts, cells) of every row that is not blank."""
    limit = csv.field_size_limit(max(len(text), 1))
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                mistakes.add(line, f"not CSV: {error}", 'write a quote inside of quotes twice: ""')
                continue
            if any(cell.strip() for cell in row):
                yield line, row
    finally:
        csv.field_size_limit(limit)
