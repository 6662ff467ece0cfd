"""Settings in a TOML file: every option of a command by its long name, and a config written that way."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from t2i.config.fields import Config, Option, check, flag_of, plain_kind
from t2i.errors import StorageError, UsageError

KINDS = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}


def read_settings(
    path: Path, classes: Sequence[type[Config]], skip: Collection[str] = ()
) -> list[dict[str, Any]]:
    """What a file sets, checked as far as one setting can be by itself.

    Keys are the long names of options without their dashes in front, `-` and `_` alike: `learning-rate`,
    `lr`, `learning_rate`. There are no sections.

    Args:
        path: A TOML file.
        classes: The configs whose options it may set.
        skip: Fields that are no options here.

    Returns:
        Field name → value, for each of `classes`.

    Raises:
        StorageError: It cannot be read.
        UsageError: Not TOML, an unknown or repeated key, a value of another type or out of bounds.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise StorageError(f"--config {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: not TOML: {error}") from error
    owners: dict[str, tuple[int, str]] = {}
    for number, kind in enumerate(classes):
        for name, described in kind.options().items():
            if name not in skip:
                owners |= {key: (number, name) for key in _keys(name, described)}
    found: list[dict[str, Any]] = [{} for _ in classes]
    for key, value in values.items():
        where = f"{path}, {_place(text, key)}"
        if isinstance(value, dict):
            raise UsageError(f"{where}: {key} is a section", "write key = value lines, without [sections]")
        owner = owners.get(key.replace("_", "-"))
        if owner is None:
            near = difflib.get_close_matches(key.replace("_", "-"), owners, n=1)
            hint = f"did you mean {near[0]}?" if near else "a key is the long name of an option (see --help)"
            raise UsageError(f"{where}: unknown key {key}", hint)
        number, name = owner
        if name in found[number]:
            raise UsageError(f"{where}: {key} sets {flag_of(name)} a second time", "leave one of them out")
        kind = plain_kind(get_type_hints(classes[number])[name])
        described = classes[number].options()[name]
        found[number][name] = _checked(where, key, name, kind, value, described)
    return found


def to_toml(config: Config, leave_out: Collection[str] = ()) -> str:
    """A config as a file that `read_settings` reads; what is None is not written.

    Args:
        config: What to write.
        leave_out: Fields that are not written.
    """
    lines = []
    for item in fields(config):  # type: ignore[arg-type]
        value = getattr(config, item.name)
        if value is not None and item.name not in leave_out:
            lines.append(f"{flag_of(item.name)[2:]} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _keys(name: str, described: Option) -> list[str]:
    return [flag[2:] for flag in (flag_of(name), *described.names) if flag.startswith("--")]


def _place(text: str, key: str) -> str:
    """The line of a key; tomllib does not say."""
    pattern = re.compile(rf"""\s*\[?\s*["']?{re.escape(key)}["']?\s*[=.\]]""")
    lines = (number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line))
    return f"line {next(lines, '?')}"


def _checked(where: str, key: str, name: str, kind: Any, value: Any, described: Option) -> Any:
    """A value of the right type within its bounds."""
    try:
        if described.parse is not None and isinstance(value, str):
            value = described.parse(value)
        elif get_args(kind):
            inner = get_args(kind)[0]
            if not isinstance(value, list):
                raise ValueError(f"a list is needed, each {KINDS[inner]}")
            value = tuple(_typed(item, inner) for item in value)
        else:
            value = _typed(value, kind)
        for item in value if isinstance(value, tuple) else (value,):
            check(name, item, described)
    except ValueError as error:
        raise UsageError(f"{where}: {key} = {_toml(value)}: {error}") from error
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from error
    return value


def _typed(value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ValueError(f"{KINDS[kind]} is needed")
    return value


def _toml(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, (str, bool)):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's rules but for one
    return str(value)
