"""What the README says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from t2i.cli import COMMANDS
from t2i.errors import EXIT_CODES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_exit_codes_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", README, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


def test_commands_and_files_that_are_named_exist() -> None:
    for command in set(re.findall(r"^(?:\.venv/bin/)?t2i (\w+)", README, re.MULTILINE)):
        assert command in COMMANDS
    for name in set(re.findall(r"`((?:tests|examples|t2i)/[\w/.-]+)`", README)):
        assert (ROOT / name).exists(), name
    for link in set(re.findall(r"\]\(([\w/.-]+)\)", README)):
        assert (ROOT / link).exists(), link


def test_ci_runs_the_command_of_the_readme() -> None:
    commands = re.findall(r"^python3 -m venv .*pytest -n 2$", README, re.MULTILINE)
    assert len(commands) == 1
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
