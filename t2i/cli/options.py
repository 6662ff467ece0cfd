"""Typer parameters made from a config dataclass, so that the command line and the config cannot disagree.

How a command file uses it (`t2i/cli/paint.py`, then one row in `t2i.cli.COMMANDS`):

    from typing import Annotated, Any
    import typer
    from t2i.cli.options import config_command
    from t2i.config import PaintConfig

    @config_command(PaintConfig, positional="prompts", none_means="the model's")
    def command(given: dict[str, Any], dry_run: Annotated[bool, typer.Option(help="...")] = False) -> None:
        \"\"\"One line for `t2i --help`; further paragraphs for `t2i paint --help`.\"\"\"
        from t2i.painting import paint          # heavy imports stay inside the function

        for path in paint(PaintConfig.from_dict(given)):
            print(path)

- Every field of the config becomes an option: `--field-name` plus the names in its `Option`, with its
  choices, bounds, unit and default in the help. Booleans become `--x/--no-x`, tuples may be repeated.
- `given` holds only what the person typed. Defaults and bounds stay in the config, which raises
  `UsageError` (exit code 2) itself; Typer only turns text into int, float, bool and str.
- The other parameters of the function are options of the door alone, written as Typer wants them.
- `also` names a second config class whose fields become options too; the function then takes an instance of
  it as its second parameter (what changes no pixel: where files go, what is printed). Its booleans are plain
  flags.
- `positional` names the tuple or plain field that is given without a flag.
- `skip` names fields that are no option of this command.
- `none_means` is what help shows for a `None` default whose help text has no "default: ..." of its own.
- `defaults` replaces every default in help (`replay` shows "the picture's"), or those of the fields it names.
- `config_file` adds `--config FILE`: a TOML file of the same options, over which the command line wins.
- The function returns None (exit code 0) or an exit code, and raises `T2IError` for everything else.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from t2i.config import Config, Option, flag_of
from t2i.config.fields import plain_kind
from t2i.config.files import read_settings
from t2i.errors import UsageError

NUMBERS = {int: ("INT", "a whole number"), float: ("NUMBER", "a number")}
CONFIG_FILE = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option(
            "--config",
            help="TOML file of options by their long names; the command line wins over it",
            metavar="FILE",
            show_default=False,
        ),
    ],
)
SHOWN_BELOW = 2**32  # a bound beyond this tells a person nothing


def config_command(
    config_class: type[Config],
    also: type[Config] | None = None,
    positional: str | None = None,
    skip: Collection[str] = (),
    none_means: str = "",
    defaults: str | Mapping[str, str] | None = None,
    config_file: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: put the options of `config_class` before a command's own; see the module docstring."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[2 if also else 1 :]
        made, read_given = _parameters(config_class, skip, positional, none_means, defaults, negatable=True)
        made_also, read_also = _parameters(also, (), None, "", None, negatable=False) if also else ([], None)

        @functools.wraps(function)
        def command(**values: Any) -> Any:
            file = values.pop(CONFIG_FILE.name) if config_file else None
            known = (config_class, also) if also else (config_class,)
            settings = read_settings(Path(file), known, skip) if file is not None else [{}, {}]
            read: list[Any] = [settings[0] | read_given(values)]
            if also and read_also:
                read.append(also.from_dict(settings[1] | read_also(values)))
            return function(*read, **values)

        keyword = inspect.Parameter.KEYWORD_ONLY
        file_option = [CONFIG_FILE] if config_file else []
        own = [parameter.replace(kind=keyword) for parameter in own]
        parameters = [*made, *file_option, *own, *made_also]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del command.__wrapped__  # Typer would read the inner signature
        return command

    return decorate


def _parameters(
    config_class: type[Config],
    skip: Collection[str],
    positional: str | None,
    none_means: str,
    defaults: str | Mapping[str, str] | None,
    negatable: bool,
) -> tuple[list[inspect.Parameter], Callable[[dict[str, Any]], dict[str, Any]]]:
    """The parameters of a config's fields, and a function that takes their values out of Typer's."""
    hints = get_type_hints(config_class)
    items = [item for item in fields(config_class) if item.name not in skip]  # type: ignore[arg-type]
    kinds = {item.name: plain_kind(hints[item.name]) for item in items}
    made = []
    for item in items:
        flag = None if item.name == positional else flag_of(item.name)
        if flag and negatable and kinds[item.name] is bool:
            flag = f"{flag}/--no-{flag[2:]}"
        help_text, names = describe(item, none_means, defaults), item.metadata["option"].names
        made.append(_parameter(item.name, kinds[item.name], help_text, flag, names))
    parsers = {item.name: item.metadata["option"].parse for item in items}

    def read(values: dict[str, Any]) -> dict[str, Any]:
        typed = {name: _read(name, parsers[name] or kind, values.pop(name)) for name, kind in kinds.items()}
        return {name: value for name, value in typed.items() if value is not None}

    return made, read


def describe(item: Field[Any], none_means: str = "", defaults: str | Mapping[str, str] | None = None) -> str:
    """The help of one field: what it is, what is allowed, and its default.

    Args:
        item: A dataclass field made by `t2i.config.option`.
        none_means: Shown as the default where the field's default is None and its help names none.
        defaults: Shown as the default instead of the field's; a mapping says of which fields.
    """
    described: Option = item.metadata["option"]
    text, _, own_default = described.help.partition("; default: ")
    allowed = _allowed(described)
    told = defaults.get(item.name) if isinstance(defaults, Mapping) else defaults
    default = told or own_default or _default(item, none_means)
    return text + (f" ({allowed})" if allowed else "") + (f" [default: {default}]" if default else "")


def _allowed(described: Option) -> str:
    """Bounds, unit, choices and methods in words: "8 to 8192 pixels, multiple of 8"."""
    only = [f"--method {', '.join(described.only)}"] if described.only else []
    if described.choices:
        return "; ".join([", ".join(described.choices), *only])
    parts = []
    if described.low is not None and described.high is not None and described.high < SHOWN_BELOW:
        parts.append(f"{described.low} to {described.high}")
    elif described.low is not None:
        parts.append(f"at least {described.low}")
    elif described.high is not None and described.high < SHOWN_BELOW:
        parts.append(f"at most {described.high}")
    if described.above is not None:
        parts.append(f"above {described.above}")
    if described.unit:
        parts[:1] = [" ".join([*parts[:1], described.unit])]
    if described.multiple_of is not None:
        parts.append(f"multiple of {described.multiple_of}")
    return "; ".join([*([", ".join(parts)] if parts else []), *only])


def _default(item: Field[Any], none_means: str) -> str:
    if item.default is None:
        return none_means
    if item.default is MISSING or item.default in ("", (), False):
        return ""
    return "on" if item.default is True else str(item.default)


def _parameter(
    name: str, kind: Any, help_text: str, flag: str | None, names: tuple[str, ...]
) -> inspect.Parameter:
    """One keyword-only parameter `name: Annotated[kind | None, typer.Option(...)] = None`.

    Without a flag it is positional. Numbers are left to `_read`: Typer's complaint about them does not
    repeat what was typed.
    """
    inner = get_args(kind)[0] if get_args(kind) else kind
    info: Any
    if flag is None:
        metavar = name.upper().removesuffix("S") if get_args(kind) else name.upper()
        info = typer.Argument(help=help_text, metavar=metavar, show_default=False)
    else:
        metavar = NUMBERS[inner][0] if inner in NUMBERS else "TEXT"
        info = typer.Option(
            flag, *names, help=help_text, metavar=None if kind is bool else metavar, show_default=False
        )
    parsed = kind if kind is bool else list[str] if get_args(kind) else str
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[parsed | None, info]
    )


def _read(name: str, kind: Any, value: Any) -> Any:
    """Typed text as the value the config holds; None when it was not given.

    Raises:
        UsageError: Text where a number is needed.
    """
    if isinstance(value, (list, tuple)):
        return tuple(_read(name, get_args(kind)[0], item) for item in value) or None
    if value is None or kind in (bool, str):
        return value
    try:
        return kind(value)
    except ValueError as error:
        needed = f"{NUMBERS[kind][1]} is needed" if kind in NUMBERS else str(error)
        raise UsageError(f"{flag_of(name)} {value}: {needed}") from error
