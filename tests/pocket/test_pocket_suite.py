"""What `t2i eval` takes from the example: its two data files are what the script writes, and held out."""

from __future__ import annotations

import random

import pytest
import suite
from captions import caption
from holdout import is_held_out
from scenes import draw_allowed_plan

from t2i.evaluation.questions import read_questions
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
