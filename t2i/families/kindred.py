"""Owns what a model would understand in place of a word that it has never seen."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.resources import files

OFFERED = 3
ALIKE = 0.8  # of difflib
SHORTEST = 4  # of fewer letters, too many words are alike
PLURALS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""))
WITHOUT_KINDRED = "="
"""Begins a line of the file whose words stand for nothing that can be drawn."""


@lru_cache(4096)
def words_instead(word: str, known: frozenset[str]) -> tuple[str, ...]:
    """Up to three known words for an unknown one, the best first; empty where there is none.

    The word is looked up in `assets/kindred.txt`, lines of everyday words in which neighbours are alike. One
    that is not there is taken for a slip of the pen: what is spelt nearly so, or with the same letters.

    Args:
        word: In small letters.
        known: Words of the model, in small letters.

    Returns:
        Words or short phrases, all of whose words are known.
    """
    silent, rows = _file()
    if word in silent:
        return ()
    for spelling in _singulars(word):
        listed = [(abs(place - row.index(spelling)), other) for row in rows if spelling in row
                  for place, other in enumerate(row)]  # fmt: skip
        if listed:
            listed.sort(key=lambda pair: pair[0])  # of equally near ones, in the order of the file
            kindred = (other for _, other in listed if known.issuperset(other.split()))
            return tuple(dict.fromkeys(kindred))[:OFFERED]
    return tuple(_spelt_alike(word, known))


def _spelt_alike(word: str, known: frozenset[str]) -> list[str]:
    same_letters = sorted(other for other in known if sorted(other) == sorted(word) and len(word) > 2)
    near = difflib.get_close_matches(word, sorted(known), OFFERED, ALIKE) if len(word) >= SHORTEST else []
    return list(dict.fromkeys([*same_letters, *near]))[:OFFERED]


def _singulars(word: str) -> Iterator[str]:
    """The word, and what it may be the plural of."""
    yield word
    for ending, instead in PLURALS:
        if word.endswith(ending):
            yield word.removesuffix(ending) + instead


@cache
def _file() -> tuple[frozenset[str], tuple[tuple[str, ...], ...]]:
    """The words that have no kindred, and the rows of those that have."""
    lines = (files("t2i") / "assets" / "kindred.txt").read_text("utf-8").splitlines()
    silent = [line.removeprefix(WITHOUT_KINDRED) for line in lines if line.startswith(WITHOUT_KINDRED)]
    rows = (line for line in lines if not line.startswith(("#", WITHOUT_KINDRED)))
    return frozenset(", ".join(silent).strip().split(", ")), tuple(tuple(row.split(", ")) for row in rows)
