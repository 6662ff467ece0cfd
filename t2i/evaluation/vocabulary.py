"""The words that the recogniser knows, and reading a prompt that is made of them and of nothing else.

Standard library only. A prompt with any other word in it ("a dog without a hat") is not understood rather
than half understood: what it asks for cannot be checked.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from t2i.catalog import ASSETS

JUDGE = "recogniser"
"""Folder of the recogniser in use: "recogniser" is version 0, "recogniser-v1" version 1."""

VOCABULARY_FILE = ASSETS / JUDGE / "vocabulary.json"

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

OPENING = r"(?:an? (?:picture|image|photo|drawing) of )?"
ARTICLE = r"(?:an? |the )?"


@dataclass(frozen=True)
class Meaning:
    """What a prompt asks for.

    Attributes:
        things: One or two concept names, in the order of the words.
        relation: How the first stands to the second (a key of `PLACES`), or None.
        background: A colour name, or None.
    """

    things: tuple[str, ...]
    relation: str | None = None
    background: str | None = None


@dataclass(frozen=True)
class Vocabulary:
    """What the classes of a recogniser are called, all in class order.

    Attributes:
        concepts: Concept name → its other words.
        backgrounds: Names of the backgrounds; in version 0 all of them are colours.
        colours: Colours that things can be given; version 0 knows none.
        styles: Names of the styles; version 0 knows none.
        version: Of the recogniser.
    """

    concepts: dict[str, tuple[str, ...]]
    backgrounds: tuple[str, ...]
    colours: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    version: int = 0

    def understand(self, prompt: str) -> Meaning | None:
        """What a prompt asks for, or None if any part of it is not in this vocabulary."""
        text = " ".join(prompt.lower().replace("grey", "gray").split()).strip(" .")
        found = self._prompt.fullmatch(text)
        if found is None:
            return None
        words = [found[name] for name in ("first", "second") if found[name] is not None]
        said = found["relation"]
        relation = next((name for name, phrases in PLACES.items() if said in phrases), None)
        return Meaning(
            tuple(self._concept_of[word] for word in words),
            relation,
            found["colour"] or found["bare_colour"],
        )

    @cached_property
    def _concept_of(self) -> dict[str, str]:
        return {word: name for name, others in self.concepts.items() for word in (name, *others)}

    @cached_property
    def _prompt(self) -> re.Pattern[str]:
        def any_of(words: list[str]) -> str:  # longest first, so that "pine tree" is not read as "pine"
            return "(?:" + "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + ")"

        thing = any_of(list(self._concept_of))
        relation = any_of([*TOGETHER, *(phrase for phrases in PLACES.values() for phrase in phrases)])
        colour = any_of(list(self.backgrounds))
        return re.compile(
            rf"{OPENING}{ARTICLE}(?P<first>{thing})"
            rf"(?: (?P<relation>{relation}) {ARTICLE}(?P<second>{thing}))??"  # lazy: "on orange" is a colour
            rf"(?:(?:,| on| against)(?: an?)? (?P<colour>{colour}) background| on (?P<bare_colour>{colour}))?"
        )


@cache
def read_vocabulary(path: Path = VOCABULARY_FILE) -> Vocabulary:
    """The vocabulary beside the recogniser's weights."""
    values = json.loads(path.read_text(encoding="utf-8"))
    concepts = {name: tuple(others) for name, others in values["concepts"].items()}
    return Vocabulary(
        concepts,
        tuple(values["backgrounds"]),
        tuple(values.get("colours", ())),
        tuple(values.get("styles", ())),
        values.get("version", 0),
    )
