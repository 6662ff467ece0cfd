"""Owns what a scene shows, before sizes and places are drawn: kinds of scene and who is in them.

Knows nothing of pixels, fonts, words or what is held out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from anchors import EYES, HEADS, SEATS, TOPS
from glyphs import all_concepts
from mixtures import Mixture
from roles import (
    BACKDROPS,
    CHASERS,
    HEADGEAR,
    HELD,
    KNOWN_BY_OUTLINE,
    MOUNTED_IN_LIFE,
    TOYS_WITH_FACE,
    chased,
    instruments,
    standing,
    subjects,
)
from styles import STYLES
from tints import TINTABLE, TINTS
from visibility import HIDES, NEUTRAL, SWALLOWS
from words import UNCOUNTED

VERBS = ("playing", "riding", "wearing", "holding", "chasing")
OPPOSITES = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
SIDE_BY_SIDE = ("and", "next to")
"""Relations without a side of their own: the first named thing is always the left one."""

OTHER_WAY_ROUND = 0.2
"""Share of 'right of' among 'left of' and 'right of', and of 'below' among 'above' and 'below'.

In equal shares neither the order of the words nor the relation says anything about the side on its own; only
both together do, as in a parity, and a small model does not find that for a very long time (measured on an
earlier, simpler data set: both things drawn, sides at chance). In unequal shares the order alone is a good
first guess (first named: left or above), and the relation can be learnt as an exception to it.
"""

RELATIONS = {
    "left of": 0.34 * (1 - OTHER_WAY_ROUND),
    "right of": 0.34 * OTHER_WAY_ROUND,
    "above": 0.30 * (1 - OTHER_WAY_ROUND),
    "below": 0.30 * OTHER_WAY_ROUND,
    "and": 0.22,
    "next to": 0.14,
}
PLACES = (
    "left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right", "middle",
)  # fmt: skip
NUMBERS = (2, 3, 4, 5)

# Shares of scenes, or of things in them.
SIZED = {"single": 0.35, "placed": 0.15, "counted": 0.15, "pair": 0.15, "coloured": 0.1}
SIZES = {
    "single": ("big", "small", "tiny"),
    "coloured": ("big", "small"),
    "placed": ("small", "tiny"),
    "counted": ("small", "small", "tiny"),
    "pair": ("big", "small", "tiny"),
}
TINTED = {"placed": 0.15, "counted": 0.25, "pair": 0.05, **dict.fromkeys(VERBS, 0.2)}
ALWAYS_TINTED = ("coloured", "coloured pair")
NEUTRAL_OFTENER = 5  # times as often, behind those, as another background
GLASSES = 0.3  # of those who wear something
OFTENER = 4  # times more: whom one thinks of first among riders, and what among mounts

OUTLINES_READ_IN = ("single", "placed", "counted", "pair")
TRIES = 200
COARSE_STYLES = ("pixel art", "neon")  # small things are lost in them


@dataclass(frozen=True)
class Part:
    """One thing of a plan, or several of a kind.

    Attributes:
        concept: A name from `glyphs.all_concepts`.
        colour: A key of `tints.TINTS`, or None for the thing's own colours.
        size: big, small, tiny, or None for anything between.
        count: How many, 1...5.
    """

    concept: str
    colour: str | None = None
    size: str | None = None
    count: int = 1


@dataclass(frozen=True)
class Plan:
    """What a scene shows.

    Attributes:
        kind: A key of `CASTS`.
        parts: Things in the order in which the caption names them.
        background: A name from `backgrounds.BACKGROUNDS`.
        relation: How the first thing stands to the second: a key of `RELATIONS`, "in front of", "on top of",
            "between" (the second and the third), or None.
        verb: What the first thing does with the second: one of `VERBS`, or None.
        place: Where a thing on its own stands: one of `PLACES`, or None.
        style: A key of `styles.STYLES`, or None.
    """

    kind: str
    parts: tuple[Part, ...]
    background: str
    relation: str | None = None
    verb: str | None = None
    place: str | None = None
    style: str | None = None

    @property
    def concepts(self) -> tuple[str, ...]:
        """Names of the things, in the order of the caption."""
        return tuple(part.concept for part in self.parts)


@cache
def casts() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Kind of scene → who can be its first, second and third thing; named twice is drawn twice as often."""
    everything = tuple(all_concepts())
    tintable = tuple(sorted(TINTABLE))
    return {
        "single": (everything,),
        "coloured": (tintable,),
        "placed": (everything,),
        "counted": (tuple(name for name in everything if name not in UNCOUNTED),),
        "pair": (everything, everything),
        "coloured pair": (tintable, tintable),
        "in front of": (everything, BACKDROPS),
        "on top of": (standing(), tuple(TOPS)),
        "between": (everything, everything, everything),
        "playing": (subjects(), instruments()),
        "riding": (subjects() + OFTENER * TOYS_WITH_FACE, tuple(SEATS) + OFTENER * MOUNTED_IN_LIFE),
        "wearing": (tuple(HEADS), HEADGEAR),
        "holding": (subjects(), HELD),
        "chasing": (CHASERS, chased()),
    }


@cache
def _among(names: tuple[str, ...], concepts: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in concepts)


@cache
def possible_kinds(mixture: Mixture) -> dict[str, float]:
    """The mixture's kinds that its concepts suffice for, with their weights."""
    possible = {}
    for kind, weight in mixture.kinds.items():
        pools = [set(_among(names, mixture.concepts)) for names in casts()[kind]]
        if all(pools) and len(set().union(*pools)) >= len(pools):
            possible[kind] = weight
    return possible


def alike(a: str, b: str) -> bool:
    """Whether two names share a word, as 'bear' and 'teddy bear' do: too much alike for one picture."""
    return bool({word.rstrip("s") for word in a.split()} & {word.rstrip("s") for word in b.split()})


class _NobodyFits(Exception):
    """The background and the style leave nobody for a role."""


def _pick(rng: random.Random, names: Sequence[str], taken: Sequence[str], hidden: frozenset[str]) -> str:
    for _ in range(TRIES if names else 0):
        name = rng.choice(names)
        if name not in hidden and not any(alike(name, other) for other in taken):
            return name
    raise _NobodyFits


def draw_kind(rng: random.Random, mixture: Mixture) -> str:
    """Draw a kind of scene by the mixture's weights."""
    kinds = possible_kinds(mixture)
    return rng.choices(list(kinds), list(kinds.values()))[0]


def draw_plan(rng: random.Random, kind: str, mixture: Mixture) -> Plan:
    """Draw what a scene of this kind shows, held out or not.

    Args:
        rng: Source of every choice.
        kind: One of `possible_kinds(mixture)`.
        mixture: Shares of everything.

    Raises:
        ValueError: The mixture's concepts do not suffice.
    """
    for _ in range(TRIES):
        try:
            return _draw_plan(rng, kind, mixture)
        except _NobodyFits:
            continue
    raise ValueError(f"too few concepts for a scene of the kind {kind!r}")


def _draw_plan(rng: random.Random, kind: str, mixture: Mixture) -> Plan:
    style = _draw_style(rng, kind, mixture)
    allowed = STYLES[style].backgrounds if style else tuple(mixture.backgrounds)
    weights = {name: mixture.backgrounds[name] for name in allowed if name in mixture.backgrounds}
    if kind in ALWAYS_TINTED:
        weights |= {name: NEUTRAL_OFTENER * weights[name] for name in NEUTRAL if name in weights}
    (background,) = rng.choices(list(weights), list(weights.values()))
    parts = _draw_cast(rng, kind, mixture, background, style)
    if style is None or STYLES[style].shows_colours:
        parts = _draw_colours(rng, kind, parts, background)
    if style not in COARSE_STYLES:
        parts = _draw_sizes(rng, kind, parts, mixture.size)
    relation = kind if kind in ("in front of", "on top of", "between") else None
    if kind in ("pair", "coloured pair"):
        (relation,) = rng.choices(list(RELATIONS), list(RELATIONS.values()))
    verb = kind if kind in VERBS else None
    place = rng.choice(PLACES) if kind == "placed" else None
    return Plan(kind, parts, background, relation, verb, place, style)


def _draw_style(rng: random.Random, kind: str, mixture: Mixture) -> str | None:
    names = [*mixture.styles, None]
    weights = [*mixture.styles.values(), 1 - sum(mixture.styles.values())]
    (style,) = rng.choices(names, weights)
    if style is None or (STYLES[style].outline_alone and kind not in OUTLINES_READ_IN):
        return None
    return style if STYLES[style].shows_colours or kind not in ALWAYS_TINTED else None


def _draw_cast(
    rng: random.Random, kind: str, mixture: Mixture, background: str, style: str | None
) -> tuple[Part, ...]:
    pools = casts()[kind]
    if kind == "wearing" and "glasses" in mixture.concepts and rng.random() < GLASSES:
        pools = (tuple(EYES), ("glasses",))
    # A thing that will get a colour of its own is not hidden by its natural one.
    hidden = frozenset() if kind in ALWAYS_TINTED else HIDES.get(background, frozenset())
    chosen: list[str] = []
    for names in pools:
        fitting = _among(names, mixture.concepts)
        if style and STYLES[style].outline_alone:
            fitting = _among(KNOWN_BY_OUTLINE, frozenset(fitting))
        chosen.append(_pick(rng, fitting, chosen, hidden))
    if kind == "counted":
        numbers = NUMBERS if style not in COARSE_STYLES else NUMBERS[:2]
        return (Part(chosen[0], count=rng.choice(numbers)),)
    return tuple(map(Part, chosen))


def _draw_colours(
    rng: random.Random, kind: str, parts: tuple[Part, ...], background: str
) -> tuple[Part, ...]:
    colours = [colour for colour in TINTS if colour not in SWALLOWS.get(background, ())]
    if kind == "coloured pair":
        pair = rng.sample(colours, 2)
        return tuple(replace(part, colour=colour) for part, colour in zip(parts, pair, strict=True))
    share = 1.0 if kind in ALWAYS_TINTED else TINTED.get(kind, 0.0)
    return tuple(
        replace(part, colour=rng.choice(colours))
        if part.concept in TINTABLE and rng.random() < share
        else part
        for part in parts
    )


def _draw_sizes(
    rng: random.Random, kind: str, parts: tuple[Part, ...], always: str | None
) -> tuple[Part, ...]:
    if always is not None:
        return tuple(replace(part, size=always) for part in parts)
    if rng.random() >= SIZED.get(kind, 0.0):
        return parts
    return tuple(
        replace(part, size=rng.choice(SIZES[kind])) if len(parts) == 1 or rng.random() < 0.6 else part
        for part in parts
    )
