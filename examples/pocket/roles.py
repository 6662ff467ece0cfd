"""Owns who can do what: players, riders, holders, chasers, and what is played, held or chased.

Hats, glasses and seats need a point on the glyph; whoever has one is in `anchors`.
"""

from __future__ import annotations

from functools import cache

from glyphs import all_concepts

TOYS_WITH_FACE = ("teddy bear", "robot", "ghost", "alien", "snowman", "pumpkin")
HEADGEAR = ("crown", "top hat")
MOUNTED_IN_LIFE = ("skateboard", "scooter", "bicycle", "motorcycle", "sled", "horse", "elephant", "camel")

# Seen from the side with legs or wings, so that they seem to run or fly to where they look.
CHASERS = (
    "dog", "cat", "tiger", "rabbit", "mouse", "horse", "giraffe", "elephant", "rhinoceros",
    "hippopotamus", "camel", "llama", "cow", "pig", "sheep", "goat", "deer", "kangaroo", "hedgehog",
    "rooster", "duck", "swan", "parrot", "flamingo", "penguin", "turkey", "turtle", "snake", "dragon",
    "dinosaur", "whale", "dolphin", "fish", "shark", "shrimp", "snail", "bug", "ant", "bee", "poodle",
)  # fmt: skip
CHASED_BESIDES = (
    "car", "taxi", "bus", "police car", "ambulance", "fire engine", "truck", "tractor", "racing car",
    "motorcycle", "locomotive", "soccer ball", "basketball", "football", "butterfly",
)  # fmt: skip

HELD = (
    "rose", "tulip", "sunflower", "clover", "maple leaf", "red apple", "green apple", "pear", "banana",
    "strawberry", "carrot", "pineapple", "croissant", "pretzel", "hamburger", "pizza", "sandwich", "taco",
    "ice cream", "doughnut", "cookie", "birthday cake", "chocolate bar", "candy", "lollipop", "honey pot",
    "microphone", "teddy bear", "balloon", "kite", "yo-yo", "soccer ball", "basketball", "football",
    "tennis ball", "umbrella", "key", "lock", "light bulb", "candle", "camera", "book", "pencil",
    "scissors", "hammer", "bomb", "gift", "trophy", "bell", "alarm clock", "hourglass", "backpack",
    "ring", "gem", "magnet", "teacup", "beer mug", "wine glass", "cocktail", "star", "egg",
    "puzzle piece", "die",
)  # fmt: skip
HELD_HIGH = frozenset({"balloon", "kite", "umbrella", "lollipop", "candle", "sunflower", "rose", "tulip"})
"""Held by the lower end."""

# Large enough in life that something can stand before them.
BACKDROPS = (
    "house", "castle", "factory", "tent", "church", "hospital", "ferris wheel", "volcano", "tree",
    "pine tree", "palm tree", "cactus", "car", "taxi", "bus", "trolleybus", "police car", "ambulance",
    "fire engine", "truck", "tractor", "locomotive", "train", "airplane", "rocket", "ship", "sailboat",
    "elephant", "giraffe", "camel", "dinosaur", "dragon", "horse", "cow", "gorilla", "bear", "lion",
    "rainbow", "sun", "moon", "earth", "television", "piano", "bathtub", "snowman", "robot",
)  # fmt: skip

# Known by the outline alone.
KNOWN_BY_OUTLINE = (
    "dog", "cat", "tiger", "rabbit", "mouse", "horse", "unicorn", "zebra", "giraffe", "elephant",
    "rhinoceros", "camel", "llama", "cow", "pig", "goat", "deer", "monkey", "gorilla", "kangaroo",
    "hedgehog", "squirrel", "bat", "rooster", "duck", "swan", "eagle", "parrot", "flamingo", "penguin",
    "turtle", "snake", "dragon", "dinosaur", "whale", "dolphin", "fish", "shark", "octopus", "squid",
    "crab", "lobster", "snail", "butterfly", "ant", "scorpion", "poodle", "rose", "tulip", "sunflower",
    "cactus", "palm tree", "pine tree", "tree", "mushroom", "clover", "maple leaf", "red apple", "pear",
    "banana", "cherries", "pineapple", "carrot", "pepper", "ice cream", "croissant", "car", "tractor",
    "motorcycle", "scooter", "bicycle", "skateboard", "roller skate", "locomotive", "helicopter",
    "airplane", "rocket", "flying saucer", "sailboat", "ship", "trumpet", "guitar", "violin", "saxophone",
    "teddy bear", "balloon", "kite", "ghost", "snowman", "crown", "top hat", "glasses", "umbrella", "key",
    "lock", "light bulb", "telephone", "scissors", "hammer", "bomb", "trophy", "bell", "dress", "t-shirt",
    "boot", "high heel", "ring", "telescope", "microscope", "chair", "teacup", "wine glass", "cocktail",
    "star", "cloud", "lightning", "snowflake", "planet", "house", "castle", "church", "ferris wheel",
    "puzzle piece",
)  # fmt: skip


@cache
def of_group(*groups: str) -> tuple[str, ...]:
    """Names of the concepts of these groups, in the order of the table."""
    return tuple(c.name for c in all_concepts().values() if c.group in groups)


@cache
def subjects() -> tuple[str, ...]:
    """Who can play, ride and hold: all animals, and the toys that have a face."""
    return (*of_group("animal"), *TOYS_WITH_FACE)


@cache
def instruments() -> tuple[str, ...]:
    """What can be played; one only speaks into a microphone."""
    return tuple(name for name in of_group("instrument") if name != "microphone")


@cache
def chased() -> tuple[str, ...]:
    """What can be chased."""
    return (*CHASERS, *CHASED_BESIDES)


@cache
def standing() -> tuple[str, ...]:
    """What can stand on something: everything but what hangs in the sky."""
    return tuple(name for name in all_concepts() if all_concepts()[name].group not in ("sky", "building"))
