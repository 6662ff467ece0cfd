"""Pictures: backgrounds, tints and styles do what their names say, and scenes are seeded."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from backgrounds import COLOUR_JITTER, CONTENT, FLAT, VARIANTS, content
from composing import Scene, compose, scene_at
from drawing import Painter
from glyphs import GlyphSource
from mixtures import MIXTURES
from numpy.typing import NDArray
from plans import Part, Plan
from stage import Thing
from styles import PAPER, STYLES
from tints import TINTS, main_colour, tint

PX = 128
POCKET = MIXTURES["pocket"]
Pixels = NDArray[np.int64]


@pytest.fixture(scope="module")
def painter(glyphs: GlyphSource) -> Painter:
    return Painter(glyphs)


@pytest.fixture(scope="module")
def some_scenes(glyphs: GlyphSource, ten: frozenset[str]) -> list[Scene]:
    few = replace(POCKET, concepts=ten)
    return [scene_at(index, 5, glyphs, PX, few) for index in range(120)]


def drawn(painter: Painter, glyphs: GlyphSource, plan: Plan, seed: int = 1) -> tuple[Scene, Pixels]:
    scene = compose(plan, glyphs, PX, random.Random(seed))
    return scene, painter.draw(scene, PX).astype(np.int64)


def covered(scene: Scene) -> NDArray[np.bool_]:
    boxes = np.zeros((PX, PX), dtype=bool)
    for thing in scene.objects:
        left, top = round(thing.left), round(thing.top)
        boxes[top : top + thing.height, left : left + thing.width] = True
    return boxes


def test_a_scene_depends_on_seed_and_number_alone(
    ten_font: Path, painter: Painter, glyphs: GlyphSource, ten: frozenset[str], some_scenes: list[Scene]
) -> None:
    fresh, few = GlyphSource(ten_font), replace(POCKET, concepts=ten)
    for index in (119, 7, 0):
        again = scene_at(index, 5, fresh, PX, few)
        assert again == some_scenes[index]
        assert np.array_equal(Painter(fresh).draw(again, PX), painter.draw(some_scenes[index], PX))
    assert scene_at(7, 6, glyphs, PX, few) != some_scenes[7]
    assert len({scene.text for scene in some_scenes}) > 115


def test_a_scene_is_plain_data_and_can_be_drawn_from_it(painter: Painter, some_scenes: list[Scene]) -> None:
    for scene in some_scenes[:40]:
        data = json.loads(json.dumps(scene.as_json()))
        data["objects"] = tuple(Thing(**thing) for thing in data["objects"])
        data["colour"] = data["colour"] and tuple(data["colour"])
        assert Scene(**data) == scene


def test_pixels_show_what_is_annotated(painter: Painter, some_scenes: list[Scene]) -> None:
    for scene in some_scenes:
        if scene.style is not None or scene.verb == "chasing":
            continue
        ground = content(scene.background, scene.variant, PX) if scene.colour is None else scene.colour
        if scene.colour is not None:
            assert np.abs(np.subtract(scene.colour, FLAT[scene.background])).max() <= COLOUR_JITTER
        differs = np.abs(painter.draw(scene, PX).astype(int) - np.asarray(ground, dtype=int)).max(axis=2) > 12
        boxes = covered(scene)
        assert not differs[~boxes].any(), scene
        for thing in scene.objects:
            left, top = round(thing.left), round(thing.top)
            assert differs[top : top + thing.height, left : left + thing.width].mean() > 0.12, scene


def test_mirrored_things_are_mirrored_and_later_layers_cover(painter: Painter) -> None:
    def scene(*things: Thing) -> Scene:
        return Scene("pair", things, 1, "and", None, None, None, "white", (250, 250, 250), 0, "")

    dog = Thing("dog", 64, 64, 60, 64)
    seen = painter.draw(scene(dog), PX)
    assert np.array_equal(painter.draw(scene(replace(dog, mirrored=True)), PX), seen[:, ::-1])
    rose = Thing("rose", 64, 64, 60, 86)
    over, under = scene(replace(rose, layer=1), dog), scene(rose, dog)
    assert np.array_equal(painter.draw(over, PX), painter.draw(scene(dog, rose), PX))
    assert not np.array_equal(painter.draw(over, PX), painter.draw(under, PX))


def test_backgrounds_with_content_are_calm_and_unlike_each_other() -> None:
    means = {}
    for name in CONTENT:
        pixels = [content(name, variant, PX).astype(float) for variant in (0, 1)]
        assert pixels[0].shape == (PX, PX, 3) and np.abs(pixels[0] - pixels[1]).mean() > 1, name
        blocks = pixels[0].reshape(8, 16, 8, 16, 3).swapaxes(1, 2).reshape(64, 256, 3)
        assert np.median(blocks.std(axis=1).mean(axis=1)) < 30, name
        means[name] = np.concatenate([p.reshape(4, 32, PX, 3).mean(axis=(1, 2)) for p in pixels[:1]]).ravel()
    names = list(means)
    nearest = min(
        np.abs(means[a] - means[b]).max() for i, a in enumerate(names) for b in names[:i]
    )  # largest difference between the mean colours of four bands
    assert nearest > 40
    with pytest.raises(ValueError, match="read-only"):
        content("sky", 0, PX)[0, 0] = 0
    assert VARIANTS >= 32


@pytest.mark.parametrize("concept", ["car", "dog", "rose", "guitar"])
def test_a_tint_changes_the_main_colour_and_keeps_light_and_outline(
    concept: str, glyphs: GlyphSource
) -> None:
    before = np.asarray(glyphs.full(concept)).astype(float)
    solid = before[..., 3] > 200
    for name, target in TINTS.items():
        after = np.asarray(tint(glyphs.full(concept), name)).astype(float)
        assert np.array_equal(after[..., 3], before[..., 3])
        assert np.abs(main_colour(after.astype(np.float32)) - target).max() <= 24, name
    blue = np.asarray(tint(glyphs.full(concept), "blue")).astype(float)
    changed = (np.abs(blue - before).max(axis=2) > 30) & solid
    assert 0.25 < changed.sum() / solid.sum() < 0.98  # the rest is tyres, leaves, eyes
    light = [picture[..., :3][changed] @ [0.299, 0.587, 0.114] for picture in (before, blue)]
    assert np.corrcoef(light)[0, 1] > 0.75


def test_a_coloured_thing_has_its_colour_in_the_picture(painter: Painter, glyphs: GlyphSource) -> None:
    plan = Plan("coloured pair", (Part("car", "blue"), Part("rose", "yellow")), "white", "left of")
    scene, pixels = drawn(painter, glyphs, plan)
    for thing, name in zip(scene.objects, ("blue", "yellow"), strict=True):
        left, top = round(thing.left), round(thing.top)
        near = (
            np.abs(pixels[top : top + thing.height, left : left + thing.width] - TINTS[name]).max(axis=2) < 60
        )
        assert near.mean() > 0.12


def styled(painter: Painter, glyphs: GlyphSource, name: str) -> tuple[Scene, Pixels, Pixels]:
    background = STYLES[name].backgrounds[0]
    plan = Plan("pair", (Part("cat"), Part("car")), background, "left of")
    scene = compose(plan, glyphs, PX, random.Random(3))
    pixels = painter.draw(replace(scene, style=name), PX).astype(np.int64)
    return scene, painter.draw(scene, PX).astype(np.int64), pixels


def test_pixel_art_is_made_of_squares(painter: Painter, glyphs: GlyphSource) -> None:
    _, _, pixels = styled(painter, glyphs, "pixel art")
    squares = pixels[:126, :126].reshape(42, 3, 42, 3, 3)
    assert np.array_equal(squares, np.broadcast_to(squares[:, :1, :, :1], squares.shape))
    assert len(np.unique(pixels[:, :, 0])) > 4


def test_black_and_white_and_sketches_have_no_colours(painter: Painter, glyphs: GlyphSource) -> None:
    for name, most in (("black and white", 0), ("sketch", 10)):
        _, plain, pixels = styled(painter, glyphs, name)
        assert np.ptp(pixels, axis=2).max() <= most < np.ptp(plain, axis=2).max()
    assert np.median(pixels) > 200 and pixels.min() < 90  # pencil on paper


def test_a_silhouette_blackens_the_things_alone(painter: Painter, glyphs: GlyphSource) -> None:
    scene, plain, pixels = styled(painter, glyphs, "silhouette")
    boxes = covered(scene)
    assert np.array_equal(pixels[~boxes], plain[~boxes])
    dark = pixels.max(axis=2) < 40
    assert 0.3 < dark[boxes].mean() < 0.9 and not dark[~boxes].any()


def test_watercolour_leaves_the_border_of_the_paper_free(painter: Painter, glyphs: GlyphSource) -> None:
    _, plain, pixels = styled(painter, glyphs, "watercolour")
    assert np.abs(pixels[:1] - PAPER).mean() < 12
    assert np.abs(pixels[40:88, 40:88] - PAPER).max(axis=2).mean() > 60
    assert 5 < np.abs(pixels - plain).mean() < 90


def test_neon_is_bright_lines_on_darkness(painter: Painter, glyphs: GlyphSource) -> None:
    scene, _, pixels = styled(painter, glyphs, "neon")
    light = pixels.max(axis=2)
    assert np.median(light) < 60 and light.max() == 255
    assert (light > 200)[covered(scene)].mean() > 5 * (light > 200)[~covered(scene)].mean()


def test_streaks_are_behind_those_who_run(painter: Painter, glyphs: GlyphSource) -> None:
    plan = Plan("chasing", (Part("cat"), Part("dog")), "green", verb="chasing")
    scene, pixels = drawn(painter, glyphs, plan)
    differs = np.abs(pixels - scene.colour).max(axis=2) > 12
    for thing in scene.objects:
        left, top = round(thing.left), round(thing.top)
        assert differs[top : top + thing.height, max(left - 9, 0) : left - 1].any()
