"""Owns what pocket never sees in training. The renderer, the tests and the evaluation all ask here.

What is held out is held out in every phrasing and under every synonym, because scenes are made of concepts
and words come later. Version 0 (the first half of this file):

1. a dog and a trumpet together in one scene;
2. 100 combinations of a concept and a background: no scene of any kind has that concept on that background;
3. 100 unordered pairs of concepts: never together in one scene. The evaluation's relation prompts use these.

Version 1 holds out a hundred combinations for each category of questions: see `HeldOut`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from typing import TypeVar

import backgrounds
from captions import BACKGROUNDS
from glyphs import all_concepts, core_concepts
from plans import NUMBERS, OPPOSITES, SIDE_BY_SIDE, Plan, alike
from tints import TINTABLE, TINTS
from visibility import HIDES
from words import UNCOUNTED

Combination = TypeVar("Combination", bound=tuple[object, ...])
Tinted = tuple[str, str]
"""A concept and the colour that it has."""

HOLDOUT_SEED = 2
HELD_OUT_COUNT = 100
MOST_PER_CONCEPT = 2  # of the 12 backgrounds, and of the 124 partners
SHOWPIECE = frozenset({"dog", "trumpet"})


def _shuffled(items: Iterable[Combination], purpose: str) -> list[Combination]:
    # Ordered by a hash, not by a random generator: the same list on every Python version.
    def key(item: Combination) -> bytes:
        return hashlib.sha256("|".join((str(HOLDOUT_SEED), purpose, *map(str, item))).encode()).digest()

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


@dataclass(frozen=True)
class HeldOut:
    """What version 1 never shows, category by category: each list is what the evaluation asks for.

    Attributes:
        single_object: (concept, background with content): that thing is never before that background.
        two_objects: (concept, concept): never in one scene, whatever they do; nor are dog and trumpet.
        colours: (concept, flat background colour): that thing is never on that colour.
        position: (concept, relation, concept): the two are never so to each other. They are together in other
            scenes, but only placed the other way, never in a verb or any other relation.
        counting: (concept, number): never so many of them.
        attribute_binding: two (concept, colour): the two are never both coloured in one scene. In every
            second entry the first one is also in `coloured`.
        coloured: (concept, colour): that thing never has that colour.
    """

    single_object: tuple[tuple[str, str], ...]
    two_objects: tuple[tuple[str, str], ...]
    colours: tuple[tuple[str, str], ...]
    position: tuple[tuple[str, str, str], ...]
    counting: tuple[tuple[str, int], ...]
    attribute_binding: tuple[tuple[Tinted, Tinted], ...]
    coloured: tuple[Tinted, ...]


def _spread(items: Iterable[Combination], count: int, most: dict[int, int]) -> tuple[Combination, ...]:
    """Take the first `count` items with no value too often at a place: {place: how often at most}."""
    chosen: list[Combination] = []
    seen: Counter[tuple[int, object]] = Counter()
    for item in items:
        if len(chosen) < count and all(seen[place, item[place]] < limit for place, limit in most.items()):
            chosen.append(item)
            seen.update((place, item[place]) for place in most)
    return tuple(chosen)


def _behind(names: Iterable[str], purpose: str, most_per_background: int) -> tuple[tuple[str, str], ...]:
    """A hundred (concept, background) out of those in which the thing can be seen well."""
    seen_well = [
        (concept, name)
        for concept, name in product(all_concepts(), names)
        if concept != name and concept not in HIDES.get(name, ())
    ]
    return _spread(_shuffled(seen_well, purpose), HELD_OUT_COUNT, {0: 1, 1: most_per_background})


@cache
def held_out_v1() -> HeldOut:
    """Make the lists of version 1: the same on every machine."""
    pairs = [
        p
        for p in _shuffled(combinations(all_concepts(), 2), "v1 pair")
        if not alike(*p) and {*p} != SHOWPIECE
    ]
    two_objects = _spread(pairs, HELD_OUT_COUNT, {0: 1, 1: 1})
    placed = _spread([p for p in pairs if p not in two_objects], HELD_OUT_COUNT, {0: 1, 1: 1})
    relations = list(OPPOSITES)
    countable = [name for name in all_concepts() if name not in UNCOUNTED]
    counting = _spread(
        _shuffled(product(countable, NUMBERS), "v1 count"),
        HELD_OUT_COUNT,
        {0: 1, 1: HELD_OUT_COUNT // len(NUMBERS)},
    )
    tintable = sorted(TINTABLE)
    tinted = _shuffled(product(tintable, TINTS), "v1 tint")
    coloured = _spread(tinted, HELD_OUT_COUNT // 2, {0: 1, 1: HELD_OUT_COUNT // 2 // len(TINTS)})
    return HeldOut(
        single_object=_behind(backgrounds.CONTENT, "v1 single", 13),
        two_objects=two_objects,
        colours=_behind(backgrounds.FLAT, "v1 colour", 9),
        position=tuple((a, relations[k % len(relations)], b) for k, (a, b) in enumerate(placed)),
        counting=counting,
        attribute_binding=_bindings(tinted, coloured, {*two_objects, *placed}),
        coloured=coloured,
    )


def _bindings(
    tinted: list[Tinted], coloured: tuple[Tinted, ...], other_pairs: set[tuple[str, str]]
) -> tuple[tuple[Tinted, Tinted], ...]:
    """A hundred pairs of things with different colours, each thing at most three times."""
    common = [item for item in tinted if item not in coloured]
    firsts = [item for pair in zip(coloured, common, strict=False) for item in pair]
    chosen: list[tuple[Tinted, Tinted]] = []
    taken: set[frozenset[str]] = {frozenset(pair) for pair in other_pairs} | {SHOWPIECE}
    uses = Counter(concept for concept, _ in firsts)
    for first in firsts:
        for second in common:
            names = frozenset((first[0], second[0]))
            fits = first[1] != second[1] and not alike(first[0], second[0]) and uses[second[0]] < 3
            if fits and names not in taken:
                chosen.append((first, second))
                taken.add(names)
                uses[second[0]] += 1
                break
    return tuple(chosen)


def _side(first: str, relation: str, second: str) -> tuple[str, str, str]:
    """The same fact in one way only: with 'left of' or 'above'."""
    if relation in SIDE_BY_SIDE:
        return first, "left of", second
    if relation in ("right of", "below"):
        return second, OPPOSITES[relation], first
    return first, relation, second


@cache
def _v1_sets() -> tuple[
    frozenset[tuple[str, str]],
    frozenset[frozenset[str]],
    dict[frozenset[str], tuple[str, str, str]],
    frozenset[tuple[str, int]],
    frozenset[frozenset[str]],
    frozenset[Tinted],
]:
    held = held_out_v1()
    return (
        frozenset((*held.single_object, *held.colours)),
        frozenset(map(frozenset, held.two_objects)) | {SHOWPIECE},
        {frozenset((a, b)): _side(a, relation, b) for a, relation, b in held.position},
        frozenset(held.counting),
        frozenset(frozenset((a[0], b[0])) for a, b in held.attribute_binding),
        frozenset(held.coloured),
    )


def is_plan_held_out(plan: Plan) -> bool:
    """Say whether version 1 may not be shown a scene."""
    behind, pairs, sides, counts, bound, coloured = _v1_sets()
    for part in plan.parts:
        if (part.concept, plan.background) in behind or (part.concept, part.count) in counts:
            return True
        if part.colour is not None and (part.concept, part.colour) in coloured:
            return True
    for a, b in combinations(plan.parts, 2):
        names = frozenset((a.concept, b.concept))
        if names in pairs or (names in bound and a.colour and b.colour):
            return True
        if names in sides:
            is_placed = plan.relation in OPPOSITES or plan.relation in SIDE_BY_SIDE
            if not is_placed or _side(a.concept, str(plan.relation), b.concept) == sides[names]:
                return True
    return False
