"""Owns sizes and places: a plan in, the exact box of every thing out.

Lengths in the code are written for a picture of 128 px and scale with its size; lengths in a `Thing` are px.
Every thing is at least 22 px long at 128 px, a tiny one at least 16 px.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from anchors import EYES, HEADS, RIDDEN_FROM_BEFORE, SEATS, TOPS
from glyphs import GlyphSource
from plans import Plan
from roles import HELD_HIGH
from stage import Stage, Thing

Range = tuple[float, float]

# Longer side by size word, px at 128.
ALONE: dict[str | None, Range] = {None: (58, 92), "big": (100, 118), "small": (34, 46), "tiny": (17, 24)}
IN_A_CORNER: dict[str | None, Range] = {None: (38, 58), "small": (25, 32), "tiny": (17, 21)}
IN_A_HALF: dict[str | None, Range] = {None: (49, 58), "big": (60, 64), "small": (25, 33), "tiny": (17, 21)}
SHARE_OF_CELL: dict[str | None, Range] = {None: (0.80, 0.96), "small": (0.53, 0.62), "tiny": (0.40, 0.46)}

# Where several of a kind stand: columns, rows, and the cells (column, row) in use. One arrangement for each
# number, as on dice: among several a small model mixes them, and the number is wrong.
Grid = tuple[int, int, tuple[tuple[float, float], ...]]
GRIDS: dict[int, Grid] = {
    2: (2, 1, ((0, 0), (1, 0))),
    3: (2, 2, ((0.5, 0), (0, 1), (1, 1))),
    4: (2, 2, ((0, 0), (1, 0), (0, 1), (1, 1))),
    5: (3, 3, ((0, 0), (2, 0), (1, 1), (0, 2), (2, 2))),
}

Placer = Callable[[Plan, Stage], tuple[Thing, ...]]


def _alone(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    (part,) = plan.parts
    thing = stage.new(part, stage.between(*ALONE[part.size]))
    room = (stage.picture - max(thing.width, thing.height)) / 2
    reach = min(room / stage.unit, 24)
    x, y = stage.between(64 - reach, 64 + reach), stage.between(64 - reach, 64 + reach)
    return (stage.put(thing, x, y),)


def _at_a_place(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    (part,) = plan.parts
    place = str(plan.place)
    thing = stage.new(part, stage.between(*IN_A_CORNER[part.size]))

    def along(low_word: str, high_word: str) -> tuple[float, tuple[float, float]]:
        if low_word in place:
            return stage.between(16, 36), (0, stage.picture / 2)
        if high_word in place:
            return stage.between(92, 112), (stage.picture / 2, stage.picture)
        return stage.between(57, 71), (0, stage.picture)

    (x, (left, right)), (y, (top, bottom)) = along("left", "right"), along("top", "bottom")
    return (stage.put(thing, x, y, (left, top, right, bottom)),)


def _counted(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    (part,) = plan.parts
    columns, rows, cells = GRIDS[part.count]
    width, height = stage.picture / columns, stage.picture / rows
    longest = min(width, height)
    share = stage.between(*SHARE_OF_CELL[part.size]) / stage.unit
    shift_x = 0 if columns > 1 else stage.between(-24, 24)
    shift_y = 0 if rows > 1 else stage.between(-24, 24)
    things = []
    for column, row in cells:
        side = max(
            share * longest * stage.between(0.94, 1) / stage.unit,
            (16 if part.size == "tiny" else 22) * stage.unit,
        )
        thing = stage.new(part, side)
        room_x, room_y = ((longest - s) / 2 / stage.unit for s in (thing.width, thing.height))
        x = (column + 0.5) * width + shift_x + stage.between(-room_x, room_x)
        y = (row + 0.5) * height + shift_y + stage.between(-room_y, room_y)
        things.append(stage.put(thing, x, y))
    return tuple(things)


def _pair(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    """Give each thing its own half of the picture, so that the two never touch."""
    is_beside = plan.relation not in ("above", "below")
    first_is_far = plan.relation in ("right of", "below")
    half, picture = stage.picture / 2, stage.picture
    things = []
    for is_second, part in enumerate(plan.parts):
        thing = stage.new(part, stage.between(*IN_A_HALF[part.size]))
        low = half if bool(is_second) != first_is_far else 0.0
        along, across = low + stage.between(20, 44), stage.between(44, 84)
        if is_beside:
            things.append(stage.put(thing, along, across, (low, 0, low + half, picture)))
        else:
            things.append(stage.put(thing, across, along, (0, low, picture, low + half)))
    return tuple(things)


def _in_front(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    front, back = plan.parts
    behind = stage.new(back, stage.between(78, 94))
    behind = stage.put(behind, stage.between(54, 74), stage.between(44, 58))
    before = stage.new(front, min(stage.between(40, 52), 0.85 * behind.height), layer=1)
    sideways = stage.between(-0.32, 0.32) / stage.unit * behind.width
    floor = behind.top + behind.height + stage.between(4, 14)
    return stage.put(before, behind.x + sideways, floor - before.height / 2), behind


def _on_top(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    upper, lower = plan.parts
    base = stage.new(lower, stage.between(58, 72))
    base = stage.put(base, stage.between(50, 78), stage.picture)
    base = stage.put(base, base.x, base.y - stage.between(3, 8))
    x, y = base.point(*TOPS[lower.concept])
    thing = stage.new(upper, min(stage.between(38, 52), y), layer=1)
    return stage.put(thing, x, y - thing.height / 2 + 0.04 * thing.height), base


def _between(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    third, level = stage.picture / 3, stage.between(48, 80)
    things = []
    for column, part in zip((1, 0, 2), plan.parts, strict=True):  # the first named thing is in the middle
        thing = stage.new(part, stage.between(33, 41))
        x = (column + 0.5) * third + stage.between(-2, 2)
        y = level + stage.between(-7, 7)
        things.append(stage.put(thing, x, y, (column * third, 0, (column + 1) * third, stage.picture)))
    return tuple(things)


def _with_hands_full(
    plan: Plan, stage: Stage, who: tuple[float, float, float], what: tuple[float, float, float]
) -> tuple[Thing, ...]:
    """Place who has something in front: to the lower left, because all look to the left or to the front.

    Args:
        plan: What to show.
        stage: Where.
        who: Longer side and wished centre of the first thing, px.
        what: The same of the second one.
    """
    side, x, y = who
    holder = stage.new(plan.parts[0], side)
    # A flat one is placed lower, so that its front is still where the other thing is.
    holder = stage.put(holder, x, y + (96 * stage.unit - holder.height) / 4)
    side, x, y = what
    held = stage.new(plan.parts[1], side, layer=1)
    # And to a thin one the thing comes nearer.
    return holder, stage.put(held, max(x, holder.left + 0.15 * holder.width - held.width / 2), y)


def _playing(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    who = stage.between(84, 96), stage.between(70, 78), stage.between(50, 58)
    what = stage.between(52, 64), stage.between(34, 44), stage.between(86, 96)
    return _with_hands_full(plan, stage, who, what)


def _holding(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    who = stage.between(80, 94), stage.between(72, 80), stage.between(58, 66)
    y = stage.between(54, 66) if plan.parts[1].concept in HELD_HIGH else stage.between(80, 92)
    return _with_hands_full(plan, stage, who, (stage.between(38, 48), stage.between(26, 34), y))


def _riding(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    rider, mount = plan.parts
    ridden = stage.new(mount, stage.between(78, 92), layer=0 if mount.concept in RIDDEN_FROM_BEFORE else 1)
    ridden = stage.put(ridden, stage.between(58, 70), stage.picture)
    ridden = stage.put(ridden, ridden.x, ridden.y - stage.between(3, 8))
    x, y = ridden.point(*SEATS[mount.concept])
    # As large as there is room above: at 64 px a face is lost that is shorter than 12.
    who = stage.new(rider, min(stage.between(72, 86), y - stage.unit), layer=1 - ridden.layer)
    if who.width > 76 * stage.unit:
        who = stage.new(rider, 76 * stage.unit, layer=who.layer)
    return stage.put(who, x, y - who.height / 2), ridden


def _dressed(plan: Plan, stage: Stage, longer_side: float) -> tuple[Thing, Thing, float, float]:
    """The wearer and what it wears, not yet placed.

    Returns:
        Both; how far the centre of what is worn is above its point; how far it reaches over the wearer, px.
    """
    wearer, worn = plan.parts
    is_hat = worn.concept != "glasses"
    _, y, share = (HEADS if is_hat else EYES)[wearer.concept]
    who = stage.new(wearer, longer_side)
    gear = stage.new(worn, max(share * who.width, 22 * stage.unit), layer=1)
    above = 0.40 * gear.height if is_hat else 0.0  # a hat is pulled a little over the head
    return who, gear, above, max(0.0, above + gear.height / 2 - y * who.height)


def _wearing(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    longer_side = stage.between(78, 94)
    who, gear, above, over = _dressed(plan, stage, longer_side)
    if who.height + over > stage.picture:
        who, gear, above, over = _dressed(plan, stage, 0.8 * longer_side)
    room = max(0.0, stage.picture - who.height - over)
    top = over + room * stage.between(0.3, 0.7) / stage.unit
    who = stage.put(who, stage.between(58, 70), top + who.height / 2)
    x, y, _ = (EYES if gear.concept == "glasses" else HEADS)[who.concept]
    x, y = who.point(x, y)
    return who, stage.put(gear, x, y - above)


def _chasing(plan: Plan, stage: Stage) -> tuple[Thing, ...]:
    """The first named thing is on the left, as in every pair, so both must look to the right."""
    things, level = [], stage.between(52, 80)
    for x, part in zip((stage.between(36, 42), stage.between(94, 102)), plan.parts, strict=True):
        thing = replace(stage.new(part, stage.between(40, 50)), mirrored=True)
        half = (0, stage.picture / 2) if x < stage.picture / 2 else (stage.picture / 2, stage.picture)
        things.append(stage.put(thing, x, level + stage.between(-7, 7), (half[0], 0, half[1], stage.picture)))
    return tuple(things)


PLACERS: dict[str, Placer] = {
    "single": _alone,
    "coloured": _alone,
    "placed": _at_a_place,
    "counted": _counted,
    "pair": _pair,
    "coloured pair": _pair,
    "in front of": _in_front,
    "on top of": _on_top,
    "between": _between,
    "playing": _playing,
    "riding": _riding,
    "wearing": _wearing,
    "holding": _holding,
    "chasing": _chasing,
}
"""Kind of scene → how its things are placed."""


def place(plan: Plan, glyphs: GlyphSource, picture: int, rng: random.Random) -> tuple[Thing, ...]:
    """Choose sizes and places.

    Args:
        plan: What to show.
        glyphs: Gives the shape of each concept.
        picture: Side of the picture, px.
        rng: Source of every choice.

    Returns:
        The things in the order of the caption, several of a kind row by row; all fully inside the picture.
    """
    return PLACERS[plan.kind](plan, Stage(glyphs, picture, rng))
