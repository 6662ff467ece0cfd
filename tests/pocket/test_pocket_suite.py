"""What `t2i eval` takes from the example: its two data files are what the script writes, and held out."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import suite
from captions import caption
from composing import draw_allowed_plan as draw_allowed_plan_v1
from glyphs import all_concepts
from holdout import held_out_v1, is_held_out, is_plan_held_out
from mixtures import MIXTURES
from scenes import draw_allowed_plan

from t2i.evaluation.questions import CATEGORIES, by_prompt, read_questions
from t2i.evaluation.vocabulary import PLACES, read_vocabulary


def test_the_files_in_the_package_are_what_the_script_writes() -> None:
    for path, text in suite.files().items():
        assert path.read_text(encoding="utf-8") == text, path.name


def test_nothing_that_is_asked_was_ever_rendered() -> None:
    for question in read_questions("pocket"):
        if question.category == "single object":
            colour = question.prompt.split(" on a")[1].removeprefix("n").strip().removesuffix(" background")
            assert is_held_out(question.things, colour), question
        elif question.category not in ("counting", "attribute binding"):
            assert is_held_out(question.things, question.background), question


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
    assert suite.plural(word) == many


def test_every_caption_of_the_training_pictures_is_understood_as_its_scene() -> None:
    rng, words = random.Random(5), read_vocabulary()
    for _ in range(3000):
        plan = draw_allowed_plan(rng, allow_held_out=True)
        text = caption(plan.concepts, plan.relation, plan.background, rng)
        meaning = words.understand(text)
        assert meaning is not None, text
        assert meaning.things == plan.concepts, text
        assert meaning.relation == (plan.relation if plan.relation in PLACES else None), text
        assert meaning.background in (None, plan.background), text


VOCABULARY_V1 = suite.ASSETS / "recogniser-v1" / "vocabulary.json"


def test_the_suite_of_version_1_asks_for_every_held_out_combination_once() -> None:
    questions = read_questions("pocket-v1", VOCABULARY_V1)
    assert Counter(q.category for q in questions) == dict.fromkeys(CATEGORIES, 100)
    assert [q.category for q in questions[:6]] == list(CATEGORIES)
    assert len(by_prompt(questions)) == 600
    of = {name: [q for q in questions if q.category == name] for name in CATEGORIES}
    held = held_out_v1()
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
    assert all(map(is_plan_held_out, suite.held_out_plans()))
    rng = random.Random(2)
    prompts = {q.prompt for q in read_questions("pocket-v1", VOCABULARY_V1)}
    for _ in range(1500):
        plan = draw_allowed_plan_v1(rng, MIXTURES["v1"])
        if suite.category_of(plan):
            assert suite.question_of(plan).prompt not in prompts, plan


def test_the_vocabulary_of_version_1_names_every_class() -> None:
    words = read_vocabulary(VOCABULARY_V1)
    assert list(words.concepts) == list(all_concepts()) and words.version == 1
    assert (len(words.backgrounds), len(words.colours), len(words.styles)) == (20, 10, 6)
    assert words.understand("a stack of books on a red background").things == ("books",)
    assert read_vocabulary().version == 0 and read_vocabulary().colours == ()
