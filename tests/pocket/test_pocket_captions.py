"""Captions say what the scene shows, in good English, and can be read back."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from captions import BACKGROUNDS, SYNONYMS, caption, choose_word, phrase, read_caption, with_article
from glyphs import core_concepts
from scenes import draw_allowed_plan


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("dog", "a dog"),
        ("owl", "an owl"),
        ("alarm clock", "an alarm clock"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("ufo", "a ufo"),
        ("grapes", "grapes"),
        ("earth", "the earth"),
    ],
)
def test_article(word: str, written: str) -> None:
    assert with_article(word) == written


@pytest.mark.parametrize(
    ("words", "relation", "background", "written"),
    [
        (("dog",), None, "red", "a dog on a red background"),
        (("dog",), None, "orange", "a dog on an orange background"),
        (("owl",), None, None, "an owl"),
        (("dog", "cat"), "left of", "blue", "a dog to the left of a cat on a blue background"),
        (("corgi", "trumpet"), "playing", None, "a corgi playing a trumpet"),
        (("bear", "bicycle"), "riding", None, "a bear riding a bicycle"),
    ],
)
def test_plainest_phrasing(
    words: tuple[str, ...], relation: str | None, background: str | None, written: str
) -> None:
    assert phrase(words, relation, background) == written


def test_no_word_names_two_concepts() -> None:
    words = [*core_concepts(), *(word for synonyms in SYNONYMS.values() for word in synonyms)]
    assert [word for word, count in Counter(words).items() if count > 1] == []
    assert set(SYNONYMS) <= set(core_concepts())


def test_captions_read_back_as_the_scene_they_tell_of() -> None:
    rng, without_colour = random.Random(1), 0
    for _ in range(4000):
        plan = draw_allowed_plan(rng, allow_held_out=True)
        text = caption(plan.concepts, plan.relation, plan.background, rng)
        concepts, colour = read_caption(text)
        assert concepts == plan.concepts, text
        assert colour in (None, plan.background), text
        assert text == text.lower() and len(text.split()) <= 22, text
        without_colour += colour is None
    assert 0.25 < without_colour / 4000 < 0.35


def test_a_quarter_of_mentions_use_a_synonym() -> None:
    rng = random.Random(2)
    words = Counter(choose_word("dog", rng) for _ in range(4000))
    assert 0.72 < words["dog"] / 4000 < 0.78
    assert set(words) == {"dog", *SYNONYMS["dog"]}
    assert choose_word("key", rng) == "key"


def test_there_are_at_least_ten_colours_far_apart() -> None:
    assert len(BACKGROUNDS) >= 10
    colours = list(BACKGROUNDS.values())
    nearest = min(
        sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5
        for i, a in enumerate(colours)
        for b in colours[:i]
    )
    assert nearest > 60  # of 255; the jitter is 4 per channel
