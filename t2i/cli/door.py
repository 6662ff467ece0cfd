"""The one place where a failure becomes lines on stderr and an exit code.

Typer only reads the command line: each command is handed back as a thunk (`deferred`) and run after Typer
has returned, so that none of our exceptions, signals or pipes passes through its own handlers.
"""

from __future__ import annotations

import difflib
import errno
import functools
import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import typer

from t2i.errors import T2IError
from t2i.texts import printable as printable

PARTLY, INTERRUPTED = 3, 130
NATIVE = ("torch", "diffusers", "transformers", "numpy")


def deferred(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same command, which returns what is to be done instead of doing it."""

    @functools.wraps(command)
    def prepare(*positional: Any, **values: Any) -> Callable[[], Any]:
        return functools.partial(command, *positional, **values)

    prepare.__signature__ = inspect.signature(command, eval_str=True)  # type: ignore[attr-defined]
    return prepare


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Read `arguments`, do what they ask, and return the exit code; see `t2i.errors.EXIT_CODES`."""
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGINT) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(signal.SIGINT, _interrupt)  # one that is ignored (nohup, &) stays ignored
        if hasattr(signal, "pthread_kill"):
            sys.unraisablehook = _interrupt_again
    except ValueError:
        pass  # not in the main thread: whoever owns it decides about signals
    try:
        todo = app(list(arguments), prog_name="t2i", standalone_mode=False)
        code = todo() if callable(todo) else todo
        if sys.stdout is not None:  # None where the shell closed it
            sys.stdout.flush()
        return int(code or 0)
    except T2IError as error:
        return complain(error.message, error.hint, error.exit_code)
    except typer.TyperException as error:
        return complain(*_usage(error), exit_code=2)
    except (KeyboardInterrupt, typer.Abort):
        return complain("interrupted", exit_code=INTERRUPTED)
    except BrokenPipeError:
        # Whoever read stdout has gone; without this, Python complains again while it exits.
        _drop_stdout()
        return PARTLY
    except Exception as error:
        return _unexpected(error)


def complain(message: str, hint: str = "", exit_code: int = 4) -> int:
    """Print `error:` and `hint:` on stderr, one line each, and return the exit code."""
    print(f"error: {_one_line(message)}", file=sys.stderr)
    if hint:
        print(f"hint: {_one_line(hint)}", file=sys.stderr)
    return exit_code


def raise_all(failures: Sequence[T2IError]) -> None:
    """After the work on several files: tell all failures but the last, and raise that."""
    for error in failures[:-1]:
        complain(error.message, error.hint)
    if failures:
        raise failures[-1]


def notice(message: str) -> None:
    """One line on stderr that is neither a result nor an error."""
    print(f"t2i: {printable(message)}", file=sys.stderr)


def _usage(error: typer.TyperException) -> tuple[str, str]:
    """Typer's complaint as one line, and the nearest option or the help page as hint."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "t2i"
    known = getattr(error, "possibilities", None)  # set for an unknown option
    if known:
        typed = getattr(error, "option_name", "")
        nearest = difflib.get_close_matches(typed, known, n=1, cutoff=0)
        return f"no such option: {typed}", f"did you mean {nearest[0]}? (all: {path} --help)"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return message, f"see {path} --help"


def _drop_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unexpected(error: Exception) -> int:
    """A failure nobody foresaw: no memory and no space are recognised, anything else is one line."""
    if os.environ.get("T2I_DEBUG"):
        raise error
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or "out of memory" in text.lower() or "can't allocate memory" in text:
        return complain(
            f"out of memory ({_one_line(text)[:160]})",
            "try a smaller --batch-size, --width and --height, or a smaller --model",
            exit_code=5,
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        if error.filename is None:  # stdout; what is left in its buffer would fail again while Python exits
            _drop_stdout()
        return complain(f"no space left while writing {error.filename or 'the results'}", "free some space")
    return complain(
        f"unexpected {text}", "set T2I_DEBUG=1 to see where; please report it if it is not your file", 4
    )


def _one_line(text: str) -> str:
    return printable(" ".join(str(text).split()))


def _interrupt(number: int, frame: object) -> None:
    """Ctrl-C or SIGTERM. Inside the import of native code an exception would abort the process."""
    specs = (getattr(sys.modules.get(name), "__spec__", None) for name in NATIVE)
    if any(getattr(spec, "_initializing", False) for spec in specs):
        os._exit(complain("interrupted", exit_code=INTERRUPTED))  # nothing has been begun yet
    raise KeyboardInterrupt


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what a finalizer or a weak reference's callback raises: send the interrupt once more."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    # SIGTERM, because whoever started us may have SIGINT ignored. A true signal ends a sleep as well.
    main_thread = threading.main_thread().ident
    again = threading.Timer(0.01, signal.pthread_kill, [main_thread, signal.SIGTERM])
    again.daemon = True
    again.start()
