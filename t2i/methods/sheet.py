"""Sample sheets: rows of pictures in one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from t2i import durable
from t2i.errors import ModelError

SHEET_SEED = 1000


def save_sheet(path: Path, rows: Sequence[Tensor], smallest: int = 96) -> None:
    """Write rows of pictures, each tensor one row (wrapped rows are the caller's), to a PNG.

    Args:
        path: A .png file, written whole or not at all.
        rows: Pixels in −1…1, each (B, 3, H, W) with the same H and W.
        smallest: Pictures below this many pixels are enlarged by a whole factor, without smoothing.

    Raises:
        ModelError: A pixel is not a finite number.
    """
    from PIL import Image

    if not all(bool(torch.isfinite(row).all()) for row in rows):
        raise ModelError("its pixels are not finite numbers", "try --mixed-precision no")
    lines = [torch.cat(list(row.detach().float().cpu()), dim=-1) for row in rows]
    widest = max(line.shape[-1] for line in lines)
    padded = [torch.nn.functional.pad(line, (0, widest - line.shape[-1]), value=1.0) for line in lines]
    sheet = torch.cat(padded, dim=-2)  # (3, rows × H, columns × W)
    array = ((sheet.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    factor = max(1, -(-smallest // rows[0].shape[-1]))
    picture = Image.fromarray(array).resize((array.shape[1] * factor, array.shape[0] * factor), 0)
    durable.write_with(path, lambda temporary: picture.save(temporary, format="PNG"))


def sheet_captions(captions: Sequence[str], count: int = 32) -> list[str]:
    """Captions spread over the dataset, without repeats, for sheets that nobody gave prompts for."""
    unique = list(dict.fromkeys(captions))
    return [unique[index] for index in np.linspace(0, len(unique) - 1, min(count, len(unique))).astype(int)]
