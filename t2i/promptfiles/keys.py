"""The keys a prompt file may use, and how their values are read.

They are the long options of `t2i generate`, with all their long aliases, - or _ and any case, read from the
options of `GenerateConfig` (and `output` from `OutputConfig`). Only `prompt`, `name` and `size` are added.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, get_args, get_type_hints

from t2i import naming, schedulers
from t2i.config import GenerateConfig, Option, flag_of
from t2i.config.fields import check
from t2i.config.loras import parse_lora
from t2i.config.output import OutputConfig
from t2i.errors import UsageError
from t2i.promptfiles.mistakes import Mistakes
from t2i.promptfiles.sources import UNREADABLE, Item

LISTS = ("lora", "embedding")  # several values: a list, or text with semicolons between
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
EXACT = 2**53  # whole numbers beyond it have no exact float
LARGEST = 2**64
SHOWN = 60

OPTIONS: dict[str, Option] = {
    "prompt": Option("what to draw; may hold wildcards"),
    "name": Option("what reports call this line"),
    "size": Option("width and height, as 512x768"),
    "output": OutputConfig.options()["output"],
    **{name: described for name, described in GenerateConfig.options().items() if name != "prompts"},
}
_HINTS = get_type_hints(GenerateConfig)
KINDS: dict[str, type] = {
    name: next((kind for kind in get_args(_HINTS[name]) if kind is not type(None)), _HINTS[name])
    if name in _HINTS
    else str
    for name in OPTIONS
}
SPELLINGS: dict[str, str] = {name: name for name in OPTIONS} | {
    alias[2:].replace("-", "_"): name
    for name, described in OPTIONS.items()
    for alias in described.names
    if alias.startswith("--")
}
NUMBERS = {int: "a whole number", float: "a number"}
CONTAINERS: dict[type, str] = {dict: "a table", list: "a list"}


WHERE_DEFAULTS_STAND = (
    'defaults of all prompts are {"defaults": {…}} in the first line of a .jsonl, the keys before the first '
    "[[prompts]] of a .toml, and the keys beside `prompts` of a .yaml"
)


def find_key(typed: str) -> str:
    """The field that a key of a file means.

    Raises:
        UsageError: No such key; the hint has the nearest one.
    """
    name = SPELLINGS.get(_normal(typed))
    if name is None:
        hint = WHERE_DEFAULTS_STAND if typed == "defaults" else _nearest(_normal(typed[:SHOWN]))
        raise UsageError(f"unknown key {_short(typed)!r}", hint)
    return name


def read_items(items: Iterable[Item], textual: bool, mistakes: Mistakes) -> tuple[dict[str, Any], set[str]]:
    """The values of a record by field, each checked on its own; what is wrong is noted and left out.

    Args:
        items: Keys and values as they stand in the file. A value of None is one that was not given.
        textual: Values are text still to be read.
        mistakes: Where everything wrong is noted.

    Returns:
        Field of `GenerateConfig`, `prompt`, `name` or `output` → value in the field's own type, where `size`
        has become width and height, and `seed` may be a tuple of seeds; and the fields with wrong values.
    """
    values: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    wrong: set[str] = set()
    for key, value, line in items:
        if value is None:
            continue
        name = ""
        try:
            name = find_key(key)
            if value is UNREADABLE:
                wrong.add(name)
                continue
            made = read_size(value) if name == "size" else {name: read_value(name, value, textual)}
        except UsageError as error:
            wrong.add(name)
            mistakes.add_error(line, error)
            continue
        for field, read in made.items():
            if field in LISTS and textual and field in values:  # --lora a --lora b
                read = values[field] + read
            elif field in spelled:
                by = "" if spelled[field] == key else f", as {_short(spelled[field])} and as {_short(key)}"
                mistakes.add(line, f"{flag_of(field)} is given twice{by}", "keep one of them")
                wrong.add(field)
            spelled[field] = key
            values[field] = read
    return values, wrong


def read_value(name: str, value: Any, textual: bool) -> Any:
    """One value in the type of its field, within the field's bounds; of a list of seeds or files, a tuple.

    Raises:
        UsageError: Another type, out of bounds, or not known; in one line.
    """
    if name in LISTS:
        return _list(name, value)
    if name == "seed" and textual and isinstance(value, str) and "," in value:
        value = value.split(",")
    if name != "seed" or not isinstance(value, list):
        return _read_one(name, value, textual)
    if not value:
        raise UsageError("--seed (an empty list): a whole number is needed")
    return tuple(_read_one(name, one, textual) for one in value)


def _read_one(name: str, value: Any, textual: bool) -> Any:
    kind = KINDS[name]
    if kind is str:
        read: Any = _text(name, value)
    else:
        read = _boolean(name, value, textual) if kind is bool else _number(name, value, kind, textual)
    check(name, read, OPTIONS[name])
    if name == "scheduler":
        return _scheduler(read)
    if name == "output":
        _check_output(read)
    if name == "model" and not read.strip():
        raise UsageError("--model: an empty name")
    return read


def _list(name: str, value: Any) -> tuple[str, ...]:
    """The values of an option that may be repeated; an empty text is none."""
    values = value.split(";") if isinstance(value, str) else value
    if not isinstance(values, (list, tuple)):
        raise UsageError(f"{flag_of(name)} {_short(value)}: text or a list of texts is needed")
    read = tuple(text for text in (_text(name, one).strip() for one in values) if text)
    if name == "lora":
        for text in read:
            parse_lora(text)
    return read


def read_size(value: Any) -> dict[str, int]:
    """`512x768` as width and height.

    Raises:
        UsageError: Not WIDTHxHEIGHT, or out of bounds.
    """
    text = _text("size", value)
    width, _, height = text.lower().replace("×", "x").partition("x")
    if not (width.strip().isdecimal() and height.strip().isdecimal()):
        raise UsageError(f"--size {_short(text)}: not WIDTHxHEIGHT", "for example 512x768")
    return {
        "width": read_value("width", width.strip(), textual=True),
        "height": read_value("height", height.strip(), textual=True),
    }


def _normal(typed: str) -> str:
    return typed.strip().lower().replace("-", "_")


@cache
def _nearest(typed: str) -> str:
    near = difflib.get_close_matches(typed, SPELLINGS, n=1)
    if near:
        return f"did you mean {near[0].replace('_', '-')}?"
    return f"known: {', '.join(name.replace('_', '-') for name in OPTIONS)}"


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{flag_of(name)} {_short(value)}: text is needed", 'put it in "quotes"')
    if "\0" in value:
        raise UsageError(f"{flag_of(name)} {_short(value)!r}: a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{flag_of(name)} {_short(value)!r}: half of a surrogate pair") from error
    return value


def _boolean(name: str, value: Any, textual: bool) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if textual and isinstance(value, str) else None
    if word not in TRUE + FALSE:
        raise UsageError(f"{flag_of(name)} {_short(value)}: true or false is needed")
    return word in TRUE


def _number(name: str, value: Any, kind: type, textual: bool) -> int | float:
    """A finite number; 20.0 is a whole one, as spreadsheets write it.

    Raises:
        UsageError: Text, a boolean, NaN, infinity, a fraction where a whole number is needed.
    """
    read = _plain_number(value.strip()) if textual and isinstance(value, str) else value
    if isinstance(read, str):
        hint = "leave the quotes away" if isinstance(_plain_number(read.strip()), (int, float)) else ""
        raise UsageError(f'{flag_of(name)} "{_short(value)}": {NUMBERS[kind]} is needed', hint)
    if isinstance(read, bool) or not isinstance(read, (int, float)) or not math.isfinite(_capped(read)):
        raise UsageError(f"{flag_of(name)} {_short(value)}: {NUMBERS[kind]} is needed")
    if abs(read) > LARGEST:
        raise UsageError(f"{flag_of(name)}: a number of that size is not allowed")
    if kind is float:
        return float(read)
    if isinstance(read, int):
        return read
    if not read.is_integer() or abs(read) > EXACT:
        raise UsageError(f"{flag_of(name)} {_short(value)}: a whole number is needed")
    return int(read)


def _plain_number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _capped(number: int | float) -> float:
    """A float for `isfinite`, which refuses whole numbers that no float can hold."""
    return float(number) if isinstance(number, float) or abs(number) <= LARGEST else float(LARGEST)


@cache
def _row_name(name: str) -> str | UsageError:
    try:
        row = schedulers.find_row(name)
        schedulers.check_available(row)
    except UsageError as error:
        return error
    return row.name


def _scheduler(name: str) -> str:
    """The name of the row; many lines name the same few, wrong ones included."""
    found = _row_name(name[:SHOWN])
    if isinstance(found, UsageError):
        raise found
    return found


def _check_output(name: str) -> None:
    """A name inside the folder of the run, with a suffix of a picture.

    Raises:
        UsageError: A path that leaves the folder, a template, a folder, or another suffix.
    """
    parts = PurePosixPath(name).parts
    outside = name.startswith("/") or PureWindowsPath(name).drive or "\\" in name or ".." in parts
    if outside or not parts:
        raise UsageError(
            f"--output {_short(name)}: a line may only name a file inside the output folder",
            "for example cats/one.png",
        )
    if naming.is_template(name) or name.endswith("/"):
        raise UsageError(
            f"--output {_short(name)}: a line names one file",
            "folders and templates belong to the command's own --output",
        )
    naming.picture_format(Path(name))


def _short(value: Any) -> str:
    """A value as a message may show it: never a whole list, never endless."""
    if isinstance(value, str):
        return value if len(value) <= SHOWN else value[:SHOWN] + "…"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        return "of more than 64 bits"
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return f"({CONTAINERS.get(type(value), type(value).__name__)})"
