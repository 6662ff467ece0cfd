"""What is wrong with a prompt file: every mistake with its line, told at once in one exception."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t2i.errors import UsageError

if TYPE_CHECKING:
    from t2i.promptfiles.entries import Entry

LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class Mistake:
    """One thing to correct.

    Attributes:
        line: Line of the file, from 1; None for what was given beside the file (an axis, a default).
        message: What was given and what is allowed.
        hint: What to do, or an empty string.
    """

    line: int | None
    message: str
    hint: str = ""


class PromptFileError(UsageError):
    """A prompt file cannot be used; exit code 2.

    Attributes:
        source: The file as it was named; "stdin" for `-`.
        mistakes: All of them, by line; those beside the file first.
        entries: Of the lines in which nothing is wrong.
    """

    def __init__(self, source: str, mistakes: Sequence[Mistake], entries: Sequence[Entry] = ()) -> None:
        self.source, self.entries = source, tuple(entries)
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.line or 0))
        first = self.each()[0]
        if len(self.mistakes) == 1:
            super().__init__(first.message, first.hint)
        else:
            super().__init__(f"{len(self.mistakes)} mistakes, the first: {first.message}", first.hint)

    def each(self) -> list[UsageError]:
        """One error per mistake, its message beginning with file and line: what a person is shown."""
        return [
            UsageError(
                f"{self.source}: {mistake.message}"
                if mistake.line is None
                else f"{self.source} line {mistake.line}: {mistake.message}",
                mistake.hint,
            )
            for mistake in self.mistakes
        ]


class Mistakes(list[Mistake]):
    """The mistakes found so far."""

    def add(self, line: int | None, message: str, hint: str = "") -> None:
        """Note one; an endless value is cut so that the message stays one line."""
        if len(message) > LONGEST_MESSAGE:
            message = message[:LONGEST_MESSAGE] + "…"
        self.append(Mistake(line, message, hint))

    def add_error(self, line: int | None, error: UsageError) -> None:
        """Note what a config or a table complained about."""
        self.add(line, error.message, error.hint)
