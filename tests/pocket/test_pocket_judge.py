"""The judge sees what is there, and says nothing of what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from backgrounds import FLAT
from glyphs import GlyphSource
from judging import render_plans
from numpy.typing import NDArray
from plans import Part, Plan
from suite import question_of

from t2i.evaluation.adherence import is_right
from t2i.evaluation.recogniser import Findings, Recogniser, load_recogniser, save_recogniser


@pytest.fixture(scope="module")
def judge() -> Recogniser:
    return load_recogniser()


def pair(a: Part, relation: str, b: Part, background: str, kind: str = "pair") -> Plan:
    return Plan(kind, (a, b), background, relation)


SINGLES = [
    Plan("single", (Part(concept),), background)
    for concept, background in zip(
        ["dog", "cat", "rabbit", "panda", "trumpet", "car", "rose"],
        [*[*FLAT][:5], "beach", "night"],
        strict=True,
    )
]
PAIRS = [
    pair(Part("dog"), "left of", Part("rose"), "gray"),
    pair(Part("car"), "right of", Part("cat"), "green"),
    pair(Part("red apple"), "above", Part("guitar"), "white"),
    pair(Part("trumpet"), "below", Part("panda"), "purple"),
]
COUNTED = [
    Plan("counted", (Part(name, count=number),), "blue")
    for name, number in (("car", 3), ("cat", 5), ("rose", 2))
]
COLOURED = [
    pair(Part("car", "blue"), "and", Part("rose", "yellow"), "white", "coloured pair"),
    pair(Part("dog", "blue"), "and", Part("car", "green"), "white", "coloured pair"),
]


def right(judge: Recogniser, plans: list[Plan], pictures: NDArray[np.uint8]) -> list[bool]:
    findings: list[Findings] = judge.recognise(pictures)
    return [is_right(question_of(plan), one) for plan, one in zip(plans, findings, strict=True)]


@pytest.mark.parametrize(
    "plans", [SINGLES, PAIRS, COUNTED, COLOURED], ids=["single", "pairs", "counted", "coloured"]
)
def test_what_is_there_is_found(judge: Recogniser, glyphs: GlyphSource, plans: list[Plan]) -> None:
    answers = [
        answer for copy in range(3) for answer in right(judge, plans, render_plans(plans, glyphs, copy, 128))
    ]
    assert sum(answers) >= 0.9 * len(answers)


def test_a_picture_on_its_head_shows_other_places(judge: Recogniser, glyphs: GlyphSource) -> None:
    assert not any(right(judge, PAIRS, render_plans(PAIRS, glyphs, 0, 128)[:, ::-1, ::-1]))


def test_the_dog_with_the_trumpet_is_found(judge: Recogniser, glyphs: GlyphSource) -> None:
    plans = [
        Plan("playing", (Part("dog"), Part("trumpet")), name, verb="playing")
        for name in FLAT
        if name not in ("yellow", "orange")
    ]
    findings = judge.recognise(render_plans(plans, glyphs, 0, 128))
    assert sum(bool(f.of("dog") and f.of("trumpet")) for f in findings) >= len(plans) - 1


def test_plain_colours_hold_nothing(judge: Recogniser) -> None:
    plain = np.array(list(FLAT.values()), dtype=np.uint8)[:, None, None, :].repeat(64, 1).repeat(64, 2)
    findings = judge.recognise(plain)
    assert [f.found for f in findings] == [()] * len(FLAT)
    assert [f.background for f in findings] == list(FLAT)


def test_shuffled_tiles_are_no_answer(judge: Recogniser, glyphs: GlyphSource) -> None:
    # The colours of a thing without its shape must not count.
    pictures = render_plans(SINGLES, glyphs, 0, 128)
    tiles = pictures.reshape(-1, 8, 16, 8, 16, 3).swapaxes(2, 3).reshape(-1, 64, 16, 16, 3)
    tiles = tiles[:, np.random.default_rng(0).permutation(64)]
    shuffled = tiles.reshape(-1, 8, 8, 16, 16, 3).swapaxes(2, 3).reshape(-1, 128, 128, 3)
    assert sum(right(judge, SINGLES, shuffled)) <= 1


def test_smaller_and_larger_pictures_are_judged_alike(judge: Recogniser, glyphs: GlyphSource) -> None:
    for side in (64, 256):
        pictures = render_plans(PAIRS, glyphs, 0, side)
        assert sum(right(judge, PAIRS, pictures)) >= 3, side


def test_the_weights_that_ship_survive_a_round_trip(
    tmp_path: Path, judge: Recogniser, glyphs: GlyphSource
) -> None:
    save_recogniser(judge, tmp_path / "copy.safetensors")
    pictures = render_plans(PAIRS, glyphs, 0, 128)
    assert load_recogniser(tmp_path / "copy.safetensors").recognise(pictures) == judge.recognise(pictures)
    assert (tmp_path / "copy.safetensors").stat().st_size <= 4_000_000
