"""Tables on disk that are computed once, their names, and what a step takes from them."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from t2i import durable
from t2i.dataset.captions import Example
from t2i.dataset.decoding import BadPicture, decode
from t2i.dataset.folder import ImageFolder
from t2i.errors import DatasetError, ModelError
from t2i.hashes import hash_files

if TYPE_CHECKING:
    from torch import Tensor

HASHES = "hashes.json"


def dataset_key(folder: ImageFolder, resolution: int, cache: Path) -> str:
    """A name for the decoded pictures: changes with any file's bytes, their order and the resolution.

    A copy of the dataset has the same name. A file whose size and times are as remembered is not read again.

    Raises:
        DatasetError: A picture cannot be read.
    """
    return pixels_key(folder.examples, str(resolution), cache)


def pixels_key(examples: Sequence[Example], form: str, cache: Path) -> str:
    """A name for pictures decoded in one form; see `dataset_key`.

    Args:
        examples: In order. A file that may not be read counts as empty.
        form: What was made of them: the side of squares, or other words.
        cache: Folder that remembers the hashes of files.
    """
    digest = hashlib.sha256(f"pixels-2 {form}\n".encode())
    for file_digest in file_digests(examples, cache):
        digest.update(f"{file_digest}\n".encode())
    return digest.hexdigest()[:16]


def file_digests(examples: Sequence[Example], cache: Path) -> list[str]:
    """SHA-256 of each example's file, hexadecimal; empty for one that may not be read.

    Args:
        examples: In order.
        cache: Folder that remembers the hashes of files.

    Raises:
        DatasetError: A file is gone or the disk fails.
    """
    files = {str(one.file): one.file for one in examples if os.access(one.file, os.R_OK)}
    try:
        hashes = hash_files(files, cache / HASHES)
    except ModelError as error:
        raise DatasetError(f"picture {error.message}") from error
    return [hashes.get(str(example.file), "") for example in examples]


def load_pixels(
    folder: ImageFolder, resolution: int, cache: Path, key: str, background: str = "white"
) -> np.ndarray:
    """All pictures as squares, decoded once.

    Args:
        folder: From `read_folder`.
        resolution: Side of the decoded pictures.
        cache: Folder for what is computed once.
        key: Their `dataset_key`.
        background: What transparent pixels lie on.

    Returns:
        uint8, (N, 3, resolution, resolution), mapped from a file in `cache`.

    Raises:
        DatasetError: A picture cannot be read.
    """
    files = [example.file for example in folder.examples]
    return decoded_table(files, (resolution, resolution), cache, key, background)[0]


def decoded_table(
    files: Sequence[Path],
    size: tuple[int, int],
    cache: Path,
    key: str,
    background: str = "white",
    most_bad: int = 0,
) -> tuple[np.ndarray, dict[int, str]]:
    """Pictures of one size, decoded once; those that cannot be are left out.

    Args:
        files: In order.
        size: Width and height, pixels.
        cache: Folder for what is computed once.
        key: Part of the table's name: a `pixels_key`.
        background: What transparent pixels lie on.
        most_bad: Pictures that may be left out.

    Returns:
        uint8, (N − left out, 3, height, width), mapped from a file in `cache`, and for each that was left out
        its place in `files` and why.

    Raises:
        DatasetError: More than `most_bad` cannot be decoded.
    """
    path, noted = cache / f"pixels-{key}.npy", cache / f"unreadable-{key}.json"
    left_out = _left_out(noted) if path.is_file() else {}
    bad: dict[int, str] = {}

    def decoded() -> Iterator[np.ndarray]:
        decode_one = partial(_decode_or_say, size=size, background=background)
        try:
            with ProcessPoolExecutor() as pool:
                for index, outcome in enumerate(pool.map(decode_one, files, chunksize=64)):
                    if isinstance(outcome, str):
                        bad[index] = outcome
                        check_share([bad[number] for number in sorted(bad)], most_bad, len(files))
                    else:
                        yield outcome
        except BrokenProcessPool as error:
            raise DatasetError(
                "a process that decodes pictures has died: no memory, or a picture that breaks the decoder",
                "`t2i data check` finds such a picture",
            ) from error
        if bad:
            durable.write_json(noted, {str(index): why for index, why in bad.items()})

    if path.is_file():
        table = np.load(path, mmap_mode="r")
        if len(table) == len(files) - len(left_out) and len(left_out) <= most_bad:
            return table, left_out
        check_share(list(left_out.values()), most_bad, len(files))
        path.unlink()  # the note beside it is gone
    shape = (len(files), 3, size[1], size[0])
    return cached_table(path, shape, np.uint8, decoded, may_be_shorter=True), bad


def check_share(bad: Sequence[str], most_bad: int, count: int) -> None:
    """Refuse a dataset with too many pictures that cannot be decoded.

    Args:
        bad: Why, for each so far.
        most_bad: How many may be bad.
        count: Of all pictures.

    Raises:
        DatasetError: There are more.
    """
    if len(bad) <= most_bad:
        return
    if most_bad == 0:
        raise DatasetError(bad[0], "replace or remove the file; `t2i data check` finds all such files")
    raise DatasetError(
        f"more than {most_bad} of {count} pictures cannot be used (--max-bad): {'; '.join(bad[:3])}; …",
        "`t2i data check` lists them all",
    )


def cached_table(
    path: Path,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    rows: Callable[[], Iterable[np.ndarray]],
    may_be_shorter: bool = False,
) -> np.ndarray:
    """A table computed once: mapped from its file, which is written first if it is not there.

    Args:
        path: A .npy file.
        shape: Of the whole table.
        dtype: Of its values.
        rows: Called when the file is missing; the table in order, in pieces of any length.
        may_be_shorter: Whether `rows` may end early; the table then has as many rows as came.

    Raises:
        StorageError: The disk has no room for all of it; told before the first row is computed.
    """
    row_bytes = math.prod(shape[1:]) * np.dtype(dtype).itemsize

    def header(count: int) -> dict[str, object]:
        return {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (count, *shape[1:])}

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # not a map: a full disk would kill the process (SIGBUS)
            np.lib.format.write_array_header_1_0(file, header(shape[0]))
            begin = file.tell()
            durable.reserve(file, path, begin + shape[0] * row_bytes)
            for row in rows():
                file.write(row.astype(dtype, copy=False).tobytes())
            if may_be_shorter and file.tell() < begin + shape[0] * row_bytes:
                file.truncate()
                count = (file.tell() - begin) // row_bytes
                file.seek(0)
                np.lib.format.write_array_header_1_0(file, header(count))
                assert file.tell() == begin  # NumPy leaves room in a header for a longer first axis

    if not path.is_file():
        durable.write_with(path, write)
    return np.load(path, mmap_mode="r")


def to_pixels(table: np.ndarray, rows: Sequence[int] | np.ndarray) -> Tensor:
    """Rows of a uint8 table as float pixels in −1…1, (B, 3, H, W)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(table[np.asarray(rows)])).float() / 127.5 - 1.0


def _decode_or_say(file: Path, size: tuple[int, int], background: str) -> np.ndarray | str:
    try:
        return decode(file, *size, background)
    except BadPicture as error:
        return error.message


def _left_out(noted: Path) -> dict[int, str]:
    """What an earlier run noted as left out of a table."""
    try:
        return {int(index): str(why) for index, why in json.loads(noted.read_bytes()).items()}
    except (OSError, ValueError, AttributeError):
        return {}
