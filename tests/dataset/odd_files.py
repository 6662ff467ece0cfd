"""Damaged and odd picture files, made from seeds, each with what must be told of it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
BROKEN = {"truncated", "unreadable", "format", "empty", "damaged", "too-large"}
Random = np.random.Generator


@dataclass(frozen=True)
class Odd:
    """One file.

    Attributes:
        suffix: Of its name.
        data: Its bytes.
        expected: At least one of these kinds must be told; empty where nothing need be.
        what: How it was made.
    """

    suffix: str
    data: bytes
    expected: frozenset[str]
    what: str


def noise(draw: Random, mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    """A picture of large random squares, so that encoders have something to do."""
    bands = {"RGB": 3, "L": 1, "RGBA": 4, "LA": 2, "CMYK": 4}[mode]
    values = draw.integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, bands), dtype=np.uint8)
    values = values.repeat(4, 0).repeat(4, 1)[: size[1], : size[0]]
    return Image.fromarray(values[..., 0] if bands == 1 else values, mode)


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *before: bytes) -> bytes:
    """A PNG file, written without Pillow, which cannot write all of them."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = b"".join(before) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


def deep_png(values: np.ndarray, *before: bytes) -> bytes:
    """16 bits a channel: gray (H, W) or RGB (H, W, 3)."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(values.shape[1], values.shape[0], 16, 0 if values.ndim == 2 else 2, rows, *before)


def any_form(draw: Random) -> str:
    return str(draw.choice(list(SUFFIX)))


def plain(draw: Random) -> Odd:
    form = any_form(draw)
    return Odd(SUFFIX[form], encoded(noise(draw), form), frozenset(), f"plain {form}")


def truncated(draw: Random) -> Odd:
    form = any_form(draw)
    data = encoded(noise(draw, size=(64, 48)), form)
    kept = int(draw.integers(1, len(data)))
    return Odd(SUFFIX[form], data[:kept], frozenset(BROKEN), f"{form} cut at {kept} of {len(data)}")


def flipped(draw: Random) -> Odd:
    form = any_form(draw)
    data = bytearray(encoded(noise(draw, size=(64, 48)), form))
    for place in draw.integers(0, len(data), int(draw.integers(1, 9))):
        data[place] ^= 1 << int(draw.integers(8))
    # Only PNG has checksums: elsewhere a changed bit may just be another picture.
    expected = BROKEN if form == "PNG" and bytes(data) != encoded_again(data) else set()
    return Odd(SUFFIX[form], bytes(data), frozenset(expected), f"{form} with flipped bits")


def encoded_again(data: bytearray) -> bytes:
    """The same PNG with the checksums that its chunks should have; equal if no bit was flipped."""
    fixed, place = bytes(data[:8]), 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            return b""
        fixed += chunk(bytes(data[place + 4 : place + 8]), bytes(data[place + 8 : end]))
        place = end + 4
    return fixed if bytes(data[:8]) == b"\x89PNG\r\n\x1a\n" else b""


def foreign(draw: Random) -> Odd:
    form = str(draw.choice(["BMP", "GIF", "TIFF", "PPM", "ICO", "text", "noise", "zeros", "html"]))
    if form in ("BMP", "GIF", "TIFF", "PPM", "ICO"):
        data = encoded(noise(draw), form)
    else:
        some = draw.integers(0, 256, 500, dtype=np.uint8).tobytes()
        data = {"text": b"a caption\n", "html": b"<html>404</html>", "zeros": bytes(500)}.get(form, some)
    return Odd(str(draw.choice([".png", ".jpg", ".webp"])), data, frozenset({"format", "unreadable"}), form)


def nothing(draw: Random) -> Odd:
    return Odd(str(draw.choice([".png", ".jpg", ".webp"])), b"", frozenset({"empty"}), "zero bytes")


def bomb(draw: Random) -> Odd:
    """Few bytes that declare many pixels: above Pillow's own limits, and between ours and theirs."""
    form, side = any_form(draw), int(draw.choice([8100, 12000, 16000]))
    if form == "PNG":
        side = int(draw.choice([side, 50_000, 2**31 - 1]))
        return Odd(".png", png(side, side, 8, 2, b"\0"), frozenset(BROKEN), f"PNG {side}")
    data = bytearray(encoded(noise(draw), form))
    if form == "JPEG":
        place = data.index(b"\xff\xc0") + 5
        data[place : place + 4] = struct.pack(">HH", side, side)
    else:
        place = data.index(b"\x9d\x01\x2a") + 3
        data[place : place + 4] = struct.pack("<HH", side, side)
    return Odd(SUFFIX[form], bytes(data), frozenset(BROKEN), f"{form} {side}")


def animated(draw: Random) -> Odd:
    form = str(draw.choice(["PNG", "WEBP"]))
    frames = [noise(draw) for _ in range(3)]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    return Odd(SUFFIX[form], data, frozenset({"animated"}), f"animated {form}")


def inks(draw: Random) -> Odd:
    return Odd(".jpg", encoded(noise(draw, "CMYK"), "JPEG"), frozenset({"cmyk"}), "CMYK")


def deep(draw: Random) -> Odd:
    shape = (8, 9) if draw.random() < 0.5 else (8, 9, 3)
    values = draw.integers(0, 2**16, shape, dtype=np.uint16)
    clear = [chunk(b"tRNS", values[0, 0].astype(">u2").tobytes())] if draw.random() < 0.5 else []
    return Odd(".png", deep_png(values, *clear), frozenset({"16-bit"}), f"16 bits {shape} {len(clear)}")


def clear(draw: Random) -> Odd:
    if draw.random() < 0.5:
        picture = noise(draw, str(draw.choice(["RGBA", "LA"])))
        form = str(draw.choice(["PNG", "WEBP"])) if picture.mode == "RGBA" else "PNG"
        return Odd(SUFFIX[form], encoded(picture, form), frozenset({"alpha"}), f"{picture.mode} {form}")
    indexed = noise(draw).quantize(8)
    data = encoded(indexed, "PNG", transparency=0 if draw.random() < 0.5 else bytes(range(8)))
    return Odd(".png", data, frozenset({"alpha"}), "palette with transparency")


def turned(draw: Random) -> Odd:
    form, turn = any_form(draw), int(draw.integers(1, 9))
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(noise(draw), form, exif=exif)
    return Odd(SUFFIX[form], data, frozenset({"rotated"} if turn > 1 else ()), f"orientation {turn} {form}")


def bad_exif(draw: Random) -> Odd:
    form = any_form(draw)
    block = b"Exif\0\0" + draw.integers(0, 256, int(draw.integers(0, 80)), dtype=np.uint8).tobytes()
    return Odd(SUFFIX[form], encoded(noise(draw), form, exif=block), frozenset(), f"random EXIF {form}")


def talkative(draw: Random) -> Odd:
    info, bytes_of_text = PngInfo(), int(draw.choice([10_000, 900_000, 3_000_000]))
    info.add_text("comment", "x" * bytes_of_text, zip=bool(draw.random() < 0.5))
    data = encoded(noise(draw), "PNG", pnginfo=info)
    return Odd(".png", data, frozenset(), f"{bytes_of_text} bytes of text")


def renamed(draw: Random) -> Odd:
    form, suffix = any_form(draw), str(draw.choice([".png", ".jpg", ".webp"]))
    told = {"extension"} if suffix != SUFFIX[form] else set()
    return Odd(suffix, encoded(noise(draw), form), frozenset(told), f"{form} called {suffix}")


def narrow(draw: Random) -> Odd:
    return Odd(".png", encoded(noise(draw, size=(64, 3)), "PNG"), frozenset({"extreme-aspect"}), "64x3")


def indexed(draw: Random) -> Odd:
    form = str(draw.choice(["PNG", "WEBP"]))
    told = {"palette"} if form == "PNG" else set()  # a WebP keeps the colours, not the palette
    return Odd(SUFFIX[form], encoded(noise(draw).quantize(8), form), frozenset(told), f"palette {form}")


def profiled(draw: Random) -> Odd:
    form = any_form(draw)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    data = encoded(noise(draw), form, icc_profile=profile)
    return Odd(SUFFIX[form], data, frozenset({"profile"}), f"{form} with a profile")


def tiny(draw: Random) -> Odd:
    form, size = any_form(draw), tuple(int(side) for side in draw.integers(1, 8, 2))
    return Odd(SUFFIX[form], encoded(noise(draw, size=size), form), frozenset({"tiny"}), f"{form} {size}")


MAKERS: tuple[Callable[[Random], Odd], ...] = (
    truncated, flipped, foreign, bomb, plain, turned, animated, clear, deep, inks, bad_exif, talkative,
    nothing, renamed, narrow, truncated, flipped, indexed, profiled, tiny,
)  # fmt: skip


def odd_files(count: int, seed: int = 0) -> list[Odd]:
    """So many files, every maker equally often."""
    return [MAKERS[number % len(MAKERS)](np.random.default_rng([seed, number])) for number in range(count)]
