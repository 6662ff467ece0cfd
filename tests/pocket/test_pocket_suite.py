"""What `t2i eval` takes from the example: its data files are what the script writes, and held out."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
import suite
from composing import draw_allowed_plan
from glyphs import all_concepts
from holdout import held_out, is_held_out
from mixtures import MIXTURES
from phrasings import caption
from words import plural

from t2i.evaluation.questions import CATEGORIES, by_prompt, read_questions, understand
from t2i.evaluation.vocabulary import PLACES, read_vocabulary


def test_the_files_in_the_package_are_what_the_script_writes() -> None:
    for path, text in suite.files().items():
        assert path.read_text(encoding="utf-8") == text, path.name


@pytest.mark.parametrize(
    ("word", "many"),
    [
        ("fox", "foxes"),
        ("mouse", "mice"),
        ("cherry", "cherries"),
        ("ice cream", "ice creams"),
        ("bus", "buses"),
    ],
)
def test_plurals(word: str, many: str) -> None:
    assert plural(word) == many


def test_captions_are_understood_as_their_scenes_or_not_at_all() -> None:
    rng, words, understood = random.Random(5), read_vocabulary(), Counter[str]()
    for _ in range(6000):
        plan = draw_allowed_plan(rng, MIXTURES["pocket"], allow_held_out=True)
        text = caption(plan, rng)
        meaning = words.understand(text)
        if meaning is None:
            continue
        understood[plan.kind] += 1
        assert meaning.things == plan.concepts, text
        assert meaning.relation == (plan.relation if plan.relation in PLACES else None), text
        assert meaning.background in (None, plan.background), text
        assert meaning.count == (plan.parts[0].count if plan.kind == "counted" else None), text
        assert meaning.colours in ((), tuple(part.colour for part in plan.parts)), text
        assert all(part.size is None for part in plan.parts) and plan.style is None, text
    assert {"single", "pair", "counted", "coloured pair", "playing", "riding"} <= set(understood)
    assert sum(understood.values()) > 2000


def test_colours_in_the_names_of_things_are_no_colours_of_things() -> None:
    few = frozenset({"red apple", "green apple", "orange", "car", "dog", "frog", "rose", "cat"})
    rng, words, understood = random.Random(6), read_vocabulary(), Counter[str]()
    for _ in range(4000):
        plan = draw_allowed_plan(rng, replace(MIXTURES["pocket"], concepts=few), allow_held_out=True)
        meaning = words.understand(caption(plan, rng))
        if meaning is not None:
            understood[plan.kind] += 1
            assert meaning.things == plan.concepts
            assert meaning.colours in ((), tuple(part.colour for part in plan.parts))
    assert understood["pair"] > 300 and understood["coloured pair"] > 50


def test_every_prompt_of_the_suite_is_understood_as_it_is_annotated() -> None:
    for question in read_questions("pocket"):
        bare = understand(question.prompt)
        assert question in [replace(other, category=question.category) for other in bare], question
        if question.category != "colours":
            assert [other.category for other in bare] == [question.category], question


def test_a_suite_of_the_ten_things_is_asked_in_the_words_that_they_were_learnt_in() -> None:
    questions = suite.questions_of_ten()
    assert {q.things[0] for q in questions} == set(MIXTURES["quick"].concepts)
    assert len({q.prompt for q in questions}) == len(questions) / 2 > 30
    rng, captions = random.Random(1), set[str]()
    for _ in range(12000):
        captions.add(caption(draw_allowed_plan(rng, MIXTURES["quick"], allow_held_out=True), rng))
    assert {q.prompt for q in questions} <= captions


def test_the_suite_asks_for_every_held_out_combination_once() -> None:
    questions = read_questions("pocket")
    assert Counter(q.category for q in questions) == dict.fromkeys(CATEGORIES, 100)
    assert [q.category for q in questions[:6]] == list(CATEGORIES)
    assert len(by_prompt(questions)) == 600
    of = {name: [q for q in questions if q.category == name] for name in CATEGORIES}
    held = held_out()
    assert tuple((*q.things, q.background) for q in of["single object"]) == held.single_object
    assert tuple(q.things for q in of["two objects"]) == held.two_objects
    assert tuple((*q.things, q.count) for q in of["counting"]) == held.counting
    assert tuple((*q.things, q.background) for q in of["colours"]) == held.colours
    assert tuple((q.things[0], q.relation, q.things[1]) for q in of["position"]) == held.position
    assert (
        tuple(tuple(zip(q.things, q.colours, strict=True)) for q in of["attribute binding"])
        == held.attribute_binding
    )


def test_every_scene_that_is_asked_for_is_held_out_and_the_others_are_not() -> None:
    assert all(map(is_held_out, suite.held_out_plans()))
    rng = random.Random(2)
    prompts = {q.prompt for q in read_questions("pocket")}
    for _ in range(1500):
        plan = draw_allowed_plan(rng, MIXTURES["pocket"])
        if suite.category_of(plan):
            assert suite.question_of(plan).prompt not in prompts, plan


def test_the_vocabulary_names_every_class() -> None:
    words = read_vocabulary()
    assert list(words.concepts) == list(all_concepts())
    assert (len(words.backgrounds), len(words.colours), len(words.styles)) == (20, 10, 6)
    assert words.understand("a stack of books on a red background").things == ("books",)
