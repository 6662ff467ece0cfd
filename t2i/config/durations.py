"""Lengths of time as a person writes them: 90s, 20m, 2h."""

from __future__ import annotations

MINUTES = {"s": 1 / 60, "m": 1.0, "h": 60.0, "d": 1440.0}


def minutes(text: str) -> float:
    """Minutes: "90s" is 1.5, "2h" is 120, and a plain number is minutes already.

    Raises:
        ValueError: Anything else.
    """
    number, unit = text.strip(), 1.0
    if number[-1:].lower() in MINUTES:
        number, unit = number[:-1], MINUTES[number[-1:].lower()]
    try:
        return float(number) * unit
    except ValueError:
        raise ValueError("a time such as 90s, 20m, 2h or plain minutes is needed") from None
