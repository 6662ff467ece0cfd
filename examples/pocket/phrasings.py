"""Owns the captions: many phrasings of a plan, and the plainest one, for questions."""

from __future__ import annotations

import random
from collections.abc import Sequence

from backgrounds import CONTENT
from plans import ALWAYS_TINTED, Part, Plan
from visibility import NEUTRAL
from words import NO_ARTICLE, choose_word, main_word, plural, with_article

Words = Sequence[str]
"""The word chosen for each part of a plan: its name or a synonym."""

NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}
SIZE_WORDS = {"big": ("big", "large", "huge"), "small": ("small", "little"), "tiny": ("tiny",)}

# The first phrasing of each is the plainest one: the evaluation asks with it.
RELATIONS: dict[str, tuple[str, ...]] = {
    "left of": (
        "{a} to the left of {b}", "{a} left of {b}", "{a} on the left of {b}",
        "on the left {a}, on the right {b}", "{a} on the left and {b} on the right",
    ),
    "right of": (
        "{a} to the right of {b}", "{a} right of {b}", "{a} on the right of {b}",
        "on the right {a}, on the left {b}", "{a} on the right and {b} on the left",
    ),
    "above": (
        "{a} above {b}", "{a} over {b}", "{a} at the top and {b} at the bottom",
        "at the top {a}, below it {b}",
    ),
    "below": ("{a} below {b}", "{a} under {b}", "{a} underneath {b}", "{a} at the bottom and {b} at the top"),
    "and": ("{a} and {b}", "{a} together with {b}"),
    "next to": ("{a} next to {b}", "{a} beside {b}", "{a} and {b} side by side"),
    "in front of": ("{a} in front of {b}", "{a} standing in front of {b}"),
    "on top of": ("{a} on top of {b}", "{a} standing on {b}", "{a} standing on top of {b}"),
    "between": ("{a} between {b} and {c}", "{a} in between {b} and {c}"),
    "playing": ("{a} playing {b}", "{a} plays {the_b}", "{a} playing {the_b}", "{a} who plays {b}"),
    "riding": ("{a} riding {b}", "{a} riding on {b}", "{a} rides {b}", "{a} on {b}"),
    "wearing": ("{a} wearing {b}", "{a} wears {b}", "{a} in {b}", "{a} who wears {b}"),
    "holding": ("{a} holding {b}", "{a} holds {b}", "{a} carrying {b}"),
    "chasing": ("{a} chasing {b}", "{a} chases {b}", "{a} running after {b}"),
}  # fmt: skip

PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("{a} on the left", "{a} on the left side", "on the left {a}"),
    "right": ("{a} on the right", "{a} on the right side", "on the right {a}"),
    "top": ("{a} at the top", "at the top {a}"),
    "bottom": ("{a} at the bottom", "at the bottom {a}"),
    "middle": ("{a} in the middle", "{a} in the centre", "in the middle {a}"),
}
CORNER_PHRASES = ("{a} at the {corner}", "{a} in the {corner} corner", "at the {corner} {a}")

FLAT_PHRASES = (" on a{n} {c} background", ", {c} background", " on {c}", " against a{n} {c} background")
CONTENT_PHRASES: dict[str, tuple[str, ...]] = {
    "sky": (" in the sky", " high in the sky", " against the sky", ", sky background"),
    "night": (" at night", " in the night", " on a starry night", ", night background"),
    "beach": (" on the beach", " at the beach", " by the sea", ", beach background"),
    "forest": (" in the forest", " in a forest", " in the woods", ", forest background"),
    "city": (" in the city", " in a city", " in town", ", city background"),
    "desert": (" in the desert", " in a desert", " among sand dunes", ", desert background"),
    "space": (" in space", " in outer space", ", space background"),
    "underwater": (" underwater", " under water", " deep in the sea", ", underwater background"),
}
GRAY_SPELLINGS = ("gray", "grey")

STYLE_PHRASES: dict[str, tuple[str, ...]] = {
    "pixel art": (
        "pixel art of {s}", "{s}, pixel art", "a pixel art picture of {s}", "{s} in pixel art style",
    ),
    "sketch": ("a sketch of {s}", "a pencil sketch of {s}", "{s}, sketch", "a pencil drawing of {s}"),
    "silhouette": ("a silhouette of {s}", "the silhouette of {s}", "{s}, silhouette", "{s} in silhouette"),
    "black and white": (
        "a black and white picture of {s}", "{s} in black and white", "{s}, black and white",
        "a black and white photo of {s}",
    ),
    "watercolour": (
        "a watercolour painting of {s}", "a watercolor painting of {s}", "{s}, watercolour",
        "a watercolor of {s}",
    ),
    "neon": ("a neon sign of {s}", "{s} in neon", "{s}, neon lights", "a glowing neon sign of {s}"),
}  # fmt: skip

OPENINGS = ("a picture of ", "an image of ", "a photo of ", "an illustration of ")

# Shares of captions.
PLAIN = 0.5  # in the plainest words
FLAT_NAMED, CONTENT_NAMED = 0.70, 0.95  # name the background; a caption that names none means a flat one
NEUTRAL_NAMED = 0.25  # of the neutral ones behind things in colours of their own; others always are
BACKGROUND_FIRST = 0.08
OPENED = 0.2
DIGITS = 0.15  # write 3 for three


def noun(part: Part, word: str, size_word: str | None = None, number: str | None = None) -> str:
    """Write one part: 'a dog', 'a big blue car', 'three small balloons'.

    Args:
        part: What it is.
        word: What it is called.
        size_word: A word for its size; None for the plainest.
        number: A word for its count; None for the plainest.
    """
    adjectives = [size_word or part.size, part.colour]
    words = " ".join(adjective for adjective in adjectives if adjective)
    if part.count > 1:
        return " ".join(filter(None, (number or NUMBER_WORDS[part.count], words, plural(word))))
    if not words:
        return with_article(word)
    return f"{words} {word}" if word in NO_ARTICLE else with_article(f"{words} {word}")


def _core(plan: Plan, nouns: Sequence[str], words: Words, form: int) -> str:
    """The caption without background and style."""
    if plan.place is not None:
        forms = PLACE_PHRASES.get(plan.place, CORNER_PHRASES)
        return forms[form % len(forms)].format(a=nouns[0], corner=plan.place)
    saying = plan.verb or plan.relation
    if saying is None:
        return nouns[0]
    names = dict(zip("abc", nouns, strict=False))
    bare = " ".join(filter(None, (plan.parts[-1].colour, words[-1])))
    return RELATIONS[saying][form % len(RELATIONS[saying])].format(**names, the_b=f"the {bare}")


def _says_background(plan: Plan, rng: random.Random) -> bool:
    if plan.kind in ALWAYS_TINTED:
        return plan.background not in NEUTRAL or rng.random() < NEUTRAL_NAMED
    return rng.random() < (CONTENT_NAMED if plan.background in CONTENT else FLAT_NAMED)


def _background(name: str, form: int, spelling: str) -> str:
    if name in CONTENT:
        return CONTENT_PHRASES[name][form % len(CONTENT_PHRASES[name])]
    return FLAT_PHRASES[form % len(FLAT_PHRASES)].format(n="n" if name[0] == "o" else "", c=spelling)


def plain_caption(plan: Plan, names_background: bool = True) -> str:
    """Write a caption in the plainest words: what the evaluation asks with.

    Args:
        plan: What the scene shows.
        names_background: Whether to name the background.

    Returns:
        Lower-case caption without a full stop.
    """
    words = [main_word(part.concept) for part in plan.parts]
    text = _core(plan, [noun(part, word) for part, word in zip(plan.parts, words, strict=True)], words, 0)
    if names_background:
        text += _background(plan.background, 0, plan.background)
    return STYLE_PHRASES[plan.style][0].format(s=text) if plan.style else text


def caption(plan: Plan, rng: random.Random) -> str:
    """Write a caption for a plan in one of many phrasings, with or without the background.

    Args:
        plan: What the scene shows.
        rng: Source of every choice.

    Returns:
        Lower-case caption of at most 24 words. Style, colours of things, counts, sizes and places are always
        named.
    """
    plain = rng.random() < PLAIN
    words = [choose_word(part.concept, rng) for part in plan.parts]
    nouns = []
    for part, word in zip(plan.parts, words, strict=True):
        size_word = None if plain or part.size is None else rng.choice(SIZE_WORDS[part.size])
        number = str(part.count) if rng.random() < DIGITS else None
        nouns.append(noun(part, word, size_word, number))

    def form() -> int:
        return 0 if plain else rng.randrange(60)  # divisible by the number of phrasings

    text = _core(plan, nouns, words, form())
    starts_bare = text.startswith(("on ", "at ", "in "))
    if _says_background(plan, rng):
        spelling = rng.choice(GRAY_SPELLINGS) if plan.background == "gray" else plan.background
        behind = _background(plan.background, form(), spelling)
        if rng.random() < BACKGROUND_FIRST and behind[0] == " " and not starts_bare and plan.style is None:
            return f"{behind[1:]}, {text}"
        text += behind
    if plan.style is not None:
        forms = STYLE_PHRASES[plan.style]
        if starts_bare:
            forms = tuple(phrase for phrase in forms if phrase.startswith("{s}"))
        return forms[form() % len(forms)].format(s=text)
    if rng.random() < OPENED and not starts_bare:
        return rng.choice(OPENINGS) + text
    return text
