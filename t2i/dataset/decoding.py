"""Picture files that people bring: what can be read, and their pixels upright, 8-bit, on a background.

Content decides, not the name: a JPEG called .png is fine. This is the only place that opens a picture of a
dataset; `images` opens those that t2i made.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from t2i.errors import DatasetError

if TYPE_CHECKING:
    from PIL import Image as PillowImage

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
PIXEL_LIMIT = 64_000_000
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class BadPicture(DatasetError):
    """A picture file that cannot be used.

    Attributes:
        kind: "empty", "format" (another format, or none), "too-large", "truncated" or "unreadable".
    """

    def __init__(self, message: str, hint: str = "", kind: str = "unreadable") -> None:
        super().__init__(message, hint)
        self.kind = kind


@contextmanager
def open_picture(file: Path) -> Iterator[PillowImage.Image]:
    """Open a PNG, JPEG or WebP file; what goes wrong in the block, while it is decoded, is told as below.

    Raises:
        BadPicture: Not such a file, of more than 64 megapixels by its header, or damaged.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures (the limit below is lower) and odd metadata
            with Image.open(file, formats=FORMATS) as opened:
                if opened.width * opened.height > PIXEL_LIMIT:
                    raise _too_large(file, f"{opened.width}x{opened.height} is over 64 megapixels")
                yield opened
    except (DatasetError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(file, "over 64 megapixels") from error
    except Exception as error:  # decoders raise many kinds; all mean the same to the reader
        kind, why = _reason(file, error)
        raise BadPicture(
            f"picture {file} cannot be read: {why}", "replace or remove the file", kind
        ) from error


def turned(picture: PillowImage.Image) -> PillowImage.Image:
    """The picture as its EXIF orientation wants it to be seen; a damaged EXIF block wants nothing."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = turns.get(orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def orientation(picture: PillowImage.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where nothing readable is said."""
    try:
        told = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # whatever a damaged block makes the reader raise
        return 1
    return told if isinstance(told, int) and 1 <= told <= 8 else 1


def in_rgb(picture: PillowImage.Image, background: str = "white") -> PillowImage.Image:
    """Any picture as 8-bit RGB: 16-bit gray is scaled, what is transparent shows the background.

    Args:
        picture: In any mode of Pillow.
        background: A colour, as "white" or "#20c040".
    """
    from PIL import Image

    if picture.mode.startswith("I"):  # 16-bit: Pillow's own conversion clips instead of scaling
        values, clear = np.asarray(picture, dtype=np.float32), picture.info.get("transparency")
        picture = Image.fromarray((values / 257.0).round().clip(0, 255).astype(np.uint8))
        if isinstance(clear, int):
            picture.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        picture = Image.new("RGBA", coloured.size, background)
        picture.alpha_composite(coloured)
    return picture.convert("RGB")


def decode(file: Path, width: int, height: int | None = None, background: str = "white") -> np.ndarray:
    """Read one picture: upright, its first frame, on a background where transparent; scaled, then cropped.

    Args:
        file: A PNG, JPEG or WebP file of at most 64 megapixels.
        width: Of the result, pixels. The picture is scaled until it covers the result; what is over is cut
            off at both ends equally.
        height: Of the result, pixels; default: as wide.
        background: What transparent pixels lie on.

    Returns:
        uint8, (3, height, width).

    Raises:
        BadPicture: Too large, truncated or not a picture.
    """
    from PIL import Image, ImageOps

    size = (width, width if height is None else height)
    with open_picture(file) as opened:
        opened.load()
        fitted = ImageOps.fit(in_rgb(turned(opened), background), size, Image.Resampling.LANCZOS)
    return np.asarray(fitted).transpose(2, 0, 1)


def measure(file: Path) -> tuple[int, int]:
    """Upright width and height of a picture, from its header.

    Raises:
        BadPicture: As `open_picture`.
    """
    with open_picture(file) as opened:
        # Asked for the EXIF block of a PNG that has none, Pillow decodes the whole picture to look behind it.
        there = opened.format != "PNG" or {"exif", "xmp", "Raw profile type exif"} & set(opened.info)
        sideways = bool(there) and orientation(opened) >= 5
        return (opened.height, opened.width) if sideways else (opened.width, opened.height)


def ends_early(file: Path) -> bool:
    """Whether a file begins as a PNG, JPEG or WebP and lacks its end: all of them say where that is."""
    with open(file, "rb") as opened:
        if opened.seek(0, 2) == 0:
            return False
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:8] == PNG_SIGNATURE:
                return _png_end(data) is None
            if data[:3] == b"\xff\xd8\xff":  # inside the coded picture, 0xFF is always followed by 0x00
                return data.rfind(b"\xff\xd9") < max(2, data.rfind(b"\xff\xda"))
            if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
                return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return False


def _begins_well(file: Path) -> bool:
    with open(file, "rb") as opened:
        head = opened.read(12)
    jpeg, webp = head[:3] == b"\xff\xd8\xff", head[:4] == b"RIFF" and head[8:] == b"WEBP"
    return jpeg or webp or head[:8] == PNG_SIGNATURE


def _png_end(data: mmap.mmap) -> int | None:
    """Where the last chunk of a PNG ends; None if it is not there."""
    place = 8
    while place + 12 <= len(data):
        after = place + 12 + int.from_bytes(data[place : place + 4])
        if data[place + 4 : place + 8] == b"IEND":
            return after
        place = after
    return None


def _too_large(file: Path, what: str) -> BadPicture:
    return BadPicture(f"{file}: {what}", "scale it down, or remove the file", "too-large")


def _reason(file: Path, error: Exception) -> tuple[str, str]:
    """The kind of a `BadPicture`, and the decoder's complaint in words."""
    from PIL import UnidentifiedImageError

    if isinstance(error, OSError) and error.errno is not None:
        return "unreadable", error.strerror or str(error)
    try:
        if file.stat().st_size == 0:
            return "empty", "the file is empty"
        if ends_early(file):
            return "truncated", "the file is truncated"
    except (OSError, ValueError):
        pass
    if isinstance(error, UnidentifiedImageError):
        if _begins_well(file):
            return "unreadable", "the beginning of the file is damaged"
        return "format", "not a PNG, JPEG or WebP picture"
    text = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return "unreadable", text


def crop_of(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    """(top, left) of the part that `decode` keeps, in pixels of the scaled picture.

    Whole pixels, as SDXL was told them; `decode` itself cuts between pixels where that is the middle.

    Args:
        size: Upright width and height of the picture.
        width: Of the result.
        height: Of the result.
    """
    if width * size[1] >= height * size[0]:  # its width fits, its height is cut
        scaled_width, scaled_height = width, size[1] * width // size[0]
    else:
        scaled_width, scaled_height = size[0] * height // size[1], height
    return round((scaled_height - height) / 2), round((scaled_width - width) / 2)
