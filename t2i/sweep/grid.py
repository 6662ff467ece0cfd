"""A sheet of a sweep as a picture: values above the columns and beside the rows, whatever their length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i import images
from t2i.errors import StorageError
from t2i.sweep.outcome import Outcome, Sheet, Shown
from t2i.texts import latin, printable
from t2i.tiles import tile

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as PillowImage

SMALLEST, LARGEST = 128, 512  # longer side of a picture where there is room, pixels
LONGEST_SIDE, MOST_PIXELS = 16_000, 40_000_000  # of all pictures together
FONT_SIZE, LINE, GAP = 13, 17, 8  # pixels
NARROWEST_CELL, NARROWEST_SHEET = 96, 320  # pixels: a label has some words
WIDEST_HEAD = 180  # of a label beside a row, pixels
HEAD_LINES, TITLE_LINES = 3, 4
INK, FAINT, BAD, WELL = "#1f2328", "#59636e", "#c1121f", "#f2f4f7"


def draw_sheet(outcome: Outcome, sheet: Sheet, folder: Path) -> np.ndarray:
    """One grid with its labels, uint8 (H, W, 3).

    Pictures are scaled down where they would make it too large, and small ones enlarged by whole factors.

    Args:
        outcome: Of the sweep.
        sheet: One of its sheets.
        folder: Of the pictures.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    columns, rows = len(sheet.rows[0]), len(sheet.rows)
    tiles = [[_tile(shown, folder, _largest(columns, rows)) for shown in row] for row in sheet.rows]
    drawn = [one.size for row in tiles for one in row if one is not None]
    width = max([NARROWEST_CELL, *(size[0] for size in drawn)]) if drawn else SMALLEST
    height = max([LINE * 3, *(size[1] for size in drawn)]) if drawn else SMALLEST
    above = _heads(outcome, 0, font, width, HEAD_LINES)
    beside = _heads(outcome, 1, font, WIDEST_HEAD, max(1, height // LINE - 1))
    left = GAP
    if beside:
        left += math.ceil(max(font.getlength(line) for head in beside for line in head)) + GAP
    canvas_width = max(left + columns * (width + GAP), NARROWEST_SHEET)
    told = [text for text in (outcome.title(), outcome.settings(), sheet.title) if text]
    titles = [fitted(text, font, canvas_width - 2 * GAP, TITLE_LINES) for text in told]
    top = GAP + LINE * sum(map(len, titles)) + GAP
    first = top + LINE * max(map(len, above)) + GAP // 2
    canvas = Image.new("RGB", (canvas_width, first + rows * (height + GAP)), "white")
    pen = ImageDraw.Draw(canvas)

    def write(lines: Sequence[str], x: int, y: int, colours: Sequence[str]) -> None:
        for number, line in enumerate(lines):
            pen.text((x, y + number * LINE), line, colours[min(number, len(colours) - 1)], font)

    y = GAP
    for number, lines in enumerate(titles):
        write(lines, GAP, y, [FAINT if number == 1 else INK])
        y += LINE * len(lines)
    for x, lines in enumerate(above):
        write(lines, left + x * (width + GAP), top, [FAINT, INK])
    for y, row in enumerate(sheet.rows):
        upper = first + y * (height + GAP)
        if beside:
            write(beside[y], GAP, upper, [FAINT, INK])
        for x, shown in enumerate(row):
            at, picture = left + x * (width + GAP), tiles[y][x]
            if picture is not None:
                canvas.paste(picture, (at + (width - picture.width) // 2, upper))
                continue
            failed = shown.row.status != "missing"
            box = (at, upper, at + width - 1, upper + height - 1)
            pen.rectangle(box, fill=WELL, outline=BAD if failed else FAINT)
            why = [status_of(shown), *fitted(shown.row.error or "", font, width - 10, height // LINE - 1)]
            write(why, at + 5, upper + 3, [BAD if failed else FAINT, INK])
    return np.asarray(canvas)


def status_of(shown: Shown) -> str:
    """What stands where a picture would: it failed, was not drawn, or cannot be read."""
    return {"missing": "not drawn", "done": "cannot be read"}.get(shown.row.status, shown.row.status)


def fitted(text: str, font: Any, width: float, lines: int) -> list[str]:
    """Text in so many lines at most, the last with an ellipsis where something is left.

    Args:
        text: Anything; letters that the font lacks are shown as question marks.
        font: Of Pillow.
        width: Of a line, pixels.
        lines: 1 or more; fewer give none.

    Returns:
        Lines broken at spaces, and within a word that is longer than a line.
    """
    rest = " ".join(latin(printable(text)).split())
    found: list[str] = []
    while rest and len(found) < lines:
        line = _beginning(rest, font, width)
        if len(found) == lines - 1 and line != rest:
            while line and font.getlength(line + "…") > width:
                line = line[:-1].rstrip()
            line += "…"
        found.append(line)
        rest = rest[len(line) :].lstrip()
    return found


def _beginning(text: str, font: Any, width: float) -> str:
    """As many whole words as fit; as many letters of a word that does not fit, at least one."""
    if font.getlength(text) <= width:
        return text
    count = 1
    while font.getlength(text[: count + 1]) <= width:
        count += 1
    space = text.rfind(" ", 0, count + 1)
    return text[:space] if space > 0 else text[:count]


def _heads(outcome: Outcome, axis: int, font: Any, width: int, lines: int) -> list[list[str]]:
    """The labels of an axis, its name above each value; none where there is no such axis."""
    if axis >= len(outcome.sweep.axes):
        return []
    name, values = outcome.sweep.heads(axis)
    title = fitted(name, font, width, 1)
    return [
        title + fitted(_readable(value, number), font, width, lines) for number, value in enumerate(values, 1)
    ]


def _readable(value: str, number: int) -> str:
    """A value, or its number where the font has hardly a letter of it."""
    if not value:
        return "(empty)"
    shown = latin(value)
    return f"no. {number}" if shown.count("?") - value.count("?") > len(shown) / 2 else value


def _largest(columns: int, rows: int) -> int:
    """The longer side of a picture on a sheet of so many, pixels."""
    together = min(LONGEST_SIDE // max(columns, rows), math.isqrt(MOST_PIXELS // (columns * rows)))
    return max(1, min(LARGEST, together - GAP))


def _tile(shown: Shown, folder: Path, largest: int) -> PillowImage.Image | None:
    """The picture in the size that it has on the sheet; None where there is none."""
    if shown.row.status != "done":
        return None
    try:
        return tile(images.read_pixels(folder / str(shown.row.file)), min(SMALLEST, largest), largest)
    except StorageError:
        return None
