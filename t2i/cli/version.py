"""`t2i version`."""

from __future__ import annotations

from t2i.version import __version__


def command() -> None:
    """Print the version."""
    print(f"t2i {__version__}")
