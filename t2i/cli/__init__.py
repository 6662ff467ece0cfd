"""The command line: one file per command, one row per file in `COMMANDS`.

A file with several commands has a table `COMMANDS` of its own instead of `command`.
Nothing here imports torch, diffusers, transformers, accelerate, peft or numpy; a command imports its flow
inside its function. A command file has a function `command` (see `t2i.cli.options`). Results go to stdout,
progress and notices to stderr, failures become exit codes in `t2i.cli.door`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Annotated

import typer

from t2i.cli import door
from t2i.errors import EXIT_CODES
from t2i.version import __version__

COMMANDS = (
    "generate", "batch", "sweep", "train", "data", "eval", "show", "replay", "verify", "models", "schedulers",
    "doctor", "version",
)  # fmt: skip

HELP = "Text to image: draw pictures from words, train your own model, and rebuild any picture exactly."
EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())


def build_app(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """The Typer app with these commands of `COMMANDS`; only their files are imported."""
    app = typer.Typer(
        name="t2i",
        help=HELP,
        epilog=EPILOG,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help: whole option names at 80 columns, and no import of rich
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_root)
    for name in names:
        module = import_module(f"t2i.cli.{name}")
        if hasattr(module, "COMMANDS"):
            app.add_typer(_group(module), name=name)
        else:
            app.command(name)(door.deferred(module.command))
    return app


def _group(module: ModuleType) -> typer.Typer:
    """The commands of a file that has several, behind its own name: `t2i data check`."""
    told = (module.__doc__ or "").splitlines()[0].partition(": ")[2]
    group = typer.Typer(help=told[:1].upper() + told[1:], rich_markup_mode=None, invoke_without_command=True)
    group.callback()(_help_alone)
    for name, command in module.COMMANDS.items():
        group.command(name)(door.deferred(command))
    return group


def _help_alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(0)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Never raises for a failure of the command."""
    named = arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS
    return door.run(build_app(named), arguments)


def main() -> None:
    """The console script `t2i`."""
    sys.exit(run(sys.argv[1:]))


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"t2i {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())
    if version or context.invoked_subcommand is None:
        raise typer.Exit(0)
