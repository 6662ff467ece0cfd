"""Owns what pocket never sees in training. The renderer, the tests and the evaluation all ask here.

What is held out is held out in every phrasing and under every synonym, because scenes are made of concepts
and words come later. There are a hundred combinations for each category of questions: see `HeldOut`.

pocket's networks grew out of earlier ones, which had seen simple scenes of some of the concepts (`is_early`):
alone on flat colours, and in pairs. So no such combination of early concepts alone is asked for.
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
from glyphs import all_concepts
from plans import NUMBERS, OPPOSITES, SIDE_BY_SIDE, Plan, alike
from tints import TINTABLE, TINTS
from visibility import HIDES
from words import UNCOUNTED

Combination = TypeVar("Combination", bound=tuple[object, ...])
Tinted = tuple[str, str]
"""A concept and the colour that it has."""

HOLDOUT_SEED = 2
HELD_OUT_COUNT = 100
SHOWPIECE = frozenset({"dog", "trumpet"})


def _shuffled(items: Iterable[Combination], purpose: str) -> list[Combination]:
    # Ordered by a hash, not by a random generator: the same list on every Python version.
    def key(item: Combination) -> bytes:
        return hashlib.sha256("|".join((str(HOLDOUT_SEED), purpose, *map(str, item))).encode()).digest()

    return sorted(items, key=key)


@dataclass(frozen=True)
class HeldOut:
    """What pocket is never shown, category by category: each list is what the evaluation asks for.

    Attributes:
        single_object: (concept, background with content): that thing is never before that background.
        two_objects: (concept, concept): never in one scene, whatever they do; nor are dog and trumpet.
        colours: (concept, flat background colour): that thing is never on that colour.
        position: (concept, relation, concept): the two are never so to each other. They are together in other
            scenes, but placed otherwise, never in a verb, in front of each other or the like.
        counting: (concept, number): never so many of them.
        attribute_binding: two (concept, colour): the two are never both coloured in one scene. In every
            second entry the first one is also in `coloured`.
        coloured: (concept, colour): that thing is never given that colour; some have it by nature.
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


def _behind(
    concepts: Iterable[str], names: Iterable[str], purpose: str, most_per_background: int
) -> tuple[tuple[str, str], ...]:
    """A hundred (concept, background) out of those in which the thing can be seen well."""
    seen_well = [
        (concept, name)
        for concept, name in product(concepts, names)
        if concept != name and concept not in HIDES.get(name, ())
    ]
    return _spread(_shuffled(seen_well, purpose), HELD_OUT_COUNT, {0: 1, 1: most_per_background})


@cache
def held_out() -> HeldOut:
    """Make the lists: the same on every machine."""
    early = {name for name, concept in all_concepts().items() if concept.is_early}
    pairs = [
        p for p in _shuffled(combinations(all_concepts(), 2), "pair") if not alike(*p) and not early >= {*p}
    ]
    two_objects = _spread(pairs, HELD_OUT_COUNT, {0: 1, 1: 1})
    placed = _spread([p for p in pairs if p not in two_objects], HELD_OUT_COUNT, {0: 1, 1: 1})
    relations, late = list(OPPOSITES), [name for name in all_concepts() if name not in early]
    countable = [name for name in all_concepts() if name not in UNCOUNTED]
    counting = _spread(
        _shuffled(product(countable, NUMBERS), "count"),
        HELD_OUT_COUNT,
        {0: 1, 1: HELD_OUT_COUNT // len(NUMBERS)},
    )
    tintable = sorted(TINTABLE)
    tinted = _shuffled(product(tintable, TINTS), "tint")
    coloured = _spread(tinted, HELD_OUT_COUNT // 2, {0: 1, 1: HELD_OUT_COUNT // 2 // len(TINTS)})
    return HeldOut(
        single_object=_behind(all_concepts(), backgrounds.CONTENT, "single", 13),
        two_objects=two_objects,
        colours=_behind(late, backgrounds.FLAT, "colour", 9),
        position=tuple((a, relations[k % len(relations)], b) for k, (a, b) in enumerate(placed)),
        counting=counting,
        attribute_binding=_bindings(tinted, coloured, {*two_objects, *placed}),
        coloured=coloured,
    )


def _bindings(
    tinted: list[Tinted], coloured: tuple[Tinted, ...], other_pairs: set[tuple[str, str]]
) -> tuple[tuple[Tinted, Tinted], ...]:
    """A hundred pairs of things with different colours, each thing a few times."""
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
def _sets() -> tuple[
    frozenset[tuple[str, str]],
    frozenset[frozenset[str]],
    dict[frozenset[str], tuple[str, str, str]],
    frozenset[tuple[str, int]],
    frozenset[frozenset[str]],
    frozenset[Tinted],
]:
    held = held_out()
    return (
        frozenset((*held.single_object, *held.colours)),
        frozenset(map(frozenset, held.two_objects)) | {SHOWPIECE},
        {frozenset((a, b)): _side(a, relation, b) for a, relation, b in held.position},
        frozenset(held.counting),
        frozenset(frozenset((a[0], b[0])) for a, b in held.attribute_binding),
        frozenset(held.coloured),
    )


def is_held_out(plan: Plan) -> bool:
    """Say whether pocket may not be shown a scene."""
    behind, pairs, sides, counts, bound, coloured = _sets()
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
