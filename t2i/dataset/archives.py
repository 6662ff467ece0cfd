"""Webdataset archives: a .tar in which the files of a sample follow each other and have one name.

`a/0001.jpg`, `a/0001.txt` and `a/0001.json` are one picture with its captions. An archive is read as a
stream: nothing in it is written to the disk under a name of its own, links and devices in it are passed over,
and nothing is unpickled.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from t2i.dataset.captions import SIDECAR_LIMIT
from t2i.dataset.records import (
    CAPTION_COLUMNS,
    PICTURE_COLUMNS,
    PICTURE_LIMIT,
    Columns,
    Record,
    captions_of_json,
    captions_of_lines,
)
from t2i.errors import DatasetError

SAMPLE = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)  # name of a sample, and what of it this is
END = 1024  # bytes of zeros behind the last member


def read_archive(path: Path, columns: Columns) -> Iterator[Record]:
    """The pictures of an archive, in its order; samples without one are passed over.

    Captions are the lines of the text file, or in the JSON file.

    Raises:
        DatasetError: No archive, damaged, without its end, or without what the columns name.
    """
    _check_end(path)
    seen: set[str] = set()
    pictures = captions = 0
    try:
        for name, members in _samples(path, columns):
            seen |= set(members)
            form = _picture(members, columns)
            if form is None:
                continue
            record = _record(f"{path.name}: {name}", form, members, columns)
            pictures, captions = pictures + 1, captions + bool(record.captions)
            if "json" in members and not record.captions:
                seen |= {str(key) for key in _json(members["json"], record.place)}
            yield record
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    if not pictures:
        columns.find_image(sorted(seen), path.name)
    if pictures and not captions and (columns.caption is not None or "json" in seen):
        columns.find_caption(sorted(seen), path.name)


def _samples(path: Path, columns: Columns) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(name, what it is made of) of each sample: the bytes of its files that matter."""
    texts = {"json", *CAPTION_COLUMNS, columns.caption}
    pictures = {*PICTURE_COLUMNS, columns.image}
    name, members = "", dict[str, bytes]()
    with tarfile.open(path, "r|") as archive:
        for member in archive:
            parts = SAMPLE.fullmatch(member.name)
            if parts is None or not member.isreg():
                continue
            if parts[1] != name:
                if members:
                    yield name, members
                name, members = parts[1], {}
            form = parts[2] if parts[2] in pictures else parts[2].lower()
            if form in members or form not in texts | pictures:
                continue
            limit = PICTURE_LIMIT if form in pictures else SIDECAR_LIMIT
            if member.size > limit:
                raise DatasetError(
                    f"{path}: {member.name[:200]} has {member.size:,} bytes, more than {limit:,}",
                    "pictures and captions are smaller",
                )
            file = archive.extractfile(member)
            members[form] = b"" if file is None else file.read()
        with open(path, "rb") as whole:  # the library takes a header that it cannot read for the end
            whole.seek(archive.offset)
            if any(whole.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError(f"no header at byte {archive.offset}")
    if members:
        yield name, members


def _picture(members: dict[str, bytes], columns: Columns) -> str | None:
    """Which of the files of a sample is its picture."""
    wanted = PICTURE_COLUMNS if columns.image is None else (columns.image,)
    return next((form for form in wanted if form in members), None)


def _record(place: str, form: str, members: dict[str, bytes], columns: Columns) -> Record:
    captions: tuple[str, ...] = ()
    if columns.captioned:
        names = CAPTION_COLUMNS if columns.caption is None else (columns.caption,)
        text = next((members[name] for name in names if name in members), None)
        if text is not None:
            captions = captions_of_lines(text)
        elif "json" in members:
            captions = captions_of_json(_json(members["json"], place), columns, place)
    return Record(members[form], captions, place, f"x.{form}")


def _json(data: bytes, place: str) -> dict[str, object]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{place}: its .json is not JSON", "repair or remove it") from error
    return values if isinstance(values, dict) else {}


def _check_end(path: Path) -> None:
    """Refuse an archive without its end: what reads it would take a part for the whole."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - END))
            whole = size >= END and file.read(END) == bytes(END)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    if not whole:
        raise _damaged(path, "its end is missing, or it is no plain .tar")


def _damaged(path: Path, why: str) -> DatasetError:
    return DatasetError(f"archive {path} is damaged: {why[:200]}", "download or make it again")
