"""Colours as a person writes them in an option."""

from __future__ import annotations

import re

from t2i.errors import UsageError


def check_colour(flag: str, colour: str) -> None:
    """Refuse what is neither white, black nor #rrggbb.

    Args:
        flag: The option that it was given to.
        colour: What was given.

    Raises:
        UsageError: Then.
    """
    if not re.fullmatch(r"white|black|#[0-9a-fA-F]{6}", colour):
        raise UsageError(f"{flag} {colour}: not a colour", "white, black or #rrggbb")
