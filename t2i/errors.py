"""Every failure a person can see: what was given, what is allowed, what to do, and the exit code.

    T2IError
    ├── DifferentError   1   compared and different (`verify`, `batch --expect`, `eval --require`)
    ├── UsageError       2   an option, prompt or config value that cannot be used
    ├── PartialError     3   some of the work was done
    ├── ResourceError    4   model, dataset, file, disk or permission
    │   ├── ModelError
    │   ├── DatasetError
    │   └── StorageError
    ├── OutOfMemory      5   not enough memory
    └── Interrupted    130   stopped by the user

The door turns one of these into `error: message` and `hint: …` on stderr and exits with `exit_code`.
"""

from __future__ import annotations

from typing import Self

EXIT_CODES: dict[int, str] = {
    0: "all done",
    1: "different (t2i verify, batch --expect, eval --require), or problems found (t2i data check)",
    2: "usage: an option, prompt or config value that cannot be used",
    3: "partly done",
    4: "model, dataset, file, disk or permission problem",
    5: "out of memory",
    130: "interrupted",
}


class T2IError(Exception):
    """A failure with a message for a person.

    Args:
        message: One line: what was given and what is allowed.
        hint: One line: what to do next, or an empty string.
    """

    exit_code = 4

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def named(self, name: object) -> Self:
        """This failure with what it is about (a file, a model) in front, if its message does not begin so."""
        if self.message.startswith((f"{name} ", f"{name}:", f"{name}/")):
            return self
        return type(self)(f"{name}: {self.message}", self.hint)


class DifferentError(T2IError):
    """Two things were compared and are not the same."""

    exit_code = 1


class UsageError(T2IError):
    """An option, prompt or config value that cannot be used."""

    exit_code = 2


class PartialError(T2IError):
    """Some of the work was done, and the rest was not."""

    exit_code = 3


class ResourceError(T2IError):
    """Something outside the command is missing, broken, full or forbidden."""

    exit_code = 4


class ModelError(ResourceError):
    """A model is missing, incomplete, unsafe or of an unknown kind."""


class DatasetError(ResourceError):
    """A dataset folder, picture or caption cannot be used."""


class StorageError(ResourceError):
    """A file cannot be read or written: missing, no space, no permission, or already there."""


class OutOfMemory(T2IError):
    """The device has not enough memory for what was asked."""

    exit_code = 5


class Interrupted(T2IError):
    """Stopped by the user (Ctrl-C or SIGTERM)."""

    exit_code = 130
