"""Owns which things can't be seen before which background, so that they are never drawn there."""

from __future__ import annotations

from backgrounds import FLAT

HIDES: dict[str, frozenset[str]] = {
    "red": frozenset({
        "balloon", "red apple", "tomato", "pepper", "magnet", "lobster", "telephone", "book", "rose",
        "high heel", "strawberry", "backpack",
    }),
    "orange": frozenset({
        "camel", "peanuts", "chick", "shrimp", "croissant", "egg", "orange", "cat", "pumpkin", "basketball",
        "pretzel", "lemon", "tent", "honey pot", "boot", "sun", "crab", "giraffe",
    }),
    "yellow": frozenset({
        "star", "moon", "camel", "lightning", "key", "saxophone", "trumpet", "lemon", "peanuts",
    }),
    "green": frozenset({"crocodile"}),
    "blue": frozenset({"dress"}),
    "purple": frozenset({"eggplant"}),
    "pink": frozenset({"cherry blossom", "pig", "squid"}),
    "brown": frozenset({
        "bat", "crocodile", "bear", "teddy bear", "eagle", "football", "palm tree", "bomb", "canoe",
    }),
    "white": frozenset({"swan", "cloud", "snowman", "rabbit", "sheep"}),
    "gray": frozenset({"rhinoceros", "robot", "sloth", "castle", "whale"}),
    "cyan": frozenset({"dolphin"}),
    "sky": frozenset({"snowflake"}),
    "night": frozenset({"skateboard", "bomb"}),
    "city": frozenset({"elephant", "wolf"}),
    "underwater": frozenset({"dress"}),
}  # fmt: skip
"""Background → concepts of which less than about a third differs from it by 60 of 255 or more; measured."""

SWALLOWS: dict[str, frozenset[str]] = {
    **{name: frozenset({name}) for name in FLAT},
    "night": frozenset({"black"}),
    "space": frozenset({"black"}),
    "forest": frozenset({"green"}),
    "desert": frozenset({"orange"}),
    "underwater": frozenset({"blue"}),
}
"""Background → tints that would hide a thing before it."""

NEUTRAL = ("white", "gray")
"""Before one of these stand things in colours of their own where the caption leaves the background open."""
