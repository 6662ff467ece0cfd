"""From a file or stdin to clean text, and the records that every format is read into."""

from __future__ import annotations

import codecs
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from t2i.errors import StorageError, UsageError
from t2i.promptfiles.mistakes import Mistakes

FORMATS = ("txt", "jsonl", "csv", "toml", "yaml")
SUFFIXES = {f".{name}": name for name in FORMATS} | {".ndjson": "jsonl", ".yml": "yaml", ".text": "txt"}
MOST_BYTES = 256 * 2**20
OTHER_ENCODINGS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of bytes that are not UTF-8
UNREADABLE = object()  # in place of a value that a reader has already complained about


class Item(NamedTuple):
    """One key as it stands in the file, and its line; None for what was given beside the file."""

    key: str
    value: Any
    line: int | None


@dataclass(frozen=True)
class Record:
    """One prompt with its settings, unchecked.

    Attributes:
        line: Where it starts, from 1.
        items: Its keys in order; a key that stands twice is there twice.
    """

    line: int
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Parsed:
    """What a reader returns: the defaults of the file and its records.

    Attributes:
        defaults: The header, or None.
        records: In the order of the file.
        textual: Whether values are text still to be read (txt, csv) or already numbers, text and booleans.
    """

    defaults: Record | None
    records: list[Record]
    textual: bool = False


def format_of(source: str, given: str | None) -> str:
    """One of `FORMATS`: the one that was given, else by the suffix; stdin is txt.

    Raises:
        UsageError: An unknown name or suffix.
    """
    if given is not None:
        if given not in FORMATS:
            raise UsageError(f"--format {given}: not one of {', '.join(FORMATS)}")
        return given
    if source == "-":
        return "txt"
    suffix = Path(source).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{source}: unknown kind of prompt file {suffix or '(no suffix)'}",
            f"say which with --format {', '.join(FORMATS)}",
        )
    return SUFFIXES[suffix]


def read_bytes(source: str) -> bytes:
    """The bytes of a file, or of stdin for `-`.

    Raises:
        StorageError: Missing, a folder, forbidden, or too large to be a prompt file.
    """
    try:
        if source == "-":
            data = sys.stdin.buffer.read(MOST_BYTES + 1) if sys.stdin else b""
        elif os.path.isdir(source):
            raise StorageError(f"{source} is a folder", "name a prompt file in it")
        else:
            with open(source, "rb") as file:
                data = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise StorageError(f"{source}: no such prompt file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise StorageError(f"cannot read {source}: {reason}") from error
    if len(data) > MOST_BYTES:
        raise StorageError(
            f"{source}: larger than {MOST_BYTES // 2**20} MiB", "is it a prompt file? if so, split it"
        )
    return data


def decode(data: bytes, mistakes: Mistakes) -> str:
    """UTF-8 text, with or without a byte order mark, whose lines end in a plain newline.

    Every line that is not UTF-8 or holds a NUL byte is a mistake of its own; a stand-in takes the place of
    such bytes, so that the rest of the line is checked too.
    """
    for mark, encoding in OTHER_ENCODINGS.items():
        if data.startswith(mark):
            mistakes.add(1, f"{encoding} text", "save the file as UTF-8")
            return ""
    text = data.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n").replace("\r", "\n")
    text = text.replace("\n\ufeff", "\n")  # where files with a byte order mark were joined
    if "\0" not in text and not NOT_UTF8.search(text):
        return text
    for number, line in enumerate(text.split("\n"), 1):
        if "\0" in line:
            mistakes.add(number, f"a NUL byte in column {line.index(chr(0)) + 1}", "is it a text file?")
        if found := NOT_UTF8.search(line):
            byte = ord(found.group()) - 0xDC00
            mistakes.add(
                number,
                f"not UTF-8 text: byte 0x{byte:02x} in column {found.start() + 1}",
                "save the file as UTF-8",
            )
    return NOT_UTF8.sub("�", text).replace("\0", "�")
