"""One picture file, decoded whole: what is wrong with it, what is odd, and what identifies it."""

from __future__ import annotations

import hashlib
import io
import mmap
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from t2i.datacheck.likeness import Likeness, likeness_of
from t2i.dataset.decoding import (
    PNG_SIGNATURE,
    BadPicture,
    ends_early,
    in_rgb,
    open_picture,
    orientation,
    turned,
)
from t2i.naming import SUFFIXES

if TYPE_CHECKING:
    from PIL import Image as PillowImage

PROCESSES = 2
AT_ONCE = 256  # pictures whose results wait for each other
WIDEST = 3.0  # times as long as wide


@dataclass(frozen=True)
class Examined:
    """What one file is.

    Attributes:
        found: (kind, detail) of `t2i.datacheck.findings.KINDS`.
        size: Upright width and height; None if it cannot be decoded.
        pixels: SHA-256 of size and upright RGB values; empty if it cannot be decoded.
        likeness: How it looks, roughly; None if it cannot be decoded.
    """

    found: tuple[tuple[str, str], ...]
    size: tuple[int, int] | None = None
    pixels: str = ""
    likeness: Likeness | None = None


def examine(file: Path, resolution: int) -> Examined:
    """Decode a picture whole and look at it. Raises nothing for what is wrong with it.

    Args:
        file: Any file.
        resolution: Pictures with a shorter side are tiny, pixels.
    """
    try:
        with open_picture(file) as opened:
            form, frames = str(opened.format), getattr(opened, "n_frames", 1)
            opened.load()
            found = list(_oddities(file, opened, form, frames))
            picture = in_rgb(turned(opened))
    except BadPicture as error:
        told = error.message.removeprefix(f"picture {file} cannot be read: ").removeprefix(f"{file}: ")
        return Examined(((error.kind, told),))
    except MemoryError:
        return Examined((("unreadable", "decoding it needs more memory than there is"),))
    if ends_early(file):
        found.insert(0, ("truncated", "the end of the file is missing"))
    chunk = _wrong_checksum(file)
    if chunk:
        found.insert(0, ("damaged", f"the checksum of {chunk} is wrong"))
    width, height = picture.size
    if min(width, height) < resolution:
        found.append(("tiny", f"{width}x{height}, below {resolution}"))
    if max(width, height) > WIDEST * min(width, height):
        found.append(("extreme-aspect", f"{width}x{height}"))
    digest = hashlib.sha256(f"{width}x{height}\n".encode())
    digest.update(picture.tobytes())
    return Examined(tuple(found), (width, height), digest.hexdigest(), likeness_of(picture))


def examine_all(files: Sequence[Path], resolution: int) -> Iterator[Examined]:
    """Every file in order, in two processes; one that kills its process is found out and told."""
    yield from in_processes(partial(examine, resolution=resolution), files)


def in_processes(work: Callable[[Path], Examined], files: Sequence[Path]) -> Iterator[Examined]:
    """`work` on each file, in order. A few results wait in memory, never all."""
    for start in range(0, len(files), AT_ONCE):
        part = files[start : start + AT_ONCE]
        try:
            with ProcessPoolExecutor(PROCESSES) as pool:
                yield from list(pool.map(work, part, chunksize=8))
        except BrokenProcessPool:
            yield from map(partial(_alone, work), part)


def _alone(work: Callable[[Path], Examined], file: Path) -> Examined:
    try:
        with ProcessPoolExecutor(1) as pool:
            return pool.submit(work, file).result()
    except BrokenProcessPool:
        return Examined((("unreadable", "decoding it kills the process: no memory, or a broken decoder"),))


def _oddities(file: Path, opened: PillowImage.Image, form: str, frames: int) -> Iterable[tuple[str, str]]:
    """What is unusual about a picture that can be decoded."""
    form = "JPEG" if form == "MPO" else form  # a JPEG with further ones behind it, as cameras write
    if SUFFIXES.get(file.suffix.lower()) != form:
        yield "extension", f"it is a {form}"
    turn = orientation(opened)
    if turn != 1:
        yield "rotated", f"orientation {turn}"
    if opened.mode.startswith("I") or _png_depth(file) == 16:
        yield "16-bit", opened.mode
    if opened.mode == "CMYK":
        yield "cmyk", "four inks"
    if opened.mode == "P":
        yield "palette", ""
    if opened.has_transparency_data:
        alpha = np.asarray(opened.convert("RGBA").getchannel("A"))
        if alpha.min() < 255:
            yield "alpha", "shown on a background"
    if form != "JPEG" and frames > 1:
        yield "animated", f"{frames} frames"
    profile = profile_name(opened)
    if profile and "srgb" not in profile.lower():
        yield "profile", profile


def profile_name(opened: PillowImage.Image) -> str:
    """What a picture's colour profile calls itself; empty if it has none that can be read."""
    data = opened.info.get("icc_profile")
    if not data:
        return ""
    try:
        from PIL import ImageCms

        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(data))).strip()[:80]
    except Exception:  # Pillow was built without it, or the profile is damaged
        return ""


def _png_depth(file: Path) -> int:
    with open(file, "rb") as opened:
        head = opened.read(25)
    return head[24] if head[:8] == PNG_SIGNATURE and len(head) == 25 else 8


def _wrong_checksum(file: Path) -> str:
    """The name of the first chunk of a PNG whose data are not those written; Pillow looks at few of them."""
    with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = 8 if data[:8] == PNG_SIGNATURE else len(data)
        while place + 12 <= len(data):
            end = place + 8 + int.from_bytes(data[place : place + 4])
            name = data[place + 4 : place + 8]
            if end + 4 > len(data):
                return ""
            if zlib.crc32(memoryview(data)[place + 4 : end]) != int.from_bytes(data[end : end + 4]):
                return name.decode("ascii", "replace")
            if name == b"IEND":
                return ""
            place = end + 4
    return ""
