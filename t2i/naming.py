"""Where pictures go: a file, a folder or a template becomes one safe, distinct path per picture.

Knows nothing of pictures; `images` writes them. Only what t2i itself puts into a name is made safe
([A-Za-z0-9._-], at most 120 bytes); the folder and the literal text of a template are the person's own.
"""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from t2i.errors import StorageError, UsageError

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
FIELDS = ("index", "seed", "slug", "prompt_index", "image_index")
FOLDER_TEMPLATE = "{slug}-{seed}.png"
SLUG_BYTES = 60
NAME_BYTES = 120
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10))}


def slug(text: str) -> str:
    """A few safe ASCII words of a prompt: "A dog, riding!" is "a-dog-riding"; never empty.

    The result has only [a-z0-9-], starts and ends with a letter or digit, and has at most 60 bytes.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_BYTES].strip("-")
    if not words:
        return "picture"
    return f"{words}-picture" if words in RESERVED else words


def is_template(output: str) -> bool:
    """Whether `output` has fields such as {seed}."""
    return "{" in output


def is_folder(output: str) -> bool:
    """Whether `output` means a folder: it ends with /, exists as one, or has no suffix of a picture."""
    path = Path(output)
    return output.endswith(("/", "\\")) or os.path.isdir(path) or not path.suffix


def picture_format(path: Path) -> str:
    """PNG, JPEG or WEBP, from the suffix.

    Raises:
        UsageError: Another suffix, or none.
    """
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"--output {path}: cannot write {path.suffix or 'a name without suffix'}",
            f"use {', '.join(SUFFIXES)}",
        ) from None


def plan_paths(output: str | None, pictures: Sequence[Mapping[str, Any]], overwrite: bool) -> list[Path]:
    """One path per picture, none of them there yet unless `overwrite`.

    Args:
        output: A file, a folder or a template; None means the current folder.
        pictures: The values of `FIELDS` for each picture; `slug` may be any text.
        overwrite: Whether existing files may be replaced.

    Raises:
        UsageError: Unknown field or suffix, or a template that gives two pictures one name.
        StorageError: A file of that name is already there.
    """
    template = _template(output, len(pictures))
    paths = [_render(template, {**values, "slug": slug(str(values["slug"]))}) for values in pictures]
    if output is None or (not is_template(output) and is_folder(output)):
        return _free(paths, overwrite)
    if not is_template(output):
        paths = _distinct(paths)
    for path, count in Counter(paths).items():
        if count > 1:
            raise UsageError(
                f"--output {output}: {count} pictures would be called {path.name}",
                "add {seed} or {index} to it",
            )
        picture_format(path)
        check_free(path, overwrite)
    return paths


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse a path that is a folder, or that exists while `overwrite` is off."""
    if os.path.isdir(path):
        raise StorageError(f"{path} is a folder", "end it with / to write into it")
    if not overwrite and _exists(path):
        raise StorageError(f"{path} already exists", "choose another name or pass --overwrite")


def check_writable(paths: Iterable[Path]) -> None:
    """Refuse files that cannot be written, before the work that would fill them.

    Raises:
        StorageError: A folder of theirs may not be written into, or is a file.
    """
    for wanted in dict.fromkeys(path.parent for path in paths):
        folder = next(folder for folder in (wanted, *wanted.parents) if _exists(folder))
        if not folder.is_dir():
            raise StorageError(f"{folder} is not a folder", "choose another --output")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StorageError(f"no permission to write into {folder}", "choose a folder you may write to")


def _template(output: str | None, count: int) -> str:
    if output is None:
        return FOLDER_TEMPLATE
    if not output.strip():
        raise UsageError("--output is empty", "name a file, a folder/ or a template, or leave it out")
    if is_template(output):
        return _with_suffix(output + FOLDER_TEMPLATE if output.endswith("/") else output)
    literal = output.replace("{", "{{").replace("}", "}}")
    if is_folder(output):
        return f"{literal.rstrip('/')}/{FOLDER_TEMPLATE}"
    if count == 1:
        return literal
    path = Path(literal)
    return str(path.with_name(f"{path.stem}-{{seed}}{path.suffix}"))


def _with_suffix(template: str) -> str:
    """A template that ends in a field or a word gets .png; one that ends in .gif is refused later."""
    return template if re.search(r"\.[A-Za-z]{2,4}$", template) else template + ".png"


class _Fields(string.Formatter):
    """`str.format` with the names of `FIELDS` only: no attributes, no items, no positions."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        if field_name not in FIELDS:
            raise UsageError(f"--output: unknown field {{{field_name}}}", f"known: {', '.join(FIELDS)}")
        return kwargs[field_name], field_name


def _render(template: str, values: Mapping[str, Any]) -> Path:
    try:
        path = Path(_Fields().format(template, **values))
    except (ValueError, IndexError) as error:
        raise UsageError(
            f"--output {template}: {error}", "write fields as {index:05d}-{seed}-{slug}"
        ) from error
    excess = len(path.name.encode()) - NAME_BYTES
    if excess > 0 and len(values["slug"]) > excess:
        shorter = values["slug"][:-excess].strip("-") or "picture"
        return Path(_Fields().format(template, **{**values, "slug": shorter}))
    return path


def _distinct(paths: Sequence[Path]) -> list[Path]:
    """Number the second and later pictures of one name."""
    seen: Counter[Path] = Counter()
    result = []
    for path in paths:
        seen[path] += 1
        again = seen[path]
        result.append(path if again == 1 else path.with_name(f"{path.stem}-{again}{path.suffix}"))
    return result


def _free(paths: Sequence[Path], overwrite: bool) -> list[Path]:
    """Names in a folder the person did not choose: count on until the name is free."""
    taken: set[Path] = set()
    result = []
    for path in paths:
        candidate, number = path, 1
        while candidate in taken or (not overwrite and _exists(candidate)):
            number += 1
            candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        taken.add(candidate)
        result.append(candidate)
    return result


def _exists(path: Path) -> bool:
    """Whether something of that name is there.

    Raises:
        StorageError: Its folder may not be entered, or the name is too long.
    """
    try:
        return path.exists() or path.is_symlink()  # a link that leads nowhere is in the way too
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
