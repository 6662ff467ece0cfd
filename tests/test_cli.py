"""The command line: options are the config's, results and notices keep apart, failures are one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from command_line import Run

from t2i import cli
from t2i.cli import door
from t2i.cli.options import config_command
from t2i.config import Config, option
from t2i.errors import EXIT_CODES, ModelError

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on cores that others use wait for each other


# ---- options made from a config


@dataclass(frozen=True)
class PaintConfig(Config):
    words: tuple[str, ...] = option((), "what to paint")
    layers: int = option(3, "coats of paint", "-l", low=1, high=9)
    width: int | None = option(None, "width", low=8, high=64, multiple_of=8, unit="pixels")
    thickness: float | None = option(None, "how thick; default: thin", above=0)
    kind: str = option("oil", "what paint", choices=("oil", "acrylic"))
    dry: bool = option(True, "let it dry")
    tags: tuple[str, ...] = option((), "labels", "-t")


@pytest.fixture
def paint() -> Run:
    seen: dict[str, Any] = {}

    @config_command(PaintConfig, positional="words", none_means="the model's")
    def command(given: dict[str, Any], loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        """Paint."""
        seen.update(given=given, loud=loud, config=PaintConfig.from_dict(given))

    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("paint")(door.deferred(command))
    app.command("other")(lambda: None)

    def run_paint(*arguments: str) -> Any:
        seen.clear()
        return door.run(app, ["paint", *arguments]), dict(seen)

    return run_paint


def test_only_what_was_typed_is_given(paint: Run) -> None:
    assert paint()[1] == {"given": {}, "loud": False, "config": PaintConfig()}
    code, seen = paint(
        "a", "b", "-l", "4", "--width", "16", "--thickness", "0.5", "--no-dry", "-t", "x", "-t", "y", "--loud"
    )
    assert code == 0 and seen["loud"]
    assert seen["given"] == {
        "words": ("a", "b"), "layers": 4, "width": 16, "thickness": 0.5, "dry": False, "tags": ("x", "y"),
    }  # fmt: skip


def test_help_shows_bounds_choices_and_defaults(paint: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert paint("--help")[0] == 0
    shown = " ".join(capsys.readouterr().out.split())
    for expected in (
        "coats of paint (1 to 9) [default: 3]",
        "width (8 to 64 pixels, multiple of 8) [default: the model's]",
        "how thick (above 0) [default: thin]",
        "what paint (oil, acrylic) [default: oil]",
        "--dry / --no-dry",
        "-l, --layers INT",
    ):
        assert expected in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "x"], "--layers x: a whole number is needed"),
        (["--layers", "1.5"], "--layers 1.5: a whole number is needed"),
        (["--layers", "10"], "--layers 10: must be at most 9"),
        (["--layers", "-1"], "--layers -1: must be at least 1"),
        (["--thickness", "nan"], "--thickness nan: a number is needed"),
        (["--thickness", "0"], "--thickness 0.0: must be above 0"),
        (["--width", "12"], "--width 12: must be a multiple of 8"),
        (["--kind", "ink"], "--kind ink: not one of oil, acrylic"),
        (["--layerz", "3"], "did you mean --layers?"),
        (["--layers"], "requires an argument"),
    ],
)
def test_bad_values_are_one_line_and_exit_2(
    paint: Run, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert paint(*arguments)[0] == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("error: ") and len(errors.splitlines()) <= 2


# ---- the door


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (ModelError("no such model", "look again"), 4, "error: no such model\nhint: look again\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (MemoryError("big"), 5, "error: out of memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 5, "error: out of memory"),
        (ValueError("two\nlines"), 4, "error: unexpected ValueError: two lines\nhint: set T2I_DEBUG=1"),
        (typer.Abort(), 130, "error: interrupted\n"),
        (BrokenPipeError(), 3, ""),
    ],
)
def test_failures_become_lines_and_codes(
    failure: BaseException,
    code: int,
    message: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise failure

    monkeypatch.setattr(door.os, "dup2", lambda *_: None)  # would close the stdout of pytest
    monkeypatch.delenv("T2I_DEBUG", raising=False)
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("fail")(door.deferred(fail))
    app.command("other")(lambda: None)
    assert door.run(app, ["fail"]) == code
    errors = capfd.readouterr().err
    assert errors.startswith(message) and "Traceback" not in errors


def test_the_traceback_is_there_for_who_asks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2I_DEBUG", "1")
    monkeypatch.setattr("t2i.catalog.MODELS", None)
    with pytest.raises(AttributeError):
        run("models")


def test_help_names_every_command_and_exit_code(run: Run) -> None:
    shown = run("--help").out
    assert all(f"  {command} " in shown for command in cli.COMMANDS)
    assert all(f"{code:<4} {meaning}" in shown for code, meaning in EXIT_CODES.items())
    assert run().out == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generat", "a dog"], "Did you mean 'generate'?"),
        (["generate"], "no prompt was given"),
        (["generate", "a dog", "--stepz", "3"], "did you mean --steps?"),
        (["generate", "a dog", "-g", "0.5"], "must be at least 1 (1 is off"),
        (["generate", "a dog", "--scheduler", "dpm++2n"], "did you mean dpm++2m"),
        (["generate", "a dog", "--size", "big"], "not WIDTHxHEIGHT"),
        (["generate", "a dog", "--size", "64x60"], "--height 60: must be a multiple of 8"),
        (["generate", "a dog", "--size", "64x64", "-W", "64"], "give one of them"),
        (["generate", "a dog", "--seed", "9223372036854775808"], "--seed"),
        (["generate", "a dog", "-o", "{nope}.png"], "unknown field {nope}"),
        (["models", "show", "sdxx"], "did you mean sdxl"),
        (["models", "burn"], "not one of list, show"),
        (["models", "list", "sd15"], "takes no name"),
        (["models", "show"], "which model"),
        (["generate", "a", "a grid", "-o", "{slug}.png", "--grid", "-s", "1"], "called a-grid.png"),
        (["generate", "caf\udce9"], "not UTF-8"),
        (["generate", "a dog", "-n", "caf\udce9"], "not UTF-8"),
        (["verify"], "Missing argument"),
    ],
)
def test_usage_errors(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.code == 2 and message in result.err and result.out == ""
    assert all(line.startswith(("error: ", "hint: ", "t2i: ")) for line in result.err.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "a dog", "-m", "./nowhere"], "there is no model at ./nowhere"),
        (["generate", "a dog", "-m", "no-such-model"], "there is no model 'no-such-model'"),
        (["show", "none.png"], "none.png does not exist"),
        (["replay", "none.png"], "none.png does not exist"),
        (["verify", "none.png"], "none.png does not exist"),
    ],
)
def test_missing_things_exit_4(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.code == 4 and message in result.err and result.out == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_stdout_that_is_full_or_closed() -> None:
    command = [sys.executable, "-m", "t2i", "models"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 4 and done.stderr.startswith("error: no space left while writing the results\n")
    closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")


@pytest.mark.parametrize("moment", [0.1, 0.4, 0.9, 1.6, 2.5])
def test_ctrl_c_at_any_moment_is_no_traceback(moment: float, tiny_pocket: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-X", "importtime", "-c", "from t2i.__main__ import main; main()"]
    line += ["generate", "a dog", "-m", str(tiny_pocket), "-N", "5000", "--batch-size", "1", "-o", "out/"]
    with subprocess.Popen(
        line, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as made:
        assert made.stderr is not None
        while "t2i.version" not in made.stderr.readline():  # Python itself has started
            pass
        time.sleep(moment)
        made.send_signal(signal.SIGINT)
        told = [text for text in made.stderr if not text.startswith("import time:")]
    assert made.returncode in (130, -signal.SIGINT), told
    assert not any("Traceback" in text or "terminate" in text for text in told)


def test_an_interrupt_that_falls_into_a_finalizer_is_not_lost(tmp_path: Path) -> None:
    script = """
import os, signal, sys, time
import typer
from t2i.cli.door import deferred, run

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        for _ in range(1000):  # here Python raises the interrupt, and drops it
            pass

app = typer.Typer()

@app.command()
@deferred
def work() -> int:
    Finalized()
    time.sleep(60)
    return 0

sys.exit(run(app, []))
"""
    for name in ("SIGINT", "SIGTERM"):
        done = subprocess.run(
            [sys.executable, "-c", script, name], capture_output=True, text=True, timeout=50
        )
        assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_verbose_says_what_was_chosen(run: Run, tiny_pocket: Path) -> None:
    result = run("generate", "a dog", "-m", tiny_pocket, "--seed", 1, "--steps", 2, "-v")
    assert "fp32" in result.err and "ddim, 2 steps" in result.err


def test_doctor(run: Run) -> None:
    assert "cpu_capability" in run("doctor").out
    assert json.loads(run("doctor", "--json").out)["versions"]["t2i"]


def test_sigterm_between_writing_and_naming_a_file(
    run: Run, tiny_pocket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything finished stays, the file in the making goes, the exit code is 130."""
    passes: list[str] = []

    def terminate(name: str) -> None:
        if Path("out").exists() and name == "file.before_rename":
            passes.append(name)
            if len(passes) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("t2i.durable.fault_point", terminate)
    before = signal.getsignal(signal.SIGTERM)
    try:
        result = run("generate", "a dog", "-m", tiny_pocket, "--seed", 1, "-N", 9, "--steps", 2, "-o", "out/")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (result.code, result.err) == (130, "error: interrupted\n")
    assert result.lines == ["out/a-dog-1.png", "out/a-dog-2.png"]
    assert sorted(str(path) for path in Path("out").iterdir()) == result.lines
