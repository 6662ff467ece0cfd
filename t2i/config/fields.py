"""What a config field knows about itself: default, help, bounds, choices, names on the command line.

A config class is a frozen dataclass whose fields are made by `option`. The command line, the recipe in
a picture and the saved run are all read from these fields, so a default or a bound stands only here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

from t2i.errors import UsageError


@dataclass(frozen=True)
class Option:
    """The metadata of one field. Bounds are inclusive; `unit` is a word for help and docs.

    `only` names the values of the field `method` that use this one; given with another it is refused.
    `parse` reads what a person typed where that may be more than a number, and raises `ValueError` with
    what is allowed.
    """

    help: str
    names: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    multiple_of: int | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    reason: str = ""
    only: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None


def option(default: Any, help: str, *names: str, **limits: Any) -> Any:
    """A dataclass field with its `Option`.

    Args:
        default: The value when nothing is given. `None` means "not given": somebody later decides.
        help: One line for a person.
        names: Further command-line names, such as "-s" or "--cfg-scale"; the long name is the field's.
        limits: The other fields of `Option`.
    """
    return field(default=default, metadata={"option": Option(help, names, **limits)})


def flag_of(name: str) -> str:
    """The command-line name of a field: `guidance_scale` is `--guidance-scale`."""
    return "--" + name.replace("_", "-")


def plain_kind(kind: Any) -> Any:
    """A field's type without its None: `int | None` is int, `tuple[str, ...] | None` is tuple[str, ...]."""
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


class Config:
    """Base of the config dataclasses: checks bounds when made, and goes to JSON and back."""

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            described = item.metadata.get("option")
            if described is not None:
                check(item.name, getattr(self, item.name), described)

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Name → `Option` of every field."""
        return {item.name: item.metadata["option"] for item in fields(cls)}  # type: ignore[arg-type]

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: tuples become lists."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The config that `to_dict` came from.

        Raises:
            UsageError: An unknown name, or a value of the wrong type or out of bounds.
        """
        unknown = sorted(set(values) - set(cls.options()))
        if unknown:
            import difflib

            near = difflib.get_close_matches(unknown[0], cls.options(), n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(cls.options())}"
            raise UsageError(f"unknown setting {unknown[0]!r}", hint)
        kinds = get_type_hints(cls)
        given = {}
        for name, value in values.items():
            kind = str(kinds[name])
            given[name] = tuple(value) if "tuple" in kind and isinstance(value, list) else value
        return cls(**given)


def check(name: str, value: Any, described: Option) -> None:
    """Refuse a value outside its bounds, in one line naming the option, the value and the bounds."""
    if value is None:
        return
    shown = f"{flag_of(name)} {value}"
    why = f" ({described.reason})" if described.reason else ""
    if described.choices and value not in described.choices:
        raise UsageError(f"{shown}: not one of {', '.join(described.choices)}")
    if described.low is not None or described.high is not None or described.above is not None:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            raise UsageError(f"{shown}: a number is needed")
    if described.low is not None and value < described.low:
        raise UsageError(f"{shown}: must be at least {described.low}{why}")
    if described.above is not None and value <= described.above:
        raise UsageError(f"{shown}: must be above {described.above}{why}")
    if described.high is not None and value > described.high:
        raise UsageError(f"{shown}: must be at most {described.high}{why}")
    if described.multiple_of is not None and value % described.multiple_of:
        below = value // described.multiple_of * described.multiple_of
        near = [str(near) for near in (below, below + described.multiple_of) if near > 0]
        raise UsageError(
            f"{shown}: must be a multiple of {described.multiple_of}{why}", f"try {' or '.join(near)}"
        )
