"""Scenes: seeded one by one, placed as the relation says, drawn as annotated."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from captions import BACKGROUNDS, caption
from glyphs import GlyphSource
from PIL import Image
from scenes import COLOUR_JITTER, Plan, Scene, draw, draw_allowed_plan, make_scene, scene_at

PX = 64
# Version 0 is to be rendered again exactly as long as its weights ship: changed on purpose or not at all.
SCENES_DIGEST = "5e192cace909de1beecb889c70ef3293a7cbfe5240d0be129d79736114cba18c"
PLANS_DIGEST = "7b9a99e84f54693ef390cd5eb7c606388d3806b6e156bd2a656c06acc8206991"


@pytest.fixture(scope="module")
def some_scenes(glyphs: GlyphSource, ten: frozenset[str]) -> list[Scene]:
    return [scene_at(index, 5, glyphs, PX, only=ten) for index in range(400)]


def plan_scene(glyphs: GlyphSource, kind: str, relation: str, seed: int, picture: int = PX) -> Scene:
    pair = ("cat", {"playing": "guitar", "riding": "bicycle"}.get(relation, "car"))
    return make_scene(Plan(kind, pair, relation, "blue"), glyphs, picture, random.Random(seed))


def test_a_scene_depends_on_seed_and_number_alone(
    ten_font: Path, glyphs: GlyphSource, ten: frozenset[str], some_scenes: list[Scene]
) -> None:
    fresh = GlyphSource(ten_font)
    for index in (399, 7, 0):
        again = scene_at(index, 5, fresh, PX, only=ten)
        assert again == some_scenes[index]
        assert np.array_equal(draw(again, fresh, PX), draw(some_scenes[index], glyphs, PX))
    assert scene_at(7, 6, glyphs, PX, only=ten) != some_scenes[7]
    assert len({scene.text for scene in some_scenes}) > 200


def test_everything_is_inside_the_picture(some_scenes: list[Scene]) -> None:
    for scene in some_scenes:
        for placed in scene.objects:
            assert 0 <= placed.x - placed.width / 2 and placed.x + placed.width / 2 <= PX
            assert 0 <= placed.y - placed.height / 2 and placed.y + placed.height / 2 <= PX


@pytest.mark.parametrize(
    ("relation", "axis", "sign"),
    [("left of", "x", 1), ("right of", "x", -1), ("above", "y", 1), ("below", "y", -1)],
)
def test_places_agree_with_the_relation_and_never_overlap(
    glyphs: GlyphSource, relation: str, axis: str, sign: int
) -> None:
    for seed in range(60):
        first, second = plan_scene(glyphs, "pair", relation, seed).objects
        distance = sign * (getattr(second, axis) - getattr(first, axis))
        side = "width" if axis == "x" else "height"
        assert distance >= (getattr(first, side) + getattr(second, side)) / 2
        assert all(25 <= max(placed.width, placed.height) <= 33 for placed in (first, second))


def test_and_names_the_left_one_first(glyphs: GlyphSource) -> None:
    for seed in range(30):
        first, second = plan_scene(glyphs, "pair", "and", seed).objects
        assert first.x < second.x


def test_the_scenes_of_version_0_stay_as_they_are(glyphs: GlyphSource, ten: frozenset[str]) -> None:
    lines = [json.dumps(scene_at(index, 0, glyphs, PX, only=ten).as_json()) + "\n" for index in range(300)]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == SCENES_DIGEST
    plans = []  # with all concepts, which needs no font
    for index in range(300):
        rng = random.Random(f"0:{index}")
        plan = draw_allowed_plan(rng)
        shown = repr((plan.kind, plan.concepts, plan.relation, plan.background))
        plans.append(shown + caption(plan.concepts, plan.relation, plan.background, rng) + "\n")
    assert hashlib.sha256("".join(plans).encode()).hexdigest() == PLANS_DIGEST


def test_player_holds_the_instrument_low_in_front_and_rider_sits_on_top(glyphs: GlyphSource) -> None:
    for seed in range(30):
        player, instrument = plan_scene(glyphs, "playing", "playing", seed).objects
        assert instrument.x < player.x - 8 and instrument.y > player.y + 8
        rider, vehicle = plan_scene(glyphs, "riding", "riding", seed).objects
        assert abs(rider.x - vehicle.x) < 4 and rider.y < vehicle.y - vehicle.height / 2
        assert vehicle.y > PX / 2


def test_pixels_show_what_is_annotated(glyphs: GlyphSource, some_scenes: list[Scene]) -> None:
    for scene in some_scenes[:100]:
        pixels = draw(scene, glyphs, PX).astype(int)
        assert pixels.shape == (PX, PX, 3)
        wanted = np.array(BACKGROUNDS[scene.background])
        assert np.abs(scene.colour - wanted).max() <= COLOUR_JITTER
        differs = np.abs(pixels - scene.colour).max(axis=2) > 12  # a trumpet on yellow is nearly yellow
        boxes = np.zeros((PX, PX), dtype=bool)
        for placed in scene.objects:
            left, top = int(placed.x - placed.width / 2), int(placed.y - placed.height / 2)
            box = np.s_[top : top + placed.height, left : left + placed.width]
            boxes[box] = True
            assert differs[box].mean() > 0.15, scene
        assert not differs[~boxes].any(), scene


def test_hidden_colours_do_not_bleed_into_the_edge(ten_font: Path) -> None:
    class RedOnInvisibleGreen(GlyphSource):
        def full(self, concept: str) -> Image.Image:
            picture = Image.new("RGBA", (101, 101), (0, 255, 0, 0))
            picture.paste((200, 0, 0, 255), (20, 20, 80, 80))
            return picture

    glyph = RedOnInvisibleGreen(ten_font).resized("rose", 40)
    assert ((glyph[..., 3] > 0.2) & (glyph[..., 3] < 0.8)).any()  # there is a soft edge
    assert glyph[..., 1].max() == 0
    assert (glyph[..., :3] <= 255 * glyph[..., 3:] + 1e-3).all()


def test_sizes_scale_with_the_picture(glyphs: GlyphSource) -> None:
    small, large = (plan_scene(glyphs, "playing", "playing", 1, picture) for picture in (64, 128))
    for a, b in zip(small.objects, large.objects, strict=True):
        assert abs(2 * a.x - b.x) <= 2 and abs(2 * a.width - b.width) <= 2
    assert draw(large, glyphs, 128).shape == (128, 128, 3)


def test_a_font_without_the_glyph_is_refused(glyphs: GlyphSource) -> None:
    with pytest.raises(ValueError, match="penguin"):
        glyphs.full("penguin")
