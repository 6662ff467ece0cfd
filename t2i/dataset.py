"""A folder of captioned pictures as tensors.

Finds pictures and captions, refuses what cannot be used with one line that names the file, decodes once
into a cache on disk. Knows nothing of models.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from t2i import durable
from t2i.errors import DatasetError, ModelError
from t2i.hashes import hash_files

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
PIXEL_LIMIT = 64_000_000
HASHES = "hashes.json"
CAMERA_WORDS = {
    "img",
    "image",
    "dsc",
    "dscn",
    "pxl",
    "photo",
    "pic",
    "picture",
    "screenshot",
    "scan",
    "frame",
}


@dataclass(frozen=True)
class Example:
    """One picture file and what it shows; `caption` is empty when nothing is said."""

    file: Path
    caption: str


@dataclass(frozen=True)
class ImageFolder:
    """The examples of a folder, in a fixed order, and where their captions came from."""

    root: Path
    examples: tuple[Example, ...]
    caption_source: str

    def captions(self) -> list[str]:
        """One caption per example, in order."""
        return [example.caption for example in self.examples]


def read_folder(root: Path, captions: str = "auto") -> ImageFolder:
    """Find pictures and captions.

    Args:
        root: The dataset folder; sub-folders are read too.
        captions: "metadata" (metadata.jsonl or .csv with file_name and text), "sidecar" (x.txt beside
            x.png), "names" (file names), "none", or "auto": the first of these that fits.

    Raises:
        DatasetError: Not a folder, unreadable, no pictures, or a caption for a picture that is not there.
    """
    if not root.is_dir():
        raise DatasetError(f"dataset {root} is not a folder", "give a folder of pictures with --dataset")
    try:
        files = sorted(path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        metadata = [path for path in (root / "metadata.jsonl", root / "metadata.csv") if path.is_file()]
    except OSError as error:
        raise DatasetError(f"dataset {root} cannot be read: {error.strerror}") from error
    if captions == "metadata" or (captions == "auto" and metadata):
        if not metadata:
            raise DatasetError(f"{root} has no metadata.jsonl or metadata.csv", "or choose other --captions")
        return ImageFolder(root, tuple(_read_metadata(root, metadata[0])), "metadata")
    if not files:
        raise DatasetError(f"dataset {root} holds no pictures", f"allowed: {', '.join(SUFFIXES)}")
    if captions == "sidecar" or (captions == "auto" and any(_sidecar(file).is_file() for file in files)):
        return ImageFolder(root, tuple(Example(file, _read_sidecar(file)) for file in files), "sidecar")
    named = [caption_from_name(file) for file in files]
    if captions == "names" or (captions == "auto" and sum(map(bool, named)) * 2 > len(named)):
        return ImageFolder(root, tuple(map(Example, files, named)), "names")
    return ImageFolder(root, tuple(Example(file, "") for file in files), "none")


def caption_from_name(file: Path) -> str:
    """The words of a file name, or "" for names that a camera gave: "red_car-02.png" is "red car"."""
    words = re.findall(r"[^\W\d_]+", file.stem.lower())
    told = [word for word in words if len(word) > 2 and word not in CAMERA_WORDS]
    return " ".join(words) if told else ""


def _sidecar(file: Path) -> Path:
    return file.with_suffix(".txt")


def _read_sidecar(file: Path) -> str:
    """The first line of the text file beside a picture; a picture without one has no caption."""
    try:
        lines = _sidecar(file).read_text(encoding="utf-8-sig").strip().splitlines()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"caption file {_sidecar(file)} cannot be read: {error}") from error
    return lines[0].strip() if lines else ""


def _read_metadata(root: Path, file: Path) -> Iterator[Example]:
    resolved_root = root.resolve()
    rows = 0
    for line, row in _metadata_rows(file):
        rows += 1
        name, text = row.get("file_name"), row.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            raise DatasetError(f'{file}, line {line}: needs "file_name" and "text"')
        picture = root / name
        if not picture.resolve().is_relative_to(resolved_root):
            raise DatasetError(f"{file}, line {line}: {name} is outside the dataset folder")
        if picture.suffix.lower() not in SUFFIXES:
            raise DatasetError(f"{file}, line {line}: {name} is not one of {', '.join(SUFFIXES)}")
        if not picture.is_file():
            raise DatasetError(
                f"{file}, line {line}: picture {name} is missing", "add the picture or delete the line"
            )
        yield Example(picture, text.strip())
    if not rows:
        raise DatasetError(f"{file} is empty", 'one line per picture: {"file_name": …, "text": …}')


def _metadata_rows(file: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """(line number, row) of a .jsonl or .csv file."""
    try:
        with open(
            file, encoding="utf-8-sig", newline=""
        ) as lines:  # spreadsheets begin with a byte-order mark
            if file.suffix == ".csv":
                for number, row in enumerate(csv.DictReader(lines), 2):
                    yield number, dict(row)
                return
            for number, text in enumerate(lines, 1):
                if text.strip():
                    row = json.loads(text)
                    if not isinstance(row, dict):
                        raise DatasetError(f"{file}, line {number}: not a JSON object")
                    yield number, row
    except json.JSONDecodeError as error:
        raise DatasetError(f"{file}, line {number}: not JSON ({error.msg})") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file} cannot be read: {error}") from error


def decode(file: Path, resolution: int) -> np.ndarray:
    """Read one picture: turned upright, on white where transparent, centre-cropped, scaled.

    Args:
        file: A PNG, JPEG or WebP file of at most 64 megapixels.
        resolution: Side of the result in pixels.

    Returns:
        uint8, (3, resolution, resolution).

    Raises:
        DatasetError: Too large, truncated or not a picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > PIXEL_LIMIT:
                raise DatasetError(f"{file}: {opened.width}x{opened.height} is over 64 megapixels")
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I"):  # 16-bit: Pillow's own conversion clips instead of scaling
                scaled = np.asarray(picture, dtype=np.float32) / 257.0
                picture = Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
            if picture.has_transparency_data:
                coloured = picture.convert("RGBA")
                picture = Image.new("RGBA", coloured.size, "white")
                picture.alpha_composite(coloured)
            square = ImageOps.fit(picture.convert("RGB"), (resolution, resolution), Image.Resampling.LANCZOS)
    except DatasetError:
        raise
    except Exception as error:  # decoders raise many kinds; all mean the same to the reader
        raise DatasetError(f"picture {file} cannot be read: {error}", "replace or remove the file") from error
    return np.asarray(square).transpose(2, 0, 1)


def dataset_key(folder: ImageFolder, resolution: int, cache: Path) -> str:
    """A name for the decoded pictures: changes with any file's bytes, their order and the resolution.

    A copy of the dataset has the same name. A file whose size and times are as remembered is not read again.

    Raises:
        DatasetError: A picture cannot be read.
    """
    files = {str(example.file): example.file for example in folder.examples}
    try:
        hashes = hash_files(files, cache / HASHES)
    except ModelError as error:
        raise DatasetError(f"picture {error.message}") from error
    digest = hashlib.sha256(f"pixels-2 {resolution}\n".encode())
    for example in folder.examples:
        digest.update(f"{hashes[str(example.file)]}\n".encode())
    return digest.hexdigest()[:16]


def load_pixels(folder: ImageFolder, resolution: int, cache: Path, key: str) -> np.ndarray:
    """All pictures, decoded once.

    Args:
        folder: From `read_folder`.
        resolution: Side of the decoded pictures.
        cache: Folder for what is computed once.
        key: Their `dataset_key`.

    Returns:
        uint8, (N, 3, resolution, resolution), mapped from a file in `cache`.
    """
    path = cache / f"pixels-{key}.npy"
    files = [example.file for example in folder.examples]

    def decoded() -> Iterator[np.ndarray]:
        with ProcessPoolExecutor() as pool:
            yield from pool.map(partial(decode, resolution=resolution), files, chunksize=64)

    return cached_table(path, (len(files), 3, resolution, resolution), np.uint8, decoded)


def cached_table(
    path: Path, shape: tuple[int, ...], dtype: type[np.generic], rows: Callable[[], Iterable[np.ndarray]]
) -> np.ndarray:
    """A table computed once: mapped from its file, which is written first if it is not there.

    Args:
        path: A .npy file.
        shape: Of the whole table.
        dtype: Of its values.
        rows: Called when the file is missing; the table in order, in pieces of any length.

    Raises:
        StorageError: The disk has no room for all of it; told before the first row is computed.
    """

    def write(temporary: Path) -> None:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        with open(temporary, "wb") as file:  # not a map: a full disk would kill the process (SIGBUS)
            np.lib.format.write_array_header_1_0(file, header)
            durable.reserve(file, path, file.tell() + math.prod(shape) * np.dtype(dtype).itemsize)
            for row in rows():
                file.write(row.astype(dtype, copy=False).tobytes())

    if not path.is_file():
        durable.write_with(path, write)
    return np.load(path, mmap_mode="r")


def to_pixels(table: np.ndarray, rows: Sequence[int] | np.ndarray) -> Tensor:
    """Rows of a uint8 table as float pixels in −1…1, (B, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(table[np.asarray(rows)])).float() / 127.5 - 1.0


def batch_rows(count: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Which examples step `step` (from 0) sees: a fresh shuffle per pass, decided by seed and step alone.

    Because nothing is remembered between steps, a resumed run needs no stored data position.

    Returns:
        int64, (batch_size,).
    """
    first = step * batch_size
    positions = np.arange(first, first + batch_size)
    passes: np.ndarray = positions // count
    rows: np.ndarray = np.empty(batch_size, dtype=np.int64)
    for number in np.unique(passes):
        order = np.random.default_rng([seed, int(number)]).permutation(count)
        chosen = passes == number
        rows[chosen] = order[positions[chosen] % count]
    return rows
