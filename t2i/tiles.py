"""Pictures of about one size, for a sheet that shows many; what is written beside them is the sheet's."""

from __future__ import annotations

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
