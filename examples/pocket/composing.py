"""Puts a scene together: what (plans), where (placing), in which words (phrasings).

A scene is plain data, enough to draw it, to judge a picture of it and to learn to recognise it. Scene i of a
data set depends on the seed, the mixture and i alone.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from backgrounds import COLOUR_JITTER, FLAT, VARIANTS
from glyphs import GlyphSource
from holdout import is_held_out
from mixtures import Mixture
from phrasings import caption
from placing import place
from plans import TRIES, Plan, draw_kind, draw_plan
from stage import Thing


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows.

    Attributes:
        kind: A key of `plans.casts()`.
        objects: In the order in which the caption names them; several of a kind one by one.
        count: How many of a kind: 1, or 2...5 if there is one concept several times.
        relation: How the first object stands to the second, as in `plans.Plan`, or None.
        verb: What the first object does with the second, or None.
        place: Where a thing on its own stands, or None.
        style: A key of `styles.STYLES`, or None.
        background: A name from `backgrounds.BACKGROUNDS`.
        colour: The exact red, green, blue, 0...255, of a flat background; None for one with content.
        variant: Which look the background with content and the paper of a watercolour have.
        text: The caption.
    """

    kind: str
    objects: tuple[Thing, ...]
    count: int
    relation: str | None
    verb: str | None
    place: str | None
    style: str | None
    background: str
    colour: tuple[int, int, int] | None
    variant: int
    text: str

    def as_json(self) -> dict[str, Any]:
        """Return plain data for one line of scenes.jsonl."""
        return asdict(self)


def draw_allowed_plan(rng: random.Random, mixture: Mixture, allow_held_out: bool = False) -> Plan:
    """Draw what a scene shows, again and again until it is not held out (unless that is allowed)."""
    kind = draw_kind(rng, mixture)
    for _ in range(TRIES):
        plan = draw_plan(rng, kind, mixture)
        if allow_held_out or not is_held_out(plan):
            return plan
    raise ValueError(f"nearly every scene of the kind {kind!r} is held out; name more concepts")


def compose(plan: Plan, glyphs: GlyphSource, picture: int, rng: random.Random) -> Scene:
    """Turn a plan into a scene: places, exact background, caption.

    Args:
        plan: What to show.
        glyphs: The font.
        picture: Side of the picture, px.
        rng: Source of every choice.
    """
    colour = None
    if plan.background in FLAT:
        red, green, blue = (
            min(max(channel + rng.randint(-COLOUR_JITTER, COLOUR_JITTER), 0), 255)
            for channel in FLAT[plan.background]
        )
        colour = (red, green, blue)
    variant = rng.randrange(VARIANTS)
    things = place(plan, glyphs, picture, rng)
    return Scene(
        kind=plan.kind,
        objects=things,
        count=plan.parts[0].count,
        relation=plan.relation,
        verb=plan.verb,
        place=plan.place,
        style=plan.style,
        background=plan.background,
        colour=colour,
        variant=variant,
        text=caption(plan, rng),
    )


def scene_at(
    index: int,
    seed: int,
    glyphs: GlyphSource,
    picture: int,
    mixture: Mixture,
    *,
    allow_held_out: bool = False,
) -> Scene:
    """Make scene number `index` of the data set `seed`, whatever other scenes are made.

    Args:
        index: Number of the scene, >= 0.
        seed: Number of the data set, >= 0.
        glyphs: The font.
        picture: Side of the picture, px.
        mixture: Shares of everything.
        allow_held_out: True for a recogniser, which judges pocket and must know everything.

    Returns:
        A scene; never a held-out one unless allowed.
    """
    rng = random.Random(f"{seed}:{index}")
    return compose(draw_allowed_plan(rng, mixture, allow_held_out), glyphs, picture, rng)
