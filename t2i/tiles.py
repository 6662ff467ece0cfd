"""Pictures of about one size, for a sheet that shows many; what is written beside them is the sheet's."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as PillowImage


def tile(pixels: np.ndarray, smallest: int, largest: int) -> PillowImage.Image:
    """The picture with its longer side between two sizes; a small one is enlarged without smoothing.

    Args:
        pixels: uint8, (H, W, 3).
        smallest: A side below it is multiplied by the next whole number that reaches it, pixels.
        largest: Of the longer side, pixels; at least `smallest`.
    """
    from PIL import Image

    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    if longest < smallest:
        factor = math.ceil(smallest / longest)
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return picture


def thumbnail(pixels: np.ndarray, exact: int, largest: int) -> bytes:
    """A small picture for a page, without metadata: PNG as it is, or scaled down as WebP.

    Args:
        pixels: uint8, (H, W, 3).
        exact: A longer side up to it is left alone, pixels.
        largest: Of the longer side of the others, pixels.
    """
    from PIL import Image

    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    if max(picture.size) <= exact:
        picture.save(buffer, "PNG")
    else:
        picture.thumbnail((largest, largest))
        picture.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()
