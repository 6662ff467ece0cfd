"""Boxes agree with what the plan says, for every kind of scene and every concept."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import anchors
import pytest
from glyphs import GlyphSource
from mixtures import MIXTURES
from placing import place
from plans import PLACES, Part, Plan, casts, draw_plan
from stage import Thing

PX = 128
POCKET = MIXTURES["pocket"]
Placed = list[tuple[Plan, tuple[Thing, ...]]]


@pytest.fixture(scope="module")
def placed(shapes: GlyphSource) -> dict[str, Placed]:
    rng = random.Random(4)
    found: dict[str, Placed] = {}
    for kind in casts():
        plans = [draw_plan(rng, kind, POCKET) for _ in range(100)]
        found[kind] = [(plan, place(plan, shapes, PX, rng)) for plan in plans]
    return found


def edges(thing: Thing) -> tuple[float, float, float, float]:
    return (
        thing.x - thing.width / 2,
        thing.y - thing.height / 2,
        thing.x + thing.width / 2,
        thing.y + thing.height / 2,
    )


def overlap(a: Thing, b: Thing) -> float:
    (al, at, ar, ab), (bl, bt, br, bb) = edges(a), edges(b)
    return max(0.0, min(ar, br) - max(al, bl)) * max(0.0, min(ab, bb) - max(at, bt))


def test_everything_is_inside_on_whole_pixels_and_large_enough(placed: dict[str, Placed]) -> None:
    for kind, scenes in placed.items():
        for plan, things in scenes:
            assert [t.concept for t in things] == [p.concept for p in plan.parts for _ in range(p.count)]
            for thing in things:
                assert all(0 <= edge <= PX and edge == int(edge) for edge in edges(thing)), (kind, thing)
                least = 16 if thing.size == "tiny" else 22
                assert max(thing.width, thing.height) >= least, (kind, thing)


def test_pairs_stand_as_the_relation_says_and_never_touch(placed: dict[str, Placed]) -> None:
    for plan, (a, b) in placed["pair"] + placed["coloured pair"]:
        gap = {
            "right of": a.x - b.x - (a.width + b.width) / 2,
            "above": b.y - a.y - (a.height + b.height) / 2,
            "below": a.y - b.y - (a.height + b.height) / 2,
        }.get(str(plan.relation), b.x - a.x - (a.width + b.width) / 2)  # left of, and, next to
        assert gap >= 0, (plan, a, b)


def test_several_of_a_kind_never_overlap(placed: dict[str, Placed]) -> None:
    numbers = set()
    for plan, things in placed["counted"]:
        assert len(things) == plan.parts[0].count
        assert all(overlap(a, b) == 0 for a, b in combinations(things, 2)), things
        sides = [max(thing.width, thing.height) for thing in things]
        assert max(sides) <= 1.12 * min(sides)
        numbers.add(len(things))
    assert numbers == {2, 3, 4, 5}


def test_each_number_has_one_arrangement(placed: dict[str, Placed]) -> None:
    middle = PX / 2
    for _, things in placed["counted"]:
        quadrants = {(thing.x > middle, thing.y > middle) for thing in things}
        if len(things) == 2:
            assert things[0].x < middle < things[1].x
        elif len(things) == 3:
            top, left, right = things
            assert top.y < middle < min(left.y, right.y) and left.x < top.x < right.x
        else:
            assert len(quadrants) == 4
        if len(things) == 5:
            assert abs(things[2].x - middle) < PX / 6 and abs(things[2].y - middle) < PX / 6


def test_a_thing_stands_where_its_place_word_says(placed: dict[str, Placed]) -> None:
    seen = set()
    for plan, (thing,) in placed["placed"]:
        words = str(plan.place).split()
        assert ("left" in words) == (thing.x < 43) and ("right" in words) == (thing.x > 85), (plan, thing)
        assert ("top" in words) == (thing.y < 43) and ("bottom" in words) == (thing.y > 85), (plan, thing)
        seen.add(plan.place)
    assert seen == set(PLACES)


def test_size_words_order_the_sizes(shapes: GlyphSource) -> None:
    def longest(size: str | None, kind: str, seed: int) -> int:
        plan = Plan(kind, (Part("dog", size=size),), "red", place="top left")
        return max((t := place(plan, shapes, PX, random.Random(seed))[0]).width, t.height)

    for kind, words in (("single", ["tiny", "small", None, "big"]), ("placed", ["tiny", "small", None])):
        ranges = [[longest(word, kind, seed) for seed in range(40)] for word in words]
        assert all(max(low) < min(high) for low, high in pairwise(ranges))


def test_what_is_in_front_covers_the_lower_part_of_the_other(placed: dict[str, Placed]) -> None:
    for plan, (front, back) in placed["in front of"]:
        assert front.layer > back.layer
        assert front.y > back.y and edges(front)[3] >= edges(back)[3], plan
        assert 0 < overlap(front, back) <= 0.62 * back.width * back.height, (front, back)


def test_what_is_on_top_stands_on_the_upper_edge(placed: dict[str, Placed]) -> None:
    for _, (upper, lower) in placed["on top of"]:
        point = lower.point(*anchors.TOPS[lower.concept])
        assert upper.layer > lower.layer
        assert abs(upper.y + upper.height / 2 - point[1]) <= 0.05 * upper.height + 1
        assert abs(upper.x - point[0]) <= 1 or edges(upper)[2] == PX or edges(upper)[0] == 0


def test_between_names_the_middle_one_first(placed: dict[str, Placed]) -> None:
    for _, things in placed["between"]:
        middle, left, right = things
        assert left.x < middle.x < right.x
        assert all(overlap(a, b) == 0 for a, b in combinations(things, 2))


def test_instruments_and_held_things_are_low_on_the_left_and_in_front(placed: dict[str, Placed]) -> None:
    for kind in ("playing", "holding"):
        for plan, (who, what) in placed[kind]:
            assert what.layer > who.layer and what.x < who.x - 10, plan
            assert overlap(who, what) > 0, plan
    assert all(what.y > who.y for _, (who, what) in placed["playing"])


def test_riders_sit_on_the_seat(placed: dict[str, Placed]) -> None:
    for plan, (rider, mount) in placed["riding"]:
        x, y = mount.point(*anchors.SEATS[mount.concept])
        assert abs(rider.y + rider.height / 2 - y) <= 1, plan
        assert abs(rider.x - x) <= 1 or edges(rider)[0] == 0 or edges(rider)[2] == PX, plan
        assert edges(rider)[1] < mount.y, plan
        assert (rider.layer > mount.layer) == (mount.concept in anchors.RIDDEN_FROM_BEFORE), plan
        # As large as there is room above, or so large that a face can be told at half the size.
        assert max(rider.width, rider.height) >= min(70, y - 2), plan


def test_hats_are_on_heads_and_glasses_before_eyes(placed: dict[str, Placed]) -> None:
    glasses = 0
    for plan, (who, gear) in placed["wearing"]:
        assert gear.layer > who.layer
        if gear.concept == "glasses":
            glasses += 1
            x, y = who.point(*anchors.EYES[who.concept][:2])
            assert abs(gear.x - x) <= 1 and abs(gear.y - y) <= 1, plan
        else:
            x, y = who.point(*anchors.HEADS[who.concept][:2])
            assert abs(gear.x - x) <= 1 or edges(gear)[0] == 0, plan
            # The brim is a little lower than the top of the head.
            assert 0 <= gear.y + gear.height / 2 - y <= 0.2 * gear.height + 2, plan
    assert glasses > 20


def test_chasers_look_at_whom_they_chase(placed: dict[str, Placed]) -> None:
    for _, (chaser, chased) in placed["chasing"]:
        assert chaser.mirrored and chased.mirrored  # glyphs look to the left by themselves
        assert chased.x - chaser.x >= (chased.width + chaser.width) / 2
    others = [
        thing for kind, scenes in placed.items() if kind != "chasing" for _, ts in scenes for thing in ts
    ]
    assert not any(thing.mirrored for thing in others)


def test_places_scale_with_the_picture(shapes: GlyphSource) -> None:
    for kind in casts():
        plan = draw_plan(random.Random(kind), kind, POCKET)
        small, large = (place(plan, shapes, px, random.Random(7)) for px in (128, 256))
        for a, b in zip(small, large, strict=True):
            assert abs(2 * a.x - b.x) <= 4 and abs(2 * a.y - b.y) <= 4, kind
            assert abs(2 * a.width - b.width) <= 3, kind
