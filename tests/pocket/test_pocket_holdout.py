"""What is held out is never shown, in any phrasing, and the lists never change."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest
from captions import BACKGROUNDS, caption, read_caption
from glyphs import core_concepts
from holdout import held_out_backgrounds, held_out_pairs, is_held_out
from scenes import KIND_WEIGHTS, draw_allowed_plan

# The weights that ship were trained without these lists; other lists would make their figures a lie.
DIGEST = "52f0bca190bb0abf0928ce786307aa5e48d7fb62a71ffb05c3dd100803373a8d"


def test_the_lists_are_those_that_pocket_was_trained_without() -> None:
    text = repr((held_out_backgrounds(), held_out_pairs()))
    assert hashlib.sha256(text.encode()).hexdigest() == DIGEST


def test_the_lists_have_a_hundred_different_entries() -> None:
    assert len(set(held_out_backgrounds())) == 100
    assert len({frozenset(pair) for pair in held_out_pairs()}) == 100
    assert all(a != b for a, b in held_out_pairs())


def test_every_concept_and_colour_keeps_plenty() -> None:
    per_concept = Counter(concept for concept, _ in held_out_backgrounds())
    per_colour = Counter(colour for _, colour in held_out_backgrounds())
    partners = Counter(concept for pair in held_out_pairs() for concept in pair)
    assert max(per_concept.values()) <= 2 and max(partners.values()) <= 2 and max(per_colour.values()) <= 13


@pytest.mark.parametrize(
    ("concepts", "background", "held_out"),
    [
        (("dog", "trumpet"), "gray", True),
        (("trumpet", "dog"), None, True),
        (("dog", "rose"), None, False),
        (held_out_backgrounds()[0][:1], held_out_backgrounds()[0][1], True),
        (("key", held_out_backgrounds()[0][0]), held_out_backgrounds()[0][1], True),
        (held_out_pairs()[0][::-1], None, True),
    ],
)
def test_is_held_out(concepts: tuple[str, ...], background: str | None, held_out: bool) -> None:
    assert is_held_out(concepts, background) is held_out


def test_no_scene_of_any_kind_shows_or_tells_of_a_held_out_combination() -> None:
    rng, kinds = random.Random(3), Counter[str]()
    seen: Counter[str] = Counter()
    for _ in range(20000):
        plan = draw_allowed_plan(rng)
        kinds[plan.kind] += 1
        seen.update([*plan.concepts, plan.background])
        assert not is_held_out(plan.concepts, plan.background)
    assert all(seen[name] > 100 for name in [*core_concepts(), *BACKGROUNDS])
    for kind, weight in KIND_WEIGHTS.items():
        assert abs(kinds[kind] / 20000 - weight) < 0.02
    for _ in range(3000):
        plan = draw_allowed_plan(rng)
        text = caption(plan.concepts, plan.relation, plan.background, rng)
        assert not is_held_out(*read_caption(text)), text


def test_the_check_above_can_fail() -> None:
    rng = random.Random(3)
    plans = [draw_allowed_plan(rng, allow_held_out=True) for _ in range(3000)]
    assert any(is_held_out(plan.concepts, plan.background) for plan in plans)
