"""The judge sees what is there, says nothing of what is not, and the counting is right."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import evaluate
import numpy as np
import pytest
from captions import BACKGROUNDS
from glyphs import GlyphSource
from holdout import held_out_backgrounds, held_out_pairs
from judging import (
    Question,
    all_found,
    pair_questions,
    render_answers,
    right_colour,
    right_places,
    right_subject,
    showpiece_questions,
    subject_questions,
    wilson_interval,
)
from numpy.typing import NDArray
from scenes import Plan

from t2i.evaluation.recogniser import Findings, Found, Recogniser, load_recogniser, save_recogniser

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def judge() -> Recogniser:
    return load_recogniser()


def ask(kind: str, concepts: tuple[str, ...], relation: str | None, background: str, seed: int) -> Question:
    return Question("", Plan(kind, concepts, relation, background), True, seed)


SUBJECTS = [
    ask("single", (concept,), None, background, seed)
    for seed, (concept, background) in enumerate(
        zip(["dog", "cat", "rabbit", "panda", "trumpet", "car", "rose"], BACKGROUNDS, strict=False)
    )
]
PAIRS = [
    ask("pair", ("dog", "rose"), "left of", "gray", 0),
    ask("pair", ("car", "cat"), "right of", "green", 1),
    ask("pair", ("red apple", "guitar"), "above", "white", 2),
    ask("pair", ("trumpet", "panda"), "below", "purple", 3),
]


def test_single_things_and_colours_are_recognised(judge: Recogniser, glyphs: GlyphSource) -> None:
    findings = judge.recognise(render_answers(SUBJECTS, glyphs))
    assert all(right_subject(q, f) and len(f.found) == 1 for q, f in zip(SUBJECTS, findings, strict=True))
    assert all(right_colour(q, f) for q, f in zip(SUBJECTS, findings, strict=True))


def test_pairs_are_found_where_they_stand(judge: Recogniser, glyphs: GlyphSource) -> None:
    pictures = render_answers(PAIRS, glyphs)
    upright, turned = judge.recognise(pictures), judge.recognise(pictures[:, ::-1, ::-1])
    assert all(right_places(q, f) for q, f in zip(PAIRS, upright, strict=True))
    assert not any(right_places(q, f) for q, f in zip(PAIRS, turned, strict=True))


def test_the_dog_with_the_trumpet_is_found(judge: Recogniser, glyphs: GlyphSource) -> None:
    questions = showpiece_questions(16)
    findings = judge.recognise(render_answers(questions, glyphs))
    assert sum(all_found(q, f) for q, f in zip(questions, findings, strict=True)) >= 15


def test_plain_colours_hold_nothing(judge: Recogniser) -> None:
    plain = np.array(list(BACKGROUNDS.values()), dtype=np.uint8)[:, None, None, :].repeat(64, 1).repeat(64, 2)
    findings = judge.recognise(plain)
    assert [f.found for f in findings] == [()] * len(BACKGROUNDS)
    assert [f.background for f in findings] == list(BACKGROUNDS)


def test_shuffled_tiles_are_no_answer(judge: Recogniser, glyphs: GlyphSource) -> None:
    # The colours of a thing without its shape must not count.
    tiles = (
        render_answers(SUBJECTS, glyphs).reshape(-1, 8, 8, 8, 8, 3).swapaxes(2, 3).reshape(-1, 64, 8, 8, 3)
    )
    tiles = tiles[:, np.random.default_rng(0).permutation(64)]
    shuffled = tiles.reshape(-1, 8, 8, 8, 8, 3).swapaxes(2, 3).reshape(-1, 64, 64, 3)
    findings = judge.recognise(shuffled)
    assert sum(right_subject(q, f) for q, f in zip(SUBJECTS, findings, strict=True)) <= 1


def test_larger_pictures_are_judged_alike(judge: Recogniser, glyphs: GlyphSource) -> None:
    large = render_answers(PAIRS, glyphs).repeat(2, axis=1).repeat(2, axis=2)
    assert all(right_places(q, f) for q, f in zip(PAIRS, judge.recognise(large), strict=True))


def test_weights_survive_a_round_trip(tmp_path: Path, judge: Recogniser, glyphs: GlyphSource) -> None:
    save_recogniser(judge, tmp_path / "copy.safetensors")
    pictures = render_answers(PAIRS, glyphs)
    assert load_recogniser(tmp_path / "copy.safetensors").recognise(pictures) == judge.recognise(pictures)
    assert (tmp_path / "copy.safetensors").stat().st_size < 3_000_000


def test_questions_are_exactly_the_held_out_lists() -> None:
    subjects, pairs = subject_questions(), pair_questions()
    assert [(q.plan.concepts[0], q.plan.background) for q in subjects] == list(held_out_backgrounds())
    assert [q.plan.concepts for q in pairs] == list(held_out_pairs())
    assert all(q.prompt.endswith(f" {q.plan.background} background") for q in subjects)
    assert sum(q.asks_colour for q in pairs) == 52
    assert {q.prompt for q in showpiece_questions()} == {"a corgi playing a trumpet"}
    assert [q.seed for q in showpiece_questions()] == list(range(16))


def findings_of(*found: Found, background: str = "red") -> Findings:
    return Findings(found, background)


@pytest.mark.parametrize(
    ("relation", "right"), [("left of", True), ("right of", False), ("above", False), ("below", False)]
)
def test_right_places_by_hand(relation: str, right: bool) -> None:
    seen = findings_of(Found("dog", 0.9, 16, 30), Found("cat", 0.8, 48, 33))
    assert right_places(ask("pair", ("dog", "cat"), relation, "red", 0), seen) is right
    only_one = findings_of(Found("dog", 0.9, 16, 30))
    assert not right_places(ask("pair", ("dog", "cat"), relation, "red", 0), only_one)
    assert not all_found(ask("pair", ("dog", "cat"), relation, "red", 0), only_one)


def test_only_the_clearest_thing_is_the_subject() -> None:
    seen = findings_of(Found("cat", 0.9, 30, 30), Found("dog", 0.6, 40, 40))
    assert right_subject(SUBJECTS[1], seen) and not right_subject(SUBJECTS[0], seen)
    assert not right_subject(SUBJECTS[0], findings_of())
    assert right_colour(SUBJECTS[0], seen) and not right_colour(SUBJECTS[1], seen)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (100, 100, 0.963, 1.0)],
)
def test_wilson_interval(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-3)


def test_a_perfect_painter_is_right_and_a_blind_one_wrong(
    monkeypatch: pytest.MonkeyPatch, glyphs: GlyphSource, ten_font: Path
) -> None:
    monkeypatch.setattr(evaluate, "subject_questions", lambda: SUBJECTS)
    monkeypatch.setattr(evaluate, "pair_questions", lambda: PAIRS * 2)
    questions = [*SUBJECTS[:7], *(PAIRS * 2)[:7], *showpiece_questions()]

    def perfect(prompts: Sequence[str], seeds: Sequence[int]) -> Pixels:
        assert list(prompts) == [q.prompt for q in questions]
        assert list(seeds) == [q.seed for q in questions]
        return render_answers(questions, glyphs, copy=1)

    def blind(prompts: Sequence[str], seeds: Sequence[int]) -> Pixels:
        return np.full((len(prompts), 64, 64, 3), 140, dtype=np.uint8)

    report, sheet = evaluate.evaluate(perfect, 7, ten_font)
    assert sheet.startswith(b"\x89PNG")
    assert report["figures"]["subject recognised"]["percent"] == 100
    assert report["figures"]["pair: in the right places"]["percent"] == 100
    assert report["figures"]["corgi and trumpet found"]["right"] >= 15
    assert len(report["pictures"]) == len(questions)
    json.dumps(report)
    report, _ = evaluate.evaluate(blind, 7, ten_font)
    assert report["figures"]["subject recognised"]["right"] == 0
    assert report["figures"]["pair: both recognised"]["right"] == 0
    assert report["ceiling_on_true_renderings"]["subject recognised"]["percent"] == 100


def test_pictures_come_from_the_model_one_by_one(tiny_pocket: Path) -> None:
    together = evaluate.make_pictures(str(tiny_pocket), ["a dog", "a cat on a red background"], [1, 2])
    alone = evaluate.make_pictures(str(tiny_pocket), ["a cat on a red background"], [2])
    assert together.shape == (2, 64, 64, 3) and together.dtype == np.uint8
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1
    assert np.abs(together[0].astype(int) - together[1]).max() > 10


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    evaluate.write_atomically(tmp_path / "report.json", b"{}")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_bytes() == b"{}"
