"""Prompts and what they ask for: the suite, files, words; and the sweep of a config."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from t2i.config import EvaluateConfig
from t2i.errors import T2IError, UsageError
from t2i.evaluation.adherence import is_right
from t2i.evaluation.questions import (
    CATEGORIES,
    Question,
    by_prompt,
    read_questions,
    understand,
)
from t2i.evaluation.recogniser import Findings, Found, load_recogniser
from t2i.evaluation.vocabulary import read_vocabulary


def test_the_suite_has_a_hundred_prompts_of_each_category_in_turn() -> None:
    questions = read_questions("pocket")
    assert Counter(q.category for q in questions) == dict.fromkeys(CATEGORIES, 100)
    assert [q.category for q in questions[:6]] == list(CATEGORIES)
    assert len(by_prompt(questions)) == 600


def test_the_vocabulary_is_that_of_the_weights() -> None:
    words, judge = read_vocabulary(), load_recogniser()
    assert judge.concepts == tuple(words.concepts) and judge.backgrounds == tuple(words.backgrounds)
    assert (judge.colours, judge.styles) == (words.colours, words.styles)


@pytest.mark.parametrize(
    ("prompt", "things", "relation", "background"),
    [
        ("a dog on a red background", ("dog",), None, "red"),
        ("Corgi on grey.", ("dog",), None, "gray"),
        ("a picture of a pine tree, blue background", ("pine tree",), None, "blue"),
        ("a corgi playing a trumpet", ("dog", "trumpet"), None, None),
        ("an owl riding on a bike on an orange background", ("owl", "bicycle"), None, "orange"),
        ("the earth to the left of grapes", ("earth", "grapes"), "left of", None),
        ("a cat over a dog", ("cat", "dog"), "above", None),
        ("a puppy by the sea", ("dog",), None, "beach"),
        ("a red apple", ("red apple",), None, None),
        ("a green apple and a car", ("green apple", "car"), None, None),
        ("a stack of books on brown", ("books",), None, "brown"),
        ("an orange on orange", ("orange",), None, "orange"),
        ("a cat and a dog, night background", ("cat", "dog"), None, "night"),
    ],
)
def test_prompts_in_the_recognisers_words_are_understood(
    prompt: str, things: tuple[str, ...], relation: str | None, background: str | None
) -> None:
    meaning = read_vocabulary().understand(prompt)
    assert meaning is not None
    assert (meaning.things, meaning.relation, meaning.background) == (things, relation, background)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a dog without a hat",
        "a blue dog",
        "books",
        "a cat and a kitten",
        "a taxi and a cab",
        "a blue red apple and a red car",
        "a blue dog and a cat",
        "a blue dog left of a red cat",
        "two dogs and a cat",
        "dogs",
        "three big apples",
        "a dogfish",
        "a dog on a red",
        "a portrait of a man",
    ],
)
def test_anything_else_is_not_half_understood(prompt: str) -> None:
    assert read_vocabulary().understand(prompt) is None
    assert understand(prompt) == (Question(prompt),)


def test_a_thing_on_a_colour_puts_two_questions() -> None:
    assert [q.category for q in understand("a dog on a red background")] == ["single object", "colours"]
    assert [q.category for q in understand("a dog")] == ["single object"]
    assert [q.category for q in understand("a dog and a cat")] == ["two objects"]
    assert [q.category for q in understand("a dog below a cat on red")] == ["position"]


def test_places_numbers_and_colours_of_things_are_asked_for() -> None:
    assert understand("a dog on the beach") == (
        Question("a dog on the beach", "single object", ("dog",), "beach"),
    )
    assert understand("3 mice underwater") == (
        Question("3 mice underwater", "counting", ("mouse",), "underwater", count=3),
    )
    prompt = "a red car and an orange bike on white"
    assert understand(prompt) == (
        Question(prompt, "attribute binding", ("car", "bicycle"), "white", colours=("red", "orange")),
    )


def test_prompt_files(tmp_path: Path) -> None:
    text = tmp_path / "prompts.txt"
    text.write_text("a dog\n\n  a portrait  \n", encoding="utf-8")
    assert [(q.prompt, q.category) for q in read_questions(str(text))] == [
        ("a dog", "single object"),
        ("a portrait", ""),
    ]
    lines = tmp_path / "prompts.jsonl"
    row = {"prompt": "a hound", "category": "colours", "things": ["dog"], "background": "red"}
    lines.write_text(json.dumps({"prompt": "a cat"}) + "\n" + json.dumps(row) + "\n", encoding="utf-8")
    asked = read_questions(str(lines))
    assert asked[0].category == "single object"
    assert asked[1] == Question("a hound", "colours", ("dog",), "red")


@pytest.mark.parametrize(
    ("name", "contents", "said"),
    [
        ("nothing.txt", None, "does not exist"),
        ("empty.txt", " \n", "no prompt"),
        ("bytes.txt", b"\xff\xfe\x00", "UTF-8"),
        ("prompts.csv", "a dog", "neither a suite"),
        ("pockett", None, "neither a suite"),
        ("a.jsonl", "{", "line 1: not JSON"),
        ("a.jsonl", "[1]", 'needs a "prompt"'),
        ("a.jsonl", '{"prompt": " "}', 'needs a "prompt"'),
        ("a.jsonl", '{"prompt": "x", "category": "beauty"}', "unknown category"),
        ("a.jsonl", '{"prompt": "x", "category": ["colours"]}', "unknown category"),
        ("a.jsonl", '{"prompt": "x", "category": "colours", "colour": 1}', "unknown field 'colour'"),
        ("a.jsonl", '{"prompt": "x", "category": "single object", "things": "dog"}', "list of words"),
        (
            "a.jsonl",
            '{"prompt": "x", "category": "single object", "things": ["unicycle"]}',
            "does not know 'unicycle'",
        ),
        ("a.jsonl", '{"prompt": "x", "category": "two objects", "things": ["dog"]}', "needs two things"),
        ("a.jsonl", '{"prompt": "x", "category": "colours", "things": ["dog"]}', "needs a background"),
        (
            "a.jsonl",
            '{"prompt": "x", "category": "counting", "things": ["dog"], "count": 0}',
            "needs a count",
        ),
        (
            "a.jsonl",
            '{"prompt": "x", "category": "attribute binding", "things": ["dog", "cat"], '
            '"colours": ["red", "navy"]}',
            "needs colours out of",
        ),
        (
            "a.jsonl",
            '{"prompt": "x", "category": "position", "things": ["dog", "cat"], "relation": "near"}',
            "needs a relation",
        ),
    ],
)
def test_bad_prompt_files_are_refused_in_one_line(
    tmp_path: Path, name: str, contents: str | bytes | None, said: str
) -> None:
    path = tmp_path / name
    if contents is not None:
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    with pytest.raises(T2IError, match=said) as caught:
        read_questions(str(path))
    assert "\n" not in caught.value.message


def found(*names: str) -> Findings:
    """Things from left to right, the first the clearest."""
    return Findings(
        tuple(Found(name, 0.9 - 0.1 * k, 16.0 + 32 * k, 30) for k, name in enumerate(names)), "red"
    )


@pytest.mark.parametrize(
    ("question", "findings", "right"),
    [
        (Question("", "single object", ("dog",)), found("dog", "cat"), True),
        (Question("", "single object", ("dog",)), found("cat", "dog"), False),
        (Question("", "single object", ("dog",)), found(), False),
        (Question("", "two objects", ("dog", "cat")), found("cat", "dog"), True),
        (Question("", "two objects", ("dog", "cat")), found("cat"), False),
        (Question("", "colours", ("dog",), "red"), found("dog"), True),
        (Question("", "colours", ("dog",), "blue"), found("dog"), False),
        (Question("", "colours", ("dog",), "red"), found("cat"), False),
        (Question("", "position", ("dog", "cat"), None, "left of"), found("dog", "cat"), True),
        (Question("", "position", ("dog", "cat"), None, "right of"), found("dog", "cat"), False),
        (Question("", "position", ("dog", "cat"), None, "above"), found("dog", "cat"), False),
        (Question("", "position", ("dog", "cat"), None, "left of"), found("dog"), False),
    ],
)
def test_right_and_wrong_answers(question: Question, findings: Findings, right: bool) -> None:
    assert is_right(question, findings) is right


def seen(*found: Found) -> Findings:
    return Findings(found, "red")


def binding(*colours: str) -> Question:
    return Question("", "attribute binding", ("dog", "cat"), colours=colours)


ROSE = Found("rose", 0.6, 48, 30)  # red by nature
RED_DOG, BLUE_CAT, PLAIN_CAT = (
    Found("dog", 0.9, 16, 30, "red"),
    Found("cat", 0.8, 48, 30, "blue"),
    Found("cat", 0.7, 48, 30),
)


@pytest.mark.parametrize(
    ("question", "findings", "right"),
    [
        (Question("", "counting", ("cat",), count=2), seen(BLUE_CAT, RED_DOG, PLAIN_CAT), True),
        (Question("", "counting", ("cat",), count=3), seen(BLUE_CAT, RED_DOG, PLAIN_CAT), False),
        (Question("", "counting", ("cat",), count=2), seen(BLUE_CAT, RED_DOG), False),
        (binding("red", "blue"), seen(RED_DOG, BLUE_CAT), True),
        (binding("blue", "red"), seen(RED_DOG, BLUE_CAT), False),
        (binding("red", "blue"), seen(RED_DOG, PLAIN_CAT), False),
        (binding("red", "blue"), seen(RED_DOG), False),
        (
            Question("", "attribute binding", ("dog", "rose"), colours=("red", "red")),
            seen(RED_DOG, ROSE),
            True,
        ),
        (
            Question("", "attribute binding", ("dog", "rose"), colours=("red", "blue")),
            seen(RED_DOG, ROSE),
            False,
        ),
        (Question("", "position", ("dog", "cat"), None, "left of"), seen(RED_DOG, BLUE_CAT), True),
        (Question("", "position", ("cat", "dog"), None, "left of"), seen(RED_DOG, BLUE_CAT), False),
    ],
)
def test_right_and_wrong_answers_with_numbers_and_colours(
    question: Question, findings: Findings, right: bool
) -> None:
    assert is_right(question, findings) is right


def test_scores_are_those_of_the_clearest_of_each_kind() -> None:
    findings = seen(RED_DOG, BLUE_CAT, PLAIN_CAT)
    assert list(findings.scores().items()) == [("dog", 0.9), ("cat", 0.8)]
    assert seen().scores() == {}


def test_a_bare_prompt_is_never_judged() -> None:
    with pytest.raises(ValueError, match="without a category"):
        is_right(Question("a portrait"), found("dog"))


def test_a_sweep_is_every_combination_in_order() -> None:
    config = EvaluateConfig(sweep=("steps=5,10", "cfg=1,3.5,1", "--sampler=ddim"))
    assert config.settings == (
        {"steps": 5, "guidance_scale": 1.0, "scheduler": "ddim"},
        {"steps": 5, "guidance_scale": 3.5, "scheduler": "ddim"},
        {"steps": 10, "guidance_scale": 1.0, "scheduler": "ddim"},
        {"steps": 10, "guidance_scale": 3.5, "scheduler": "ddim"},
    )
    assert EvaluateConfig().settings == ({},)


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (("steps",), "not NAME=VALUE"),
        (("steps=",), "not NAME=VALUE"),
        (("stepz=5",), "cannot be varied"),
        (("prompt=5",), "cannot be varied"),
        (("steps=five",), "'five' is not a whole number"),
        (("steps=5,,6",), "'' is not a whole number"),
        (("steps=0",), "at least 1"),
        (("guidance-scale=nan",), "a number is needed"),
        (("guidance-scale=0.5",), "at least 1"),
        (("width=100",), "multiple of 8"),
        (("scheduler=ddim,",), "a value is missing"),
        (("steps=1", "num-inference-steps=2"), "was given before"),
        (("steps=" + ",".join(map(str, range(1, 502))),), "at most 500"),
    ],
)
def test_bad_sweeps_are_refused(sweep: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        EvaluateConfig(sweep=sweep)
