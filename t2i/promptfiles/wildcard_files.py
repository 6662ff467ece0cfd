"""The folder of wildcard files, and the check that every wildcard of a prompt can be picked."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from t2i.errors import UsageError
from t2i.promptfiles.picks import Source, choices_of
from t2i.promptfiles.wildcards import DEEPEST, Choice, Choices, Group, Reference, Template, parse_choice

LONGEST_PROMPT = 100_000  # characters; wildcards that hold wildcards can multiply


class WildcardFileError(UsageError):
    """Something in a wildcard file, to be told once however many prompts use it."""


@dataclass
class _Reach:
    """What picking from a template can lead to: problems by message, most characters, levels of picks."""

    problems: dict[str, UsageError] = field(default_factory=dict)
    longest: int = 0
    levels: int = 0

    @classmethod
    def bad(cls, error: UsageError) -> _Reach:
        return cls({error.message: error})


class WildcardFiles(Source):
    """The `.txt` files of a folder, read when they are first named.

    Args:
        folder: Where they are; None: there are none.

    Attributes:
        error: What is wrong with the folder itself, or None.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        missing = folder is not None and not os.path.isdir(folder)
        self.error = WildcardFileError(f"--wildcards {folder}: not a folder") if missing else None
        self._read: dict[str, Choices | UsageError] = {}
        self._reaches: dict[str, _Reach] = {}
        self._names: list[str] | None = None

    def of(self, name: str) -> Choices:
        """The choices of `__name__`: the lines of name.txt.

        Raises:
            UsageError: No such file in the folder, or one that cannot be read.
        """
        if name not in self._read:
            try:
                self._read[name] = self._load(name)
            except UsageError as error:
                self._read[name] = error
        found = self._read[name]
        if isinstance(found, UsageError):
            raise found
        return found

    def problems(self, template: Template) -> list[UsageError]:
        """Everything because of which some pick of `template` could fail, whichever seed comes."""
        reach = self._reach(template, ())
        if not reach.problems and reach.longest > LONGEST_PROMPT:
            return [UsageError(f"the wildcards can make a prompt of more than {LONGEST_PROMPT} characters")]
        if not reach.problems and reach.levels > DEEPEST:
            return [UsageError(f"more than {DEEPEST} wildcards inside of each other")]
        return list(reach.problems.values())

    def _reach(self, template: Template, inside: tuple[str, ...]) -> _Reach:
        """Of a template that stands in the files `inside`, innermost last."""
        total = _Reach()
        for part in template:
            if isinstance(part, str):
                total.longest += len(part)
                continue
            of_part = (
                self._reach_of_name(part.name, inside)
                if isinstance(part, Reference)
                else self._reach_of_group(part, inside)
            )
            total.problems |= of_part.problems
            total.longest += of_part.longest
            total.levels = max(total.levels, of_part.levels)
        return total

    def _reach_of_group(self, group: Group, inside: tuple[str, ...]) -> _Reach:
        reach = self._reach_of_choices(group.choices, inside)
        if reach.problems or group.single:
            return reach
        pickable = len(choices_of(group, self).items)
        most = max(group.low, group.high or 0)
        if most > pickable:
            return reach.bad(
                UsageError(f"{group.text}: {most} different options are wanted, but there are {pickable}")
            )
        reach.longest = (pickable if group.high is None else most) * (reach.longest + len(group.joint))
        return reach

    def _reach_of_choices(self, choices: Choices, inside: tuple[str, ...]) -> _Reach:
        worst = _Reach()
        for choice in choices.items:
            reach = self._reach(choice.parts, inside)
            worst.problems |= reach.problems
            worst.longest = max(worst.longest, reach.longest)
            worst.levels = max(worst.levels, reach.levels + 1)
        return worst

    def _reach_of_name(self, name: str, inside: tuple[str, ...]) -> _Reach:
        if name in inside:
            chain = " → ".join([*inside[inside.index(name) :], name])
            return _Reach.bad(WildcardFileError(f"wildcard files contain each other: {chain}"))
        if len(inside) > DEEPEST:
            return _Reach.bad(WildcardFileError(f"more than {DEEPEST} wildcard files inside of each other"))
        if name not in self._reaches:
            try:
                reach = self._reach_of_choices(self.of(name), (*inside, name))
            except UsageError as error:
                self._reaches[name] = _Reach.bad(error)
            else:
                found = [_in_file(name, error) for error in reach.problems.values()]
                self._reaches[name] = _Reach(
                    {error.message: error for error in found}, reach.longest, reach.levels
                )
        return self._reaches[name]

    def _load(self, name: str) -> Choices:
        path = self._path(name)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise WildcardFileError(f"wildcard file {name}.txt is not UTF-8 text") from error
        except OSError as error:
            raise WildcardFileError(f"cannot read wildcard file {name}.txt: {error.strerror}") from error
        choices = Choices(_lines(name, text.replace("\r\n", "\n").replace("\r", "\n")))
        if not any(choice.weight for choice in choices.items):
            raise WildcardFileError(f"wildcard file {name}.txt has no lines to pick from")
        return choices

    def _path(self, name: str) -> Path:
        shown = f"__{name}__"
        if self.error is not None:
            raise self.error
        if self.folder is None:
            raise UsageError(
                f"{shown}: no folder of wildcards was given", f"pass --wildcards DIR, or write \\{shown}"
            )
        if "*" in name:
            raise UsageError(f"{shown}: patterns are not read", "list the files: {__a__|__b__}")
        path = self.folder / f"{name}.txt"
        try:
            inside = path.resolve().is_relative_to(self.folder.resolve())
            exists = path.is_file()
        except (OSError, RuntimeError):  # a name that is too long, links in a circle
            inside, exists = True, False
        if not inside or any(part in ("", ".", "..") for part in name.split("/")):
            raise UsageError(f"{shown}: leads out of the folder of wildcards")
        if not exists:
            near = difflib.get_close_matches(name, self._all_names(), n=1)
            hint = (
                f"did you mean __{near[0]}__?" if near else f"for the characters themselves write \\{shown}"
            )
            raise UsageError(f"{shown}: there is no {name}.txt in {self.folder}", hint)
        return path

    def _all_names(self) -> list[str]:
        if self._names is None and self.folder is not None:
            files = (path.relative_to(self.folder) for path in self.folder.rglob("*.txt"))
            self._names = sorted(path.with_suffix("").as_posix() for path in files)
        return self._names or []


def _in_file(name: str, error: UsageError) -> UsageError:
    if isinstance(error, WildcardFileError):
        return error
    return WildcardFileError(f"wildcard file {name}.txt: {error.message}", error.hint)


def _lines(name: str, text: str) -> Iterator[Choice]:
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if "\0" in line:
                raise UsageError("a NUL byte")
            yield parse_choice(line)
        except UsageError as error:
            raise WildcardFileError(
                f"wildcard file {name}.txt line {number}: {error.message}", error.hint
            ) from error
