"""Owns what pocket never sees in training. The renderer, the tests and the evaluation all ask here.

Three things are held out, in every phrasing and under every synonym, because scenes are made of concepts and
words come later:

1. a dog and a trumpet together in one scene;
2. 100 combinations of a concept and a background: no scene of any kind has that concept on that background;
3. 100 unordered pairs of concepts: never together in one scene. The evaluation's relation prompts use these.
"""

from __future__ import annotations

import hashlib
from functools import cache
from itertools import combinations, product

from captions import BACKGROUNDS
from glyphs import core_concepts

HOLDOUT_SEED = 2
HELD_OUT_COUNT = 100
MOST_PER_CONCEPT = 2  # of the 12 backgrounds, and of the 124 partners
SHOWPIECE = frozenset({"dog", "trumpet"})


def _shuffled(items: list[tuple[str, str]], purpose: str) -> list[tuple[str, str]]:
    # Ordered by a hash, not by a random generator: the same list on every Python version.
    def key(item: tuple[str, str]) -> bytes:
        return hashlib.sha256("|".join((str(HOLDOUT_SEED), purpose, *item)).encode()).digest()

    return sorted(items, key=key)


@cache
def held_out_backgrounds() -> tuple[tuple[str, str], ...]:
    """Return the 100 (concept, background) combinations, at most two per concept and 13 per background."""
    chosen: list[tuple[str, str]] = []
    for concept, background in _shuffled(list(product(core_concepts(), BACKGROUNDS)), "background"):
        of_concept = sum(concept == c for c, _ in chosen)
        of_background = sum(background == b for _, b in chosen)
        named_alike = concept == background  # 'an orange on an orange background' tests the eyes, not pocket
        if of_concept < MOST_PER_CONCEPT and of_background < 13 and not named_alike:
            chosen.append((concept, background))
        if len(chosen) == HELD_OUT_COUNT:
            break
    return tuple(chosen)


@cache
def held_out_pairs() -> tuple[tuple[str, str], ...]:
    """Return the 100 pairs of concepts, at most two per concept; dog and trumpet are held out besides."""
    chosen: list[tuple[str, str]] = []
    for a, b in _shuffled(list(combinations(core_concepts(), 2)), "pair"):
        if {a, b} == SHOWPIECE:
            continue
        if all(sum(concept in pair for pair in chosen) < MOST_PER_CONCEPT for concept in (a, b)):
            chosen.append((a, b))
        if len(chosen) == HELD_OUT_COUNT:
            break
    return tuple(chosen)


@cache
def _pair_sets() -> frozenset[frozenset[str]]:
    return frozenset(map(frozenset, held_out_pairs())) | {SHOWPIECE}


@cache
def _background_set() -> frozenset[tuple[str, str]]:
    return frozenset(held_out_backgrounds())


def is_held_out(concepts: tuple[str, ...], background: str | None) -> bool:
    """Say whether a scene may not be shown to pocket.

    Args:
        concepts: Names of all concepts in the scene.
        background: Name of its colour, or None when unknown (then only the pairs are checked).

    Returns:
        True if any concept is held out on this background, or any two concepts are held out together.
    """
    if any((concept, background) in _background_set() for concept in concepts):
        return True
    return any(frozenset(pair) in _pair_sets() for pair in combinations(concepts, 2))
