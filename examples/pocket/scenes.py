"""Owns the scenes of version 0: which concepts, where, how large, on what colour; and draws them.

A scene is plain data. Scene i of a data set depends on the seed and i alone. Lengths in the code are written
for a picture of 64 px and scale with its size; lengths in a `Scene` are true px.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from captions import BACKGROUNDS, caption
from glyphs import GlyphSource, core_concepts
from holdout import is_held_out
from numpy.typing import NDArray

DESIGN_PX = 64  # the picture size for which lengths are written
COLOUR_JITTER = 4  # of 255, per channel and scene
KIND_WEIGHTS = {"single": 0.35, "pair": 0.42, "playing": 0.12, "riding": 0.11}
# Were left and right equally frequent, neither the order of the nouns nor the word between them would say
# anything by itself, and a model would find out what the two say together late or never. So the thing named
# first mostly stands left or above; from there the rarer words are learned soon.
SIDE_RELATIONS = {"left of": 0.32, "right of": 0.08, "above": 0.32, "below": 0.08, "and": 0.20}
TOYS_WITH_FACE = {"teddy bear", "robot", "ghost", "snowman", "pumpkin"}


@dataclass(frozen=True)
class Placed:
    """One concept in a picture: centre and size of what is visible, in px; (0, 0) is the top left corner."""

    concept: str
    x: float
    y: float
    width: int
    height: int


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows.

    Attributes:
        kind: A key of `KIND_WEIGHTS`.
        relation: How the first object stands to the second (a key of `captions.RELATIONS`), or None.
        objects: One or two, in the order in which the caption names them.
        background: A key of `captions.BACKGROUNDS`.
        colour: The background's exact red, green, blue, 0...255.
        text: The caption.
    """

    kind: str
    relation: str | None
    objects: tuple[Placed, ...]
    background: str
    colour: tuple[int, int, int]
    text: str

    @property
    def concepts(self) -> tuple[str, ...]:
        """Names of the objects, in the order of the caption."""
        return tuple(placed.concept for placed in self.objects)

    def as_json(self) -> dict[str, Any]:
        """Return plain data for one line of scenes.jsonl."""
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """What a scene shows, before sizes and places are drawn."""

    kind: str
    concepts: tuple[str, ...]
    relation: str | None
    background: str


def subjects() -> list[str]:
    """Return who can play and ride: all animals, and the toys that have a face."""
    return [c.name for c in core_concepts().values() if c.group == "animal" or c.name in TOYS_WITH_FACE]


def of_group(group: str) -> list[str]:
    """Return the names of a group's concepts, in the order of the table."""
    return [c.name for c in core_concepts().values() if c.group == group]


def draw_plan(rng: random.Random, kind: str, only: frozenset[str] | None = None) -> Plan:
    """Draw what a scene of this kind shows, held-out or not.

    Args:
        rng: Source of every choice.
        kind: A key of `KIND_WEIGHTS`.
        only: Use these concepts alone (a font subset has no others); None for all.
    """

    def pick(names: list[str]) -> str:
        return rng.choice([name for name in names if only is None or name in only])

    background = rng.choice(list(BACKGROUNDS))
    everything = list(core_concepts())
    if kind == "single":
        return Plan(kind, (pick(everything),), None, background)
    if kind == "pair":
        first = pick(everything)
        second = pick([name for name in everything if name != first])
        (relation,) = rng.choices(list(SIDE_RELATIONS), list(SIDE_RELATIONS.values()))
        return Plan(kind, (first, second), relation, background)
    partners = of_group("instrument" if kind == "playing" else "vehicle")
    return Plan(kind, (pick(subjects()), pick(partners)), kind, background)


def _sized(glyphs: GlyphSource, concept: str, longer_side: float) -> tuple[int, int]:
    height, width = glyphs.resized(concept, round(longer_side)).shape[:2]
    return width, height


def _placed(concept: str, size: tuple[int, int], x: float, y: float, picture: int) -> Placed:
    """Place by the wished centre, on whole pixels and fully inside the picture."""
    corner = [min(max(round(c - side / 2), 0), picture - side) for c, side in zip((x, y), size, strict=True)]
    return Placed(concept, corner[0] + size[0] / 2, corner[1] + size[1] / 2, *size)


def _place_pair(
    plan: Plan, glyphs: GlyphSource, picture: int, jitter: Callable[[float, float], float]
) -> tuple[Placed, ...]:
    """Give each concept its own half of the picture, so that the two never touch."""
    relation = plan.relation
    if relation == "and":
        relation = "left of"  # named in reading order
    quarter, middle, half = picture / 4, picture / 2, picture // 2
    placed = []
    for is_second, concept in enumerate(plan.concepts):
        size = _sized(glyphs, concept, jitter(29, 2))
        far_half = bool(is_second) == (relation in ("left of", "above"))
        along = quarter + far_half * middle + jitter(0, 1)
        side = size[0] if relation in ("left of", "right of") else size[1]
        low = half if far_half else 0
        along = min(max(along, low + side / 2), low + half - side / 2)
        across = middle + jitter(0, 2)
        x, y = (along, across) if relation in ("left of", "right of") else (across, along)
        placed.append(_placed(concept, size, x, y, picture))
    return tuple(placed)


def place(plan: Plan, glyphs: GlyphSource, picture: int, rng: random.Random) -> tuple[Placed, ...]:
    """Choose sizes and places. The spread is small on purpose: pocket must learn it in an hour.

    Args:
        plan: What to show.
        glyphs: Gives the shape of each concept.
        picture: Side of the picture, px.
        rng: Source of every choice.

    Returns:
        The objects in the order of the caption, all fully inside the picture.
    """
    unit = picture / DESIGN_PX

    def jitter(value: float, spread: float) -> float:
        return (value + rng.uniform(-spread, spread)) * unit

    if plan.kind == "single":
        (concept,) = plan.concepts
        size = _sized(glyphs, concept, jitter(45, 7))
        return (_placed(concept, size, jitter(32, 3), jitter(32, 3), picture),)
    if plan.kind == "pair":
        return _place_pair(plan, glyphs, picture, jitter)
    first, second = plan.concepts
    if plan.kind == "playing":
        # Instruments come to the lower left: animals of this font look to the left or to the front.
        size, other = _sized(glyphs, first, jitter(45.5, 2.5)), _sized(glyphs, second, jitter(30, 2))
        top, low = jitter(0, 1) + size[1] / 2 + 2 * unit, picture - other[1] / 2 - 2 * unit - jitter(0, 1)
        low = min(low, jitter(46, 1))
        return (
            _placed(first, size, jitter(37, 1), max(top, jitter(27, 1)), picture),
            _placed(second, other, jitter(19, 1), low, picture),
        )
    size, other = _sized(glyphs, first, jitter(32, 2)), _sized(glyphs, second, jitter(37, 3))
    vehicle = _placed(second, other, jitter(32, 1), picture, picture)
    # The lowest fifth of the rider sits in the vehicle, whose roof is at its centre minus half its height.
    roof = vehicle.y - other[1] / 2
    return (_placed(first, size, jitter(32, 1), roof + 0.2 * size[1] - size[1] / 2, picture), vehicle)


def draw_allowed_plan(
    rng: random.Random, only: frozenset[str] | None = None, allow_held_out: bool = False
) -> Plan:
    """Draw what a scene shows, again and again until it is not held out (unless that is allowed)."""
    (kind,) = rng.choices(list(KIND_WEIGHTS), list(KIND_WEIGHTS.values()))
    plan = draw_plan(rng, kind, only)
    while not allow_held_out and is_held_out(plan.concepts, plan.background):
        plan = draw_plan(rng, kind, only)
    return plan


def make_scene(plan: Plan, glyphs: GlyphSource, picture: int, rng: random.Random) -> Scene:
    """Turn a plan into a scene: places, exact colour, caption."""
    red, green, blue = (
        min(max(channel + rng.randint(-COLOUR_JITTER, COLOUR_JITTER), 0), 255)
        for channel in BACKGROUNDS[plan.background]
    )
    objects = place(plan, glyphs, picture, rng)
    text = caption(plan.concepts, plan.relation, plan.background, rng)
    return Scene(plan.kind, plan.relation, objects, plan.background, (red, green, blue), text)


def scene_at(
    index: int,
    seed: int,
    glyphs: GlyphSource,
    picture: int,
    *,
    only: frozenset[str] | None = None,
    allow_held_out: bool = False,
) -> Scene:
    """Make scene number `index` of the data set `seed`, whatever other scenes are made.

    Args:
        index: Number of the scene, >= 0.
        seed: Number of the data set, >= 0.
        glyphs: The font.
        picture: Side of the picture, px.
        only: Use these concepts alone; None for all.
        allow_held_out: True for the recogniser, which judges pocket and must know everything.

    Returns:
        A scene; never a held-out one unless allowed.
    """
    rng = random.Random(f"{seed}:{index}")
    return make_scene(draw_allowed_plan(rng, only, allow_held_out), glyphs, picture, rng)


def draw(scene: Scene, glyphs: GlyphSource, picture: int) -> NDArray[np.uint8]:
    """Draw a scene.

    Args:
        scene: What to draw; an instrument or a vehicle covers its player or rider.
        glyphs: The font.
        picture: Side of the picture, px.

    Returns:
        (picture, picture, 3), red, green, blue, 0...255.
    """
    canvas: NDArray[np.float32] = np.empty((picture, picture, 3), dtype=np.float32)
    canvas[:] = scene.colour
    for placed in scene.objects:
        glyph = glyphs.resized(placed.concept, max(placed.width, placed.height))
        left, top = round(placed.x - placed.width / 2), round(placed.y - placed.height / 2)
        window = canvas[top : top + placed.height, left : left + placed.width]
        window *= 1 - glyph[..., 3:]
        window += glyph[..., :3]
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
