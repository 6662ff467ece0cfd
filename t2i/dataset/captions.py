"""What is said of a picture: rows of metadata.jsonl and .csv, text files beside pictures, names.

A fault is handed to whoever reads: `refuse` makes it the end of a run, `t2i data check` lists it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.dataset.decoding import SUFFIXES
from t2i.errors import DatasetError

METADATA = ("metadata.jsonl", "metadata.csv")
SIDECARS = (".txt", ".caption")  # the first that is there
SIDECAR_LIMIT = 1 << 20  # bytes; captions are shorter
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
KOHYA = re.compile(r"([1-9]\d{0,2})_(\S.*)")  # repeats and class: "10_sks dog"; 2024_holiday is a year


@dataclass(frozen=True)
class Example:
    """One picture file and what it shows.

    Attributes:
        file: The picture.
        caption: The first of its captions; empty when nothing is said.
        more_captions: Further captions that say it in other words; a step draws one of all.
        repeats: How often it is seen, as against the other pictures.
        part: "train", "val" or "test" where the folder says so, else empty.
    """

    file: Path
    caption: str
    more_captions: tuple[str, ...] = ()
    repeats: int = 1
    part: str = ""

    @property
    def captions(self) -> tuple[str, ...]:
        """All that is said of it, at least one, which may be empty."""
        return (self.caption, *self.more_captions)


@dataclass(frozen=True)
class Fault:
    """Something in a dataset folder that cannot be used.

    Attributes:
        kind: "missing", "outside", "bad-line", "not-utf8" or "unreadable".
        place: Of what, for a person: a file, or a line of it.
        message: What is wrong, with `place` in it.
        hint: What to do.
    """

    kind: str
    place: str
    message: str
    hint: str = ""


OnFault = Callable[[Fault], None]


def refuse(fault: Fault) -> None:
    """Raise a fault.

    Raises:
        DatasetError: Always.
    """
    raise DatasetError(fault.message, fault.hint)


def caption_from_name(file: Path) -> str:
    """The words of a file name, or "" for names that a camera gave: "red_car-02.png" is "red car"."""
    words = re.findall(r"[^\W\d_]+", file.stem.lower())
    told = [word for word in words if len(word) > 2 and word not in CAMERA_WORDS]
    return " ".join(words) if told else ""


def caption_from_folder(file: Path, root: Path) -> str:
    """What the name of its folder says of a picture: "sks dog" of 10_sks dog/; "" right in the dataset's."""
    if file.parent == root:
        return ""
    kohya = KOHYA.fullmatch(file.parent.name)
    return " ".join((kohya[2] if kohya else file.parent.name).replace("_", " ").split())


def repeats_of(file: Path, root: Path) -> int | None:
    """The repeats that kohya's layout writes into the name of a picture's folder; None if it has no such."""
    found = None if file.parent == root else KOHYA.fullmatch(file.parent.name)
    return int(found[1]) if found else None


def sidecar_of(file: Path) -> Path | None:
    """The text file beside a picture."""
    return next((path for path in map(file.with_suffix, SIDECARS) if path.is_file()), None)


def read_sidecar(sidecar: Path, on_fault: OnFault) -> tuple[str, ...]:
    """The captions in a text file, one a line; without blank lines, so possibly none."""
    try:
        with open(sidecar, "rb") as file:
            data = file.read(SIDECAR_LIMIT + 1)
        if len(data) > SIDECAR_LIMIT:
            told = f"caption file {sidecar} is larger than 1 MiB"
            on_fault(Fault("unreadable", str(sidecar), told, "captions are shorter"))
            return ()
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        told = f"caption file {sidecar} cannot be read: {error}"
        on_fault(Fault("not-utf8", str(sidecar), told, "save it as UTF-8"))
        return ()
    except OSError as error:
        told = f"caption file {sidecar} cannot be read: {error.strerror}"
        on_fault(Fault("unreadable", str(sidecar), told))
        return ()
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def read_metadata(
    root: Path,
    file: Path,
    follow_symlinks: bool,
    on_fault: OnFault,
    name_column: str = "file_name",
    text_column: str = "text",
) -> Iterator[Example]:
    """The examples that a metadata file lists, in its order."""
    resolved_root = root.resolve()
    rows = 0
    for line, row in _rows(file, on_fault):
        rows += 1
        place = f"{file}, line {line}"
        name, text, repeats = row.get(name_column), row.get(text_column), row.get("repeats") or 1
        captions = (text,) if isinstance(text, str) else tuple(text) if isinstance(text, list) else ()
        if not isinstance(name, str) or not captions or not all(isinstance(one, str) for one in captions):
            on_fault(Fault("bad-line", place, f'{place}: needs "{name_column}" and "{text_column}"'))
            continue
        if not _is_count(repeats):
            on_fault(Fault("bad-line", place, f'{place}: "repeats" must be a whole number from 1 to 999'))
            continue
        if any("\ud800" <= letter <= "\udfff" for one in captions for letter in one):
            on_fault(Fault("not-utf8", place, f"{place}: the text is not UTF-8"))
            continue
        fault = _unusable(root, resolved_root, name, place, follow_symlinks)
        if fault is not None:
            on_fault(fault)
            continue
        first, *more = (one.strip() for one in captions)
        yield Example(root / name, first, tuple(more), int(repeats))
    if not rows:
        told = 'one line per picture: {"file_name": …, "text": …}'
        on_fault(Fault("bad-line", str(file), f"{file} is empty", told))


def is_outside(path: Path, resolved_root: Path) -> bool:
    """Whether a path leads out of a folder, also by links.

    Raises:
        OSError: It cannot be told.
    """
    try:
        return not path.resolve().is_relative_to(resolved_root)
    except RuntimeError as error:  # links in a circle
        raise OSError(str(error)) from error


def _unusable(root: Path, resolved_root: Path, name: str, place: str, follow_symlinks: bool) -> Fault | None:
    """What is wrong with a file name in metadata, if anything."""
    picture = root / name
    try:
        by_link = not Path(name).is_absolute() and ".." not in Path(name).parts
        if not (by_link and follow_symlinks) and not picture.resolve().is_relative_to(resolved_root):
            hint = "--follow-symlinks, if the link is yours" if by_link else ""
            return Fault("outside", place, f"{place}: {name} is outside the dataset folder", hint)
        if picture.suffix.lower() not in SUFFIXES:
            return Fault("bad-line", place, f"{place}: {name} is not one of {', '.join(SUFFIXES)}")
        if not picture.is_file():
            told = f"{place}: picture {name} is missing"
            return Fault("missing", place, told, "add the picture or delete the line")
    except (OSError, ValueError, RuntimeError):  # too long, a zero byte, links in a circle
        return Fault("bad-line", place, f"{place}: no file can be called {name[:80]!r}")
    return None


def _is_count(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"[1-9]\d{0,2}", value) is not None
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 999


def _rows(file: Path, on_fault: OnFault) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a .jsonl or .csv file."""
    try:
        data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")  # spreadsheets begin with a byte-order mark
        if file.suffix == ".csv":
            for number, row in enumerate(csv.DictReader(io.StringIO(data.decode(), newline="")), 2):
                yield number, dict(row)
            return
    except UnicodeDecodeError as error:
        told = f"{file} cannot be read: {error}"
        on_fault(Fault("not-utf8", str(file), told, "save it as UTF-8"))
        return
    except (OSError, csv.Error) as error:
        on_fault(Fault("unreadable", str(file), f"{file} cannot be read: {error}"))
        return
    for number, line in enumerate(data.split(b"\n"), 1):
        place = f"{file}, line {number}"
        try:
            found = json.loads(text) if (text := line.decode().strip()) else None
        except json.JSONDecodeError as error:
            on_fault(Fault("bad-line", place, f"{place}: not JSON ({error.msg})"))
        except UnicodeDecodeError as error:
            on_fault(Fault("not-utf8", place, f"{place} cannot be read: {error}", "save it as UTF-8"))
        except (ValueError, RecursionError):
            on_fault(Fault("bad-line", place, f"{place}: not JSON"))
        else:
            if isinstance(found, dict):
                yield number, found
            elif text:
                on_fault(Fault("bad-line", place, f"{place}: not a JSON object"))
