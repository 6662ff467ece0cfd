"""Contact sheets of a batch, and expected and drawn picture side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from t2i import images
from t2i.batch.rows import Row
from t2i.errors import StorageError
from t2i.texts import latin, printable
from t2i.tiles import tile

if TYPE_CHECKING:
    import numpy as np

COLUMNS = 10
TILE, CELL, GAP = 128, 156, 8  # pixels
FONT_SIZE, LINE = 11, 13  # pixels
LETTERS, PROMPT_LINES = 24, 2  # of a prompt under a tile
SMALLEST_SIDE, LARGEST_SIDE = 256, 512  # of a picture that is compared, pixels
LARGEST_FACTOR = 255


def contact_sheet(rows: Sequence[Row], folder: Path) -> np.ndarray:
    """Small pictures with line, seed and the beginning of the prompt, uint8 (H, W, 3).

    Only one picture at a time is in memory beside the sheet.

    Args:
        rows: At least one, each with a file.
        folder: Of the files.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    columns = min(COLUMNS, len(rows))
    height = TILE + (2 + PROMPT_LINES) * LINE + GAP
    size = columns * CELL + GAP, -(-len(rows) // columns) * height + GAP
    canvas = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(FONT_SIZE)
    for number, row in enumerate(rows):
        left, top = GAP + number % columns * CELL, GAP + number // columns * height
        try:
            picture = tile(images.read_pixels(folder / str(row.file)), TILE, TILE)
            canvas.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
        except StorageError:
            pen.rectangle((left, top, left + TILE - 1, top + TILE - 1), outline="#999999")
            pen.text((left + 4, top + 4), "cannot be read", "black", font)
        prompt = latin(printable(row.prompt))
        cut = textwrap.wrap(prompt, LETTERS, max_lines=PROMPT_LINES, placeholder="...")
        for place, line in enumerate((f"line {row.line}", f"seed {row.seed}", *cut)):
            pen.text((left, top + TILE + place * LINE), line, "black", font)
    return np.asarray(canvas)


def side_by_side(row: Row, folder: Path) -> np.ndarray:
    """Expected | drawn | their difference, made brighter until its largest value is white, uint8 (H, W, 3).

    Args:
        row: With a verdict that names the expected picture.
        folder: Of its file.

    Raises:
        StorageError: One of the two cannot be read.
    """
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    assert row.verdict is not None and row.verdict.reference is not None
    expected = images.read_pixels(row.verdict.reference)
    drawn = images.read_pixels(folder / str(row.file))
    distance = np.abs(expected.astype(np.int16) - drawn)
    factor = max(1, LARGEST_FACTOR // max(1, int(distance.max())))
    difference = (distance * factor).astype(np.uint8)
    tiles = [tile(pixels, SMALLEST_SIDE, LARGEST_SIDE) for pixels in (expected, drawn, difference)]
    width, height = tiles[0].size
    full = 3 * (width + GAP) + GAP
    told = f"line {row.line}, seed {row.seed}: {row.prompt}", row.verdict.text
    head = [line for text in told for line in textwrap.wrap(latin(printable(text)), full // 6)]
    top = GAP + len(head) * LINE + GAP
    canvas = Image.new("RGB", (full, top + LINE + height + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(FONT_SIZE)
    for number, line in enumerate(head):
        pen.text((GAP, GAP + number * LINE), line, "black", font)
    for number, (name, picture) in enumerate(
        zip(("expected", "got", f"difference x {factor}"), tiles, strict=True)
    ):
        left = GAP + number * (width + GAP)
        pen.text((left, top), name, "black", font)
        canvas.paste(picture, (left, top + LINE))
    return np.asarray(canvas)
