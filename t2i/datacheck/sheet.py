"""A contact sheet of the pictures with problems."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from t2i.datacheck.checking import Checked
from t2i.dataset.decoding import BadPicture, in_rgb, open_picture, turned
from t2i.texts import latin, printable
from t2i.tiles import tile

if TYPE_CHECKING:
    import numpy as np

COLUMNS, MOST = 8, 64  # pictures
TILE, CELL, GAP = 128, 156, 8  # pixels
FONT_SIZE, LINE, LETTERS, LINES = 11, 13, 24, 3  # pixels; letters and lines under a tile


def sheet(checked: Checked) -> np.ndarray | None:
    """Small pictures of those with problems, with names and what is wrong, uint8 (H, W, 3); None without any.

    One picture at a time is in memory beside the sheet. At most 64 are on it.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    kinds: dict[str, list[str]] = {}
    for finding in checked.report.findings:
        if finding.problem and (checked.folder.root / finding.place).suffix:
            kinds.setdefault(finding.place, []).append(finding.kind)
    files = {place: checked.folder.root / place for place in kinds}
    shown = [place for place, file in files.items() if file in checked.examined][:MOST]
    if not shown:
        return None
    columns = min(COLUMNS, len(shown))
    height = TILE + LINES * LINE + GAP
    size = columns * CELL + GAP, -(-len(shown) // columns) * height + GAP
    canvas = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_SIZE)
    for number, place in enumerate(shown):
        left, top = GAP + number % columns * CELL, GAP + number // columns * height
        pixels = _pixels(files[place])
        if pixels is None:
            pen.rectangle((left, top, left + TILE - 1, top + TILE - 1), outline="#999999")
            pen.text((left + 4, top + 4), "cannot be read", "black", font)
        else:
            picture = tile(pixels, TILE, TILE)
            canvas.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
        told = latin(printable(place))
        told = told if len(told) <= LETTERS else "..." + told[3 - LETTERS :]
        lines = textwrap.wrap(", ".join(dict.fromkeys(kinds[place])), LETTERS, max_lines=LINES - 1)
        for row, line in enumerate((told, *lines)):
            pen.text((left, top + TILE + row * LINE), line, "black", font)
    return np.asarray(canvas)


def _pixels(file: Path) -> np.ndarray | None:
    import numpy as np

    try:
        with open_picture(file) as opened:
            opened.load()
            return np.asarray(in_rgb(turned(opened)))
    except BadPicture:
        return None
