"""Captions say all that the plan says, in good English, in words that name one concept each."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from backgrounds import BACKGROUNDS, CONTENT
from composing import draw_allowed_plan
from glyphs import all_concepts
from mixtures import MIXTURES
from phrasings import (
    CONTENT_PHRASES,
    NUMBER_WORDS,
    RELATIONS,
    SIZE_WORDS,
    STYLE_PHRASES,
    caption,
    plain_caption,
)
from plans import RELATIONS as PLANNED
from plans import VERBS, Part, Plan
from styles import STYLES
from tints import TINTS
from words import MAIN_WORDS, SYNONYMS, concept_of_word, main_word, plural, with_article

POCKET = MIXTURES["pocket"]
WORDS: dict[str, list[str]] = {name: [] for name in all_concepts()}
for _word, _concept in concept_of_word().items():
    WORDS[_concept].append(_word)


@pytest.fixture(scope="module")
def captioned() -> list[tuple[Plan, str]]:
    rng = random.Random(8)
    plans = [draw_allowed_plan(rng, POCKET) for _ in range(2500)]
    return [(plan, caption(plan, rng)) for plan in plans]


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (Plan("single", (Part("dog"),), "red"), "a dog on a red background"),
        (Plan("single", (Part("owl", size="big"),), "orange"), "a big owl on an orange background"),
        (Plan("coloured", (Part("car", "orange"),), "city"), "an orange car in the city"),
        (Plan("placed", (Part("sun"),), "sky", place="left"), "a sun on the left in the sky"),
        (
            Plan("placed", (Part("sun"),), "white", place="bottom right"),
            "a sun at the bottom right on a white background",
        ),
        (Plan("counted", (Part("fox", size="tiny", count=3),), "beach"), "three tiny foxes on the beach"),
        (Plan("counted", (Part("car", "blue", count=5),), "night"), "five blue cars at night"),
        (
            Plan("pair", (Part("sun"), Part("skateboard")), "pink", "left of"),
            "a sun to the left of a skateboard on a pink background",
        ),
        (
            Plan("coloured pair", (Part("car", "red"), Part("bus", "blue")), "space", "and"),
            "a red car and a blue bus in space",
        ),
        (
            Plan("between", (Part("dog"), Part("car"), Part("tree")), "desert", "between"),
            "a dog between a car and a tree in the desert",
        ),
        (
            Plan("playing", (Part("dog"), Part("trumpet")), "forest", verb="playing"),
            "a dog playing a trumpet in the forest",
        ),
        (
            Plan("wearing", (Part("dragon", "red"), Part("crown")), "night", verb="wearing"),
            "a red dragon wearing a crown at night",
        ),
        (
            Plan("wearing", (Part("bear"), Part("glasses")), "underwater", verb="wearing", style="sketch"),
            "a sketch of a bear wearing glasses underwater",
        ),
    ],
)
def test_plainest_caption(plan: Plan, text: str) -> None:
    assert plain_caption(plan) == text


def test_the_background_can_be_left_out() -> None:
    plan = Plan("pair", (Part("books"), Part("earth")), "red", "above")
    assert plain_caption(plan, names_background=False) == "a stack of books above the earth"


def test_coloured_things_whose_background_is_left_open_stand_before_a_neutral_one() -> None:
    rng = random.Random(3)

    def leaves_it_open(background: str) -> int:
        plan = Plan("coloured pair", (Part("car", "blue"), Part("egg", "green")), background, "and")
        bare = Plan("pair", (Part("car"), Part("egg")), background, "and")
        assert any(background not in caption(bare, rng) for _ in range(40))
        return sum(background not in caption(plan, rng) for _ in range(40))

    assert [leaves_it_open(name) for name in ("red", "orange", "black")] == [0, 0, 0]
    assert 15 < leaves_it_open("white") < 40


def test_every_relation_verb_background_and_style_can_be_said() -> None:
    assert set(RELATIONS) == {*PLANNED, "in front of", "on top of", "between", *VERBS}
    assert set(CONTENT_PHRASES) == set(CONTENT) and set(STYLE_PHRASES) == set(STYLES)
    for forms in [*RELATIONS.values(), *CONTENT_PHRASES.values(), *STYLE_PHRASES.values()]:
        assert len(set(forms)) == len(forms) and 60 % len(forms) == 0


def test_no_word_names_two_concepts_and_none_has_a_colour_or_a_size() -> None:
    words = [*map(main_word, all_concepts()), *(word for others in SYNONYMS.values() for word in others)]
    assert [word for word, count in Counter(words).items() if count > 1] == []
    for word in words:
        if concept_of_word()[word] not in ("red apple", "green apple", "orange"):
            assert not set(word.split()) & {
                *TINTS,
                *BACKGROUNDS,
                "big",
                "large",
                "huge",
                "small",
                "little",
            }, word
    plurals = {plural(word) for word in words if concept_of_word()[word] not in MAIN_WORDS}
    clashes = [
        w for w in plurals if w in words and concept_of_word()[w] != concept_of_word().get(w.rstrip("s"), "")
    ]
    assert set(clashes) <= {"sheep", "fish", "deer", "shrimp"}


@pytest.mark.parametrize(
    ("word", "many"),
    [
        ("wolf", "wolves"), ("cup of tea", "cups of tea"), ("maple leaf", "maple leaves"), ("deer", "deer"),
        ("teddy", "teddies"), ("monkey", "monkeys"), ("octopus", "octopuses"), ("torch", "torches"),
    ],
)  # fmt: skip
def test_plurals(word: str, many: str) -> None:
    assert plural(word) == many


@pytest.mark.parametrize(
    ("word", "written"), [("ewe", "a ewe"), ("orange car", "an orange car"), ("corn", "corn")]
)
def test_articles(word: str, written: str) -> None:
    assert with_article(word) == written


def test_captions_name_everything(captioned: list[tuple[Plan, str]]) -> None:
    for plan, text in captioned:
        assert text == text.lower() and len(text.split()) <= 24 and "  " not in text, text
        for part in plan.parts:
            said = [word for word in WORDS[part.concept] if text_has(text, word)]
            assert said, (part, text)
            if part.colour:
                assert any(f"{part.colour} {word}" in text for word in said), (part, text)
            if part.count > 1:
                assert text_has(text, NUMBER_WORDS[part.count], str(part.count)), text
            if part.size:
                assert text_has(text, *SIZE_WORDS[part.size]), text
        if plan.style:
            assert any(all(bit in text for bit in form.split("{s}")) for form in STYLE_PHRASES[plan.style]), (
                text
            )
        if plan.place:
            assert plan.place in text or (plan.place == "middle" and "in the centre" in text), text


def text_has(text: str, *words: str) -> bool:
    padded = " " + text.replace(",", " ") + " "
    return any(f" {word} " in padded for word in words)


def test_first_named_first_written(captioned: list[tuple[Plan, str]]) -> None:
    for plan, text in captioned:
        if plan.kind in ("pair", "chasing", "riding", "between") and not any(p.colour for p in plan.parts):
            places = [_first_mention(part.concept, text) for part in plan.parts]
            assert places == sorted(places), text


def _first_mention(concept: str, text: str) -> int:
    bare = text.replace(",", " ").replace("orange background", "").replace("pencil sketch", "")
    padded = f" {bare} "  # neither the fruit nor the tool
    return min(padded.find(f" {word} ") for word in WORDS[concept] if f" {word} " in padded)


def test_shares_of_phrasings(captioned: list[tuple[Plan, str]]) -> None:
    flat = [(plan, text) for plan, text in captioned if plan.background not in CONTENT and plan.style is None]
    named = sum(any(text_has(t, c) for c in (p.background, "grey")) for p, t in flat) / len(flat)
    assert 0.65 < named < 0.80  # 0.70, and colours of things with the background's name
    content = [(plan, text) for plan, text in captioned if plan.background in CONTENT]
    said = sum(any(f.strip(", ") in t for f in CONTENT_PHRASES[p.background]) for p, t in content) / len(
        content
    )
    assert 0.92 < said < 0.98
    dogs = Counter(
        word
        for plan, text in captioned
        if "dog" in plan.concepts
        for word in ("dog", *SYNONYMS["dog"])
        if text_has(text, word)
    )
    assert dogs["dog"] > dogs["corgi"] > 0
    assert len({text for _, text in captioned}) > 2400
