"""Names that are fine on one machine and break another, a shell or an archive."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from t2i.naming import NAME_BYTES, RESERVED

FORBIDDEN = re.compile(r'[<>:"\\|?*]')
TURNING = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")  # invisible, or change the direction


def name_problem(name: str) -> str:
    """What is wrong with one part of a path, in words; empty if nothing is."""
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "not UTF-8"
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        return "has control characters"
    if TURNING.search(name):
        return "has invisible characters, or such that change the direction of text"
    found = FORBIDDEN.search(name)
    if found:
        return f"Windows does not allow {found[0]}"
    if name.startswith(("-", ".")):
        return f"begins with {name[0]}"
    if name.endswith((" ", ".")) or name.startswith(" "):
        return "begins or ends with a blank or a dot"
    if len(name.encode()) > NAME_BYTES:
        return f"has {len(name.encode())} bytes, more than {NAME_BYTES}"
    if name.split(".")[0].lower() in RESERVED:
        return "is a device on Windows"
    if unicodedata.normalize("NFC", name) != name:
        return "is not in Unicode normal form C"
    return ""


def name_problems(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(path, what is wrong with its name), also where two differ only in case or Unicode form.

    Args:
        paths: Relative, with slashes.
    """
    same: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        told = next((told for part in PurePosixPath(path).parts if (told := name_problem(part))), "")
        if told:
            yield path, told
        same[unicodedata.normalize("NFC", path).casefold()].append(path)
    for paths_of_one in same.values():
        for path in paths_of_one[1:]:
            yield path, f"is {paths_of_one[0]} where letters have no case"


def safe_name(name: str) -> str:
    """A name without problems that is like another; one that has none stays as it is."""
    if not name_problem(name):
        return name
    stem, dot, suffix = name.rpartition(".")
    plain = unicodedata.normalize("NFKD", stem if dot else name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)[: NAME_BYTES // 2].strip("-._") or "picture"
    words = f"{words}-picture" if words.split(".")[0].lower() in RESERVED else words
    return f"{words}.{suffix.lower()}" if dot and re.fullmatch(r"[A-Za-z0-9]{1,5}", suffix) else words
