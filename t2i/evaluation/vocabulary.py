"""The words that the recogniser knows, and reading a prompt that is made of them and of nothing else.

Standard library only. A prompt with any other word in it ("a dog without a hat") is not understood rather
than half understood: what it asks for cannot be checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from t2i.catalog import ASSETS

VOCABULARY_FILE = ASSETS / "recogniser" / "vocabulary.json"

PLACES: dict[str, tuple[str, ...]] = {
    "left of": ("to the left of", "on the left of", "left of"),
    "right of": ("to the right of", "on the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
"""Relation that can be checked → how prompts say it."""

TOGETHER = (
    "and", "next to", "beside", "playing", "plays", "playing the", "plays the", "who plays",
    "riding", "riding on", "rides", "on",
)  # fmt: skip
"""What joins two things of which only their presence can be checked."""

OPENING = r"(?:an? (?:picture|image|photo|drawing|illustration) of )?"
ARTICLE = r"(?:an? |the )?"
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "2": 2, "3": 3, "4": 4, "5": 5}


@dataclass(frozen=True)
class Meaning:
    """What a prompt asks for.

    Attributes:
        things: One or two concept names, in the order of the words.
        relation: How the first stands to the second (a key of `PLACES`), or None.
        background: Its name, or None.
        count: How many of one thing; None where no number is named.
        colours: The colours of both things, or nothing.
    """

    things: tuple[str, ...]
    relation: str | None = None
    background: str | None = None
    count: int | None = None
    colours: tuple[str, ...] = ()


@dataclass(frozen=True)
class Vocabulary:
    """What the classes of a recogniser are called, all in class order.

    Attributes:
        concepts: Concept name → its other words.
        plurals: Concept name → the words for several of it; none for what is not counted.
        backgrounds: Background → how prompts name it ("on the beach"); nothing for a flat colour.
        colours: Colours that things can be given.
        styles: Names of the styles.
        natural: Concept name → the colour that it has where it has been given none, as a rose is red.
    """

    concepts: dict[str, tuple[str, ...]]
    plurals: dict[str, tuple[str, ...]]
    backgrounds: dict[str, tuple[str, ...]]
    colours: tuple[str, ...]
    styles: tuple[str, ...]
    natural: dict[str, str]

    @property
    def places(self) -> tuple[str, ...]:
        """Backgrounds that are no flat colours."""
        return tuple(name for name, phrases in self.backgrounds.items() if phrases)

    def understand(self, prompt: str) -> Meaning | None:
        """What a prompt asks for, or None if any part of it is not in these words or cannot be checked.

        Of a verb ("riding"), and of "next to" and "on", only that both things are there is checked.
        """
        text = " ".join(prompt.lower().replace("grey", "gray").split()).strip(" .")
        found = self._prompt.fullmatch(text)
        if found is None:
            return None
        words = [found[name] for name in ("first", "second") if found[name] is not None]
        things = tuple(self._concept_of[word] for word in words) or (self._several[found["many"]],)
        colours = tuple(found[name] for name in ("first_colour", "second_colour") if found[name] is not None)
        if len(set(things)) < len(things):
            return None  # one thing twice is a number
        if colours and any(word.split()[0] in self.colours for word in words):
            return None  # a blue red apple has no colour that could be told
        said = found["relation"]
        relation = next((name for name, phrases in PLACES.items() if said in phrases), None)
        if colours and (len(colours) != len(words) or len(words) != 2 or relation is not None):
            return None  # no category asks for the colour of one thing, or for colours and places at once
        return Meaning(
            things,
            relation,
            found["colour"] or found["bare_colour"] or self._place_of.get(found["place"]),
            NUMBERS.get(found["number"]),
            colours,
        )

    @cached_property
    def _concept_of(self) -> dict[str, str]:
        return {word: name for name, others in self.concepts.items() for word in (name, *others)}

    @cached_property
    def _several(self) -> dict[str, str]:
        return {word: name for name, many in self.plurals.items() for word in many}

    @cached_property
    def _place_of(self) -> dict[str, str]:
        return {phrase: name for name, phrases in self.backgrounds.items() for phrase in phrases}

    @cached_property
    def _prompt(self) -> re.Pattern[str]:
        def any_of(words: Iterable[str]) -> str:  # longest first, so that "pine tree" is not read as "pine"
            return "(?:" + "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + ")"

        one = self._concept_of
        thing = any_of(word for word in one if self._several.get(word, one[word]) == one[word])  # not "books"
        several = any_of(self._several)
        relation = any_of([*TOGETHER, *(phrase for phrases in PLACES.values() for phrase in phrases)])
        tint, place = any_of(self.colours), any_of(self._place_of)
        colour = any_of(name for name, phrases in self.backgrounds.items() if not phrases)
        return re.compile(
            rf"{OPENING}(?:{ARTICLE}(?:(?P<first_colour>{tint}) )??(?P<first>{thing})"
            # lazy: "on orange" is a colour, and a red apple a thing
            rf"(?: (?P<relation>{relation}) {ARTICLE}(?:(?P<second_colour>{tint}) )??(?P<second>{thing}))??"
            rf"|(?P<number>{any_of(NUMBERS)}) (?P<many>{several}))"
            rf"(?:(?:,| on| against)(?: an?)? (?P<colour>{colour}) background| on (?P<bare_colour>{colour})"
            rf"|,? (?P<place>{place}))?"
        )


@cache
def read_vocabulary(path: Path = VOCABULARY_FILE) -> Vocabulary:
    """The vocabulary beside the recogniser's weights."""
    values = json.loads(path.read_text(encoding="utf-8"))

    def words(name: str) -> dict[str, tuple[str, ...]]:
        return {key: tuple(others) for key, others in values[name].items()}

    return Vocabulary(
        words("concepts"),
        words("plurals"),
        words("backgrounds"),
        tuple(values["colours"]),
        tuple(values["styles"]),
        values["natural"],
    )
