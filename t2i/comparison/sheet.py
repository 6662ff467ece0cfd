"""The sheet of a comparison: a row per scheduler, a column per number of steps, the reference on top."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from t2i.comparison.figures import Cell, Comparison
from t2i.tiles import tile

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as PillowImage

SMALLEST, LARGEST = 128, 256  # pictures are scaled so that their longer side is between these, pixels
NARROWEST = 640  # of a sheet, pixels: the notes are on it
FONT_SIZE, LINE, GAP = 12, 15, 8  # pixels
LETTER = 6  # width of an average letter, pixels


def sheet(comparison: Comparison) -> np.ndarray:
    """All pictures of a comparison with their figures and notes, uint8 (H, W, 3)."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(FONT_SIZE)
    reference, cells = comparison.reference, comparison.cells
    columns = len(cells) // len(comparison.schedulers)
    tile_width, tile_height = _tile(reference).size
    name_width = GAP + LETTER * max(len("reference  "), *(len(name) + 3 for name in comparison.schedulers))
    column, row = max(tile_width, 18 * LETTER) + GAP, tile_height + 2 * LINE + GAP
    width = max(name_width + columns * column, NARROWEST)
    told = f"{comparison.model}, seed {comparison.config.seed}, guidance {comparison.config.guidance_scale:g}"
    head = [
        line
        for text in (comparison.config.prompts[0], told, *comparison.notes())
        for line in textwrap.wrap(text, (width - 2 * GAP) // LETTER)
    ]
    top = GAP + len(head) * LINE + GAP
    canvas = Image.new("RGB", (width, top + (1 + len(comparison.schedulers)) * row), "white")
    pen = ImageDraw.Draw(canvas)
    for number, line in enumerate(head):
        pen.text((GAP, GAP + number * LINE), line, "black", font)
    placed = [(0, "reference", reference)]
    placed += [(columns + index, star(cell), cell) for index, cell in enumerate(cells)]
    for place, name, cell in placed:
        left, upper = name_width + place % columns * column, top + place // columns * row
        if place % columns == 0:
            pen.text((GAP, upper), name, "black", font)
        if cell.pixels is not None:
            canvas.paste(_tile(cell), (left, upper))
        for number, line in enumerate(_captions(cell, is_reference=cell is reference)):
            pen.text((left, upper + tile_height + number * LINE), line, "black", font)
    return np.asarray(canvas)


def star(cell: Cell) -> str:
    """The scheduler's name, with an asterisk if it draws noise."""
    return cell.scheduler + (" *" if cell.stochastic else "")


def psnr_text(psnr: float) -> str:
    """ "41.2", or "equal" where not one value differs."""
    return "equal" if math.isinf(psnr) else f"{psnr:.1f}"


def _captions(cell: Cell, is_reference: bool) -> tuple[str, str]:
    if cell.left_out:
        return f"{cell.steps} steps", "left out"
    timed = f"{cell.steps} steps, {cell.seconds:.3g} s"
    if is_reference:
        return timed, cell.scheduler
    psnr = psnr_text(cell.psnr) + ("" if math.isinf(cell.psnr) else " dB")
    return timed, f"{cell.distance:.3g}, {psnr}"


def _tile(cell: Cell) -> PillowImage.Image:
    """The picture in the size that it has on the sheet."""
    assert cell.pixels is not None
    return tile(cell.pixels, SMALLEST, LARGEST)
