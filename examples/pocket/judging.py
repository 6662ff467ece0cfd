"""Owns how the judge itself is judged: by what it says of true, spoilt and nearly right renderings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from composing import compose
from drawing import Painter
from glyphs import GlyphSource
from numpy.typing import NDArray
from plans import NUMBERS, OPPOSITES, Plan
from spoiling import spoil
from suite import question_of

from t2i.evaluation.adherence import is_right
from t2i.evaluation.figures import wilson_interval
from t2i.evaluation.recogniser import Recogniser

RENDERING_SEED = 9_000_000

Figure = dict[str, float | int | list[float]]


def figure(answers: Sequence[bool]) -> Figure:
    """Count right answers: {right, of, percent, interval_percent}."""
    low, high = wilson_interval(sum(answers), len(answers))
    return {
        "right": sum(answers),
        "of": len(answers),
        "percent": round(100 * sum(answers) / len(answers), 1),
        "interval_percent": [round(100 * low, 1), round(100 * high, 1)],
    }


def contradicted(plan: Plan, other: Plan) -> Plan:
    """A scene that is nearly right for a question, but wrong.

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


def render_plans(plans: Sequence[Plan], glyphs: GlyphSource, copy: int, side: int) -> NDArray[np.uint8]:
    """Draw scenes; another `copy` gives other sizes, places and shades: (N, side, side, 3)."""
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
    judge: Recogniser, plans: Sequence[Plan], glyphs: GlyphSource, copies: int
) -> dict[str, dict[str, Figure]]:
    """Measure the judge itself, with the same rules as a model is measured with.

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
