"""Text that comes from anywhere, made safe for where it is shown. Knows nothing of what it says."""

from __future__ import annotations

import re
import unicodedata

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """`text` with its control characters written out, so that it drives no terminal and may stand in XML.

    What is left can be encoded as UTF-8 and is allowed in XML 1.0 (section 2.2, Char).
    """
    return CONTROL.sub(lambda found: ascii(found.group())[1:-1], text)


def latin(text: str) -> str:
    """Text in the letters that Pillow's own font has: without accents, a question mark for each other one."""
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letters).replace("×", "x").encode("ascii", "replace").decode()


def count_of(number: int, what: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number} {what}" + ("" if number == 1 else "s")
