"""Plans: the mixture's shares, who does what, and tables without misprints."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import anchors
import pytest
import roles
from backgrounds import BACKGROUNDS
from composing import draw_allowed_plan
from glyphs import all_concepts
from mixtures import MIXTURES
from plans import (
    ALWAYS_TINTED,
    OPPOSITES,
    OTHER_WAY_ROUND,
    RELATIONS,
    VERBS,
    Plan,
    alike,
    casts,
    draw_kind,
    draw_plan,
    possible_kinds,
)
from styles import STYLES
from tints import TINTABLE, TINTS
from visibility import HIDES, NEUTRAL, SWALLOWS
from words import MAIN_WORDS, SYNONYMS, UNCOUNTED

POCKET = MIXTURES["pocket"]


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    rng = random.Random(1)
    return [draw_plan(rng, draw_kind(rng, POCKET), POCKET) for _ in range(4000)]


def test_every_table_names_concepts_that_exist() -> None:
    tables = [
        anchors.HEADS, anchors.EYES, anchors.SEATS, anchors.TOPS, anchors.RIDDEN_FROM_BEFORE,
        roles.TOYS_WITH_FACE, roles.HEADGEAR, roles.MOUNTED_IN_LIFE, roles.CHASERS, roles.CHASED_BESIDES,
        roles.HELD,
        roles.HELD_HIGH, roles.BACKDROPS, roles.KNOWN_BY_OUTLINE, TINTABLE, SYNONYMS, MAIN_WORDS, UNCOUNTED,
        *HIDES.values(),
    ]  # fmt: skip
    assert len(all_concepts()) == 233
    assert [name for table in tables for name in table if name not in all_concepts()] == []
    for table in (roles.CHASERS, roles.CHASED_BESIDES, roles.HELD, roles.BACKDROPS, roles.KNOWN_BY_OUTLINE):
        assert len(set(table)) == len(table)
    assert all(0 <= value <= 1 for table in tables[:4] for point in table.values() for value in point)
    assert set(HIDES) | set(SWALLOWS) <= set(BACKGROUNDS)
    assert {colour for colours in SWALLOWS.values() for colour in colours} - set(TINTS) <= {"gray", "cyan"}


def test_what_is_mounted_in_life_is_ridden_oftener_and_toys_with_a_face_ride_oftener() -> None:
    rng = random.Random(2)
    ridden = [draw_plan(rng, "riding", POCKET).concepts for _ in range(3000)]
    riders, mounts = Counter(rider for rider, _ in ridden), Counter(mount for _, mount in ridden)
    in_life = set(roles.MOUNTED_IN_LIFE)
    assert in_life < set(anchors.SEATS) == set(mounts)
    assert min(mounts[name] for name in in_life) > max(mounts[name] for name in set(mounts) - in_life)
    assert min(riders[name] for name in roles.TOYS_WITH_FACE) > 2 * riders.total() / len(riders)


def test_a_mixture_is_plain_data_with_known_names() -> None:
    assert POCKET.concepts == set(all_concepts()) and set(POCKET.backgrounds) == set(BACKGROUNDS)
    assert set(POCKET.kinds) == set(casts()) and set(POCKET.styles) == set(STYLES)
    assert sum(POCKET.kinds.values()) == pytest.approx(1)
    assert all(set(style.backgrounds) <= set(BACKGROUNDS) for style in STYLES.values())


def test_shares_are_those_of_the_mixture(plans: list[Plan]) -> None:
    kinds = Counter(p.kind for p in plans)
    for kind, weight in POCKET.kinds.items():
        assert abs(kinds[kind] / len(plans) - weight) < 0.02 and kinds[kind] > 0, kind
    grounds = Counter(p.background for p in plans if p.kind not in ALWAYS_TINTED)
    assert all(0.035 < grounds[name] / grounds.total() < 0.075 for name in BACKGROUNDS)
    behind_tints = Counter(p.background for p in plans if p.kind in ALWAYS_TINTED)
    assert all(
        (0.1 < behind_tints[name] / behind_tints.total() < 0.25) == (name in NEUTRAL) for name in BACKGROUNDS
    )
    styles = Counter(p.style for p in plans)
    assert all(0.004 < styles[name] / len(plans) < 0.025 for name in STYLES)


def test_the_first_named_thing_is_mostly_left_or_above(plans: list[Plan]) -> None:
    seen = Counter(p.relation for p in plans)
    assert OTHER_WAY_ROUND <= 0.25
    for usual, rare in (("left of", "right of"), ("above", "below")):
        assert abs(seen[rare] / (seen[usual] + seen[rare]) - OTHER_WAY_ROUND) < 0.05
    assert set(OPPOSITES) < set(RELATIONS) and sum(RELATIONS.values()) == pytest.approx(1)


def test_no_plan_promises_what_its_picture_cannot_show(plans: list[Plan]) -> None:
    for plan in plans:
        names = plan.concepts
        assert not any(alike(a, b) for k, a in enumerate(names) for b in names[:k]), plan
        style = STYLES[plan.style] if plan.style else None
        if style:
            assert plan.background in style.backgrounds, plan
        for part in plan.parts:
            if part.colour is None:
                assert part.concept not in HIDES.get(plan.background, ()) or plan.kind == "coloured", plan
            else:
                assert part.concept in TINTABLE and part.colour not in SWALLOWS.get(plan.background, ()), plan
                assert style is None or style.shows_colours, plan
            assert (part.count > 1) == (plan.kind == "counted") and part.count <= 5, plan
            assert part.count == 1 or part.concept not in UNCOUNTED, plan
        if plan.kind == "coloured pair":
            assert len({part.colour for part in plan.parts} - {None}) == 2, plan
        if plan.verb:
            assert plan.kind == plan.verb and plan.verb in VERBS, plan
        if plan.verb == "wearing":
            table = anchors.EYES if names[1] == "glasses" else anchors.HEADS
            assert names[0] in table, plan


def test_a_few_concepts_give_the_kinds_that_they_suffice_for(ten: frozenset[str]) -> None:
    few = replace(POCKET, concepts=ten)
    assert set(casts()) - set(possible_kinds(few)) == {"wearing"}
    rng = random.Random(2)
    for _ in range(300):
        assert set(draw_allowed_plan(rng, few).concepts) <= ten
    bears = replace(POCKET, concepts=frozenset({"bear", "teddy bear"}))
    with pytest.raises(ValueError, match="too few concepts"):
        draw_plan(rng, "pair", bears)


@pytest.mark.parametrize(
    ("a", "b", "is_so"),
    [
        ("bear", "teddy bear", True),
        ("book", "books", True),
        ("ant", "elephant", False),
        ("car", "bus", False),
    ],
)
def test_names_that_share_a_word_are_alike(a: str, b: str, is_so: bool) -> None:
    assert alike(a, b) is is_so
