"""Owns what a model would understand in place of a word that it has never seen."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from functools import cache
from importlib.resources import files

OFFERED = 3
ALIKE = 0.66  # of difflib, "dgo" for "dog"; below it, spelling says nothing: "quokka" is 0.55 of "quick"


def words_instead(word: str, known: Collection[str]) -> list[str]:
    """Up to three known words for an unknown one, the best first; empty where there is none.

    A slip of the pen is told by the spelling. Any other word is looked up in `assets/kindred.txt`, lines of
    everyday words in which neighbours are alike.

    Args:
        word: In small letters.
        known: Words of the model, in small letters.

    Returns:
        Words or short phrases, all of whose words are known.
    """
    listed = [(abs(place - at), other) for row, at in _rows_with(word) for place, other in enumerate(row)]
    kindred = [other for _, other in sorted(listed) if all(part in known for part in other.split())]
    return list(dict.fromkeys(kindred))[:OFFERED] or difflib.get_close_matches(
        word, sorted(known), n=OFFERED, cutoff=ALIKE
    )


def _rows_with(word: str) -> Iterator[tuple[tuple[str, ...], int]]:
    for spelling in _singulars(word):
        found = [(row, row.index(spelling)) for row in _rows() if spelling in row]
        if found:
            yield from found
            return


def _singulars(word: str) -> Iterator[str]:
    """The word, and what it may be the plural of."""
    yield word
    for ending, instead in (("ies", "y"), ("ves", "f"), ("es", ""), ("s", "")):
        if word.endswith(ending):
            yield word.removesuffix(ending) + instead


@cache
def _rows() -> tuple[tuple[str, ...], ...]:
    lines = (files("t2i") / "assets" / "kindred.txt").read_text("utf-8").splitlines()
    return tuple(tuple(line.split(", ")) for line in lines if not line.startswith("#"))
