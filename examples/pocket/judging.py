"""Owns the questions put to a model (prompts from the held-out lists) and what counts as a right answer.

Knows nothing of how pictures are made: the same questions are asked of pocket and of true renderings.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from captions import BACKGROUNDS, phrase
from composing import compose
from drawing import Painter
from glyphs import GlyphSource
from holdout import held_out_backgrounds, held_out_pairs, is_held_out
from numpy.typing import NDArray
from plans import NUMBERS, OPPOSITES
from plans import Plan as Plan1
from scenes import Plan, draw, make_scene
from spoiling import spoil
from suite import question_of

from t2i.evaluation.adherence import is_right, shows_all, shows_clearest, stand_as
from t2i.evaluation.figures import wilson_interval
from t2i.evaluation.recogniser import PICTURE_PX, Findings, Recogniser

PLACED_RELATIONS = ("left of", "right of", "above", "below")
SHOWPIECE_PROMPT = "a corgi playing a trumpet"
RENDERING_SEED = 9_000_000

Figure = dict[str, float | int | list[float]]


@dataclass(frozen=True)
class Question:
    """One prompt, and what the picture must show.

    Attributes:
        prompt: What the model is asked to draw.
        plan: The scene that it describes; its background only counts if `asks_colour`.
        asks_colour: Whether the prompt names the background.
        seed: Seed of the picture.
    """

    prompt: str
    plan: Plan
    asks_colour: bool
    seed: int


def subject_questions() -> list[Question]:
    """Return 'a X on a C background' for the 100 held-out (X, C)."""
    return [
        Question(phrase((concept,), None, colour), Plan("single", (concept,), None, colour), True, seed)
        for seed, (concept, colour) in enumerate(held_out_backgrounds())
    ]


def pair_questions() -> list[Question]:
    """Return 100 relation prompts, one for each held-out pair; every second one also names a colour."""
    questions = []
    for seed, pair in enumerate(held_out_pairs()):
        relation = PLACED_RELATIONS[seed % len(PLACED_RELATIONS)]
        asks_colour = (seed // len(PLACED_RELATIONS)) % 2 == 0
        # Only the pair is new here, not a thing on this colour.
        colours = [c for c in BACKGROUNDS if not any(is_held_out((concept,), c) for concept in pair)]
        colour = random.Random(seed).choice(colours)
        prompt = phrase(pair, relation, colour if asks_colour else None)
        questions.append(Question(prompt, Plan("pair", pair, relation, colour), asks_colour, seed))
    return questions


def showpiece_questions(count: int = 16) -> list[Question]:
    """Return the README's prompt, 'a corgi playing a trumpet', with seeds 0 to count - 1."""
    colours = [c for c in BACKGROUNDS if not any(is_held_out((name,), c) for name in ("dog", "trumpet"))]
    return [
        Question(
            SHOWPIECE_PROMPT,
            Plan("playing", ("dog", "trumpet"), "playing", colours[seed % len(colours)]),
            False,
            seed,
        )
        for seed in range(count)
    ]


def render_answers(questions: Sequence[Question], glyphs: GlyphSource, copy: int = 0) -> NDArray[np.uint8]:
    """Draw true renderings of the questions: what a perfect model would answer.

    Args:
        questions: What to draw.
        glyphs: The font.
        copy: Another number gives other sizes, places and shades.

    Returns:
        (N, 64, 64, 3), 0...255.
    """
    pictures = []
    for question in questions:
        rng = random.Random(RENDERING_SEED + 1000 * copy + question.seed)
        pictures.append(draw(make_scene(question.plan, glyphs, PICTURE_PX, rng), glyphs, PICTURE_PX))
    return np.stack(pictures)


def right_subject(question: Question, findings: Findings) -> bool:
    """Say whether the clearest thing in the picture is the one asked for."""
    return shows_clearest(findings, question.plan.concepts[0])


def right_colour(question: Question, findings: Findings) -> bool:
    """Say whether the background has the colour asked for."""
    return findings.background == question.plan.background


def all_found(question: Question, findings: Findings) -> bool:
    """Say whether every concept asked for is in the picture."""
    return shows_all(findings, question.plan.concepts)


def right_places(question: Question, findings: Findings) -> bool:
    """Say whether both things are there and stand as the relation says, by at least one cell."""
    return stand_as(findings, question.plan.concepts, str(question.plan.relation))


def figure(answers: Sequence[bool]) -> Figure:
    """Count right answers: {right, of, percent, interval_percent}."""
    low, high = wilson_interval(sum(answers), len(answers))
    return {
        "right": sum(answers),
        "of": len(answers),
        "percent": round(100 * sum(answers) / len(answers), 1),
        "interval_percent": [round(100 * low, 1), round(100 * high, 1)],
    }


@dataclass(frozen=True)
class Judged:
    """What the judge said of the pictures that answer each set of questions."""

    subjects: list[tuple[Question, Findings]]
    pairs: list[tuple[Question, Findings]]
    showpiece: list[tuple[Question, Findings]]

    def figures(self) -> dict[str, Figure]:
        """Return every figure of the report by name."""
        coloured = [(q, f) for q, f in self.pairs if q.asks_colour]
        return {
            "subject recognised": figure([right_subject(q, f) for q, f in self.subjects]),
            "colour right": figure([right_colour(q, f) for q, f in self.subjects]),
            "pair: both recognised": figure([all_found(q, f) for q, f in self.pairs]),
            "pair: in the right places": figure([right_places(q, f) for q, f in self.pairs]),
            "pair: colour right": figure([right_colour(q, f) for q, f in coloured]),
            "corgi and trumpet found": figure([all_found(q, f) for q, f in self.showpiece]),
        }


def judge_renderings(judge: Recogniser, glyphs: GlyphSource, copies: int = 5) -> dict[str, Figure]:
    """Measure the judge itself on renderings of the held-out lists, several of each.

    Args:
        judge: The recogniser.
        glyphs: The font.
        copies: How many renderings of each question.
    """

    def ask(questions: list[Question]) -> list[tuple[Question, Findings]]:
        answers: list[tuple[Question, Findings]] = []
        for copy in range(copies):
            pictures = render_answers(questions, glyphs, copy)
            answers += zip(questions, judge.recognise(pictures), strict=True)
        return answers

    return Judged(ask(subject_questions()), ask(pair_questions()), ask(showpiece_questions(100))).figures()


def contradicted(plan: Plan1, other: Plan1) -> Plan1:
    """A scene that is nearly right for a question of version 1, but wrong.

    Args:
        plan: What the question asks for.
        other: Where nothing can be turned round, this scene stands in.
    """
    if plan.kind == "counted":
        (part,) = plan.parts
        return replace(plan, parts=(replace(part, count=NUMBERS[(part.count - 1) % len(NUMBERS)]),))
    if plan.kind == "coloured pair":
        first, second = plan.parts
        swapped = replace(first, colour=second.colour), replace(second, colour=first.colour)
        return replace(plan, parts=swapped)
    if plan.relation in OPPOSITES:
        return replace(plan, relation=OPPOSITES[plan.relation])
    return other


def render_plans(plans: Sequence[Plan1], glyphs: GlyphSource, copy: int, side: int) -> NDArray[np.uint8]:
    """Draw scenes of version 1; another `copy` gives other sizes, places and shades: (N, side, side, 3)."""
    painter = Painter(glyphs)
    return np.stack([
        painter.draw(compose(plan, glyphs, side, random.Random(f"{RENDERING_SEED}:{copy}:{row}")), side)
        for row, plan in enumerate(plans)
    ])  # fmt: skip


def spoilt(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same pictures as a weak model would draw them, (N, side, side, 3)."""
    torch.manual_seed(0)
    order = torch.randperm(len(pictures))  # `spoil` spoils its eighths differently
    pixels = torch.from_numpy(pictures)[order].permute(0, 3, 1, 2).float() / 127.5 - 1
    result = torch.empty_like(pixels)
    result[order] = spoil(pixels)
    values = ((result + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(values.permute(0, 2, 3, 1).numpy())


def judge_plans(
    judge: Recogniser, plans: Sequence[Plan1], glyphs: GlyphSource, copies: int
) -> dict[str, dict[str, Figure]]:
    """Measure the judge of version 1 itself, with the same rules as a model is measured with.

    Args:
        judge: The recogniser.
        plans: Scenes that some category asks for; not all of one category.
        glyphs: The font.
        copies: How many renderings of each.

    Returns:
        Category → "right" on true renderings, "right, spoilt" on spoilt ones, and "wrongly right": how often
        it says yes to a scene with another number, swapped colours, the opposite relation or another thing.
    """
    questions = [question_of(plan) for plan in plans]
    others = [
        contradicted(plan, next(p for p in [*plans[row:], *plans] if not {*p.concepts} & {*plan.concepts}))
        for row, plan in enumerate(plans)
    ]
    answers: dict[str, dict[str, list[bool]]] = {}
    for copy in range(copies):
        true = render_plans(plans, glyphs, copy, judge.picture_px)
        wrong = render_plans(others, glyphs, copy, judge.picture_px)
        for name, pictures in (("right", true), ("right, spoilt", spoilt(true)), ("wrongly right", wrong)):
            for question, findings in zip(questions, judge.recognise(pictures), strict=True):
                of_category = answers.setdefault(question.category, {})
                of_category.setdefault(name, []).append(is_right(question, findings))
    return {
        category: {name: figure(values) for name, values in columns.items()}
        for category, columns in answers.items()
    }
