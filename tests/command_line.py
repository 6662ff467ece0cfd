"""Command lines that are run in this process, and what comes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from t2i import cli


@dataclass
class Result:
    """Exit code, stdout and stderr of one command line."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


Run = Callable[..., Result]


def run_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    """`t2i ARGUMENTS` in this process."""
    capsys.readouterr()
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Result(code, captured.out, captured.err)
