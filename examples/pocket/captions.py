"""Owns the words of version 0: synonyms, articles, the phrasings of a scene; and reads captions back.

Knows nothing of pixels, fonts or positions.
"""

from __future__ import annotations

import random
import re
from functools import cache

from glyphs import core_concepts

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (214, 44, 44),
    "orange": (245, 140, 36),
    "yellow": (250, 224, 72),
    "green": (62, 160, 72),
    "blue": (44, 92, 214),
    "purple": (124, 62, 178),
    "pink": (250, 164, 204),
    "brown": (128, 80, 48),
    "white": (250, 250, 250),
    "black": (18, 18, 18),
    "gray": (140, 140, 140),
    "cyan": (84, 214, 226),
}
"""Name to red, green, blue in 0...255."""

# Other words for a concept. No word may name two concepts; a test holds this.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "dog": ("corgi", "puppy", "hound", "doggy"),
    "cat": ("kitten", "kitty", "tabby"),
    "tiger": ("bengal tiger",),
    "fox": ("red fox", "vixen"),
    "bear": ("grizzly", "brown bear", "grizzly bear"),
    "panda": ("panda bear", "giant panda"),
    "koala": ("koala bear",),
    "rabbit": ("bunny", "hare", "bunny rabbit"),
    "mouse": ("rat",),
    "horse": ("pony", "stallion", "mare"),
    "cow": ("calf", "dairy cow"),
    "pig": ("piglet", "hog"),
    "sheep": ("lamb", "ram"),
    "monkey": ("chimp", "ape"),
    "hedgehog": ("porcupine",),
    "chicken": ("hen",),
    "chick": ("baby bird", "baby chick"),
    "duck": ("mallard", "drake"),
    "parrot": ("macaw",),
    "frog": ("toad",),
    "turtle": ("tortoise",),
    "snake": ("serpent", "python"),
    "dinosaur": ("brontosaurus", "sauropod"),
    "dolphin": ("porpoise",),
    "octopus": ("kraken",),
    "butterfly": ("monarch butterfly",),
    "bee": ("honeybee", "bumblebee"),
    "ladybug": ("ladybird",),
    "rose": ("red rose",),
    "pine tree": ("evergreen", "fir", "fir tree"),
    "palm tree": ("palm", "coconut palm"),
    "tree": ("oak", "oak tree"),
    "mushroom": ("toadstool",),
    "red apple": ("apple",),
    "hamburger": ("burger", "cheeseburger"),
    "pizza": ("slice of pizza", "pizza slice"),
    "ice cream": ("ice cream cone", "soft serve"),
    "doughnut": ("donut",),
    "cookie": ("biscuit",),
    "birthday cake": ("cake",),
    "car": ("automobile", "sedan"),
    "bus": ("coach",),
    "fire engine": ("fire truck",),
    "bicycle": ("bike",),
    "train": ("railcar",),
    "locomotive": ("steam engine", "steam train"),
    "helicopter": ("chopper",),
    "rocket": ("spaceship", "rocket ship"),
    "flying saucer": ("ufo",),
    "sailboat": ("sailing boat", "yacht"),
    "ship": ("steamship", "cruise ship"),
    "trumpet": ("horn", "cornet"),
    "guitar": ("electric guitar",),
    "violin": ("fiddle",),
    "saxophone": ("sax",),
    "drum": ("snare drum",),
    "piano": ("keyboard",),
    "teddy bear": ("teddy", "stuffed bear"),
    "soccer ball": ("football",),
    "robot": ("android",),
    "ghost": ("spook", "phantom"),
    "pumpkin": ("jack-o-lantern",),
    "umbrella": ("parasol",),
    "light bulb": ("lightbulb", "lamp"),
    "book": ("red book",),
    "gift": ("present",),
    "trophy": ("cup", "golden cup"),
    "alarm clock": ("clock",),
    "t-shirt": ("shirt", "tee"),
    "gem": ("diamond", "jewel"),
    "fire": ("flame",),
    "moon": ("crescent moon",),
    "lightning": ("lightning bolt",),
    "earth": ("globe",),
    "planet": ("saturn",),
    "castle": ("fortress",),
    "house": ("cottage",),
}
SYNONYM_RATE = 0.25  # share of mentions of a concept with synonyms that use one
COLOUR_RATE = 0.70  # share of captions that name the background

NO_ARTICLE = {"grapes", "glasses", "fire", "lightning", "saturn", "soft serve"}
ALWAYS_THE = {"earth"}

RELATIONS: dict[str, tuple[str, ...]] = {
    # The first phrasing is the plainest one: the evaluation asks with it.
    "left of": ("{a} to the left of {b}", "{a} left of {b}", "{a} on the left of {b}"),
    "right of": ("{a} to the right of {b}", "{a} right of {b}", "{a} on the right of {b}"),
    "above": ("{a} above {b}", "{a} over {b}"),
    "below": ("{a} below {b}", "{a} under {b}"),
    "and": ("{a} and {b}", "{a} next to {b}", "{a} beside {b}"),
    "playing": ("{a} playing {b}", "{a} plays the {bare_b}", "{a} playing the {bare_b}", "{a} who plays {b}"),
    "riding": ("{a} riding {b}", "{a} on {b}", "{a} riding on {b}", "{a} rides {b}"),
}
COLOUR_PHRASES = (" on a{n} {c} background", ", {c} background", " on {c}", " against a{n} {c} background")
OPENINGS = ("a picture of ", "an image of ", "a photo of ", "a drawing of ")
GRAY_SPELLINGS = ("gray", "grey")

Words = tuple[str, ...]
"""The word chosen for each concept of a scene: its name or a synonym."""


def with_article(word: str) -> str:
    """Put the right article in front: 'a dog', 'an owl', 'grapes', 'the earth', 'a ufo'."""
    if word in NO_ARTICLE:
        return word
    if word in ALWAYS_THE:
        return f"the {word}"
    vowel_sound = word[0] in "aeiou" and not word.startswith(("unicorn", "ufo"))
    return f"an {word}" if vowel_sound else f"a {word}"


def choose_word(concept: str, rng: random.Random) -> str:
    """Choose how to call a concept; the first synonym is twice as likely as each other one."""
    synonyms = SYNONYMS.get(concept, ())
    if not synonyms or rng.random() >= SYNONYM_RATE:
        return concept
    return rng.choice((synonyms[0], *synonyms))


def phrase(
    words: Words, relation: str | None, background: str | None, form: int = 0, colour_form: int = 0
) -> str:
    """Write one caption.

    Args:
        words: One or two nouns without article.
        relation: A key of `RELATIONS`, or None for one noun.
        background: A colour name, or None to leave the colour out.
        form: Which phrasing of the relation; for one noun 1 leaves out the article ('dog on red').
        colour_form: Which of `COLOUR_PHRASES`.

    Returns:
        Lower-case caption without a full stop.
    """
    if relation is None:
        subject = words[0] if form else with_article(words[0])
    else:
        a, b = words
        subject = RELATIONS[relation][form].format(a=with_article(a), b=with_article(b), bare_b=b)
    if background is None:
        return subject
    article = "n" if background[0] == "o" else ""
    return subject + COLOUR_PHRASES[colour_form].format(n=article, c=background)


def caption(concepts: tuple[str, ...], relation: str | None, background: str, rng: random.Random) -> str:
    """Write a caption for a scene in one of many phrasings, with or without the colour.

    Args:
        concepts: One or two concept names, in the order in which the caption names them.
        relation: A key of `RELATIONS`, or None for one concept.
        background: A key of `BACKGROUNDS`.
        rng: Source of every choice.

    Returns:
        Lower-case caption of at most 22 words.
    """
    words = tuple(choose_word(concept, rng) for concept in concepts)
    colour = None
    if rng.random() < COLOUR_RATE:
        colour = rng.choice(GRAY_SPELLINGS) if background == "gray" else background
    plain = rng.random() < 0.5  # half of all captions use the plainest words
    if relation is None:
        form = int(not plain and rng.random() < 0.3)
    else:
        form = 0 if plain else rng.randrange(len(RELATIONS[relation]))
    colour_form = 0 if plain else rng.randrange(len(COLOUR_PHRASES))
    opening = rng.choice(OPENINGS) if form == 0 and rng.random() < 0.2 else ""
    return opening + phrase(words, relation, colour, form, colour_form)


@cache
def _concept_of_word() -> dict[str, str]:
    table = {name: name for name in core_concepts()}
    for concept, synonyms in SYNONYMS.items():
        table.update(dict.fromkeys(synonyms, concept))
    return table


@cache
def _word_pattern() -> re.Pattern[str]:
    # Longest first, so that 'pine tree' is not read as 'tree'.
    words = sorted(_concept_of_word(), key=len, reverse=True)
    return re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, words)) + r")(?![\w-])")


def read_caption(text: str) -> tuple[tuple[str, ...], str | None]:
    """Read a caption back, so that held-out combinations can be checked in the words themselves.

    Args:
        text: A caption as `caption` writes it.

    Returns:
        Concept names in the order of the words, and the background's colour or None.
    """
    colours = "|".join((*BACKGROUNDS, "grey"))
    found = re.search(rf"(?:,| on| against)(?: an?)? ({colours})(?: background)?$", text)
    colour = None
    if found:
        text, colour = text[: found.start()], found.group(1).replace("grey", "gray")
    return tuple(_concept_of_word()[word] for word in _word_pattern().findall(text)), colour
