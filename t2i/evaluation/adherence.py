"""Whether pictures show what their prompts ask for: by the recogniser, and by CLIPScore.

Categories and all-or-nothing answers are those of GenEval (Ghosh et al. 2023, arXiv:2310.11513).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from t2i.evaluation.figures import Figure, mean_figure, not_measured, share
from t2i.evaluation.questions import CATEGORIES, Question
from t2i.evaluation.recogniser import PICTURE_PX, Findings
from t2i.evaluation.subject import Subject
from t2i.evaluation.vocabulary import read_vocabulary

CLEARLY_PX = PICTURE_PX / 8  # centres must differ by an eighth of the picture
CLIP_WEIGHT = 2.5
JUDGE = "t2i's recogniser"


def shows_clearest(findings: Findings, thing: str) -> bool:
    """Whether the clearest thing in the picture is this one."""
    return bool(findings.found) and findings.found[0].concept == thing


def shows_all(findings: Findings, things: Sequence[str]) -> bool:
    """Whether every one of these things is in the picture."""
    return all(findings.of(thing) for thing in things)


def stand_as(findings: Findings, things: Sequence[str], relation: str) -> bool:
    """Whether two things are both there and stand as the relation says, clearly.

    Args:
        findings: Of a picture.
        things: Two names.
        relation: left of, right of, above or below: how the first stands to the second.
    """
    first, second = (findings.of(thing) for thing in things)
    if first is None or second is None:
        return False
    to_the_right, downwards = second.x - first.x, second.y - first.y
    distances = {
        "left of": to_the_right, "right of": -to_the_right, "above": downwards, "below": -downwards,
    }  # fmt: skip
    return distances[relation] >= CLEARLY_PX


def have_colours(findings: Findings, things: Sequence[str], colours: Sequence[str]) -> bool:
    """Whether the clearest one of each of these things has the colour asked for, given or by nature."""
    natural = read_vocabulary().natural
    found = [findings.of(thing) for thing in things]
    return all(
        one is not None and (one.colour or natural.get(thing)) == colour
        for thing, one, colour in zip(things, found, colours, strict=True)
    )


def is_right(question: Question, findings: Findings) -> bool:
    """Whether a picture answers a question.

    Raises:
        ValueError: The question is a bare prompt: nobody knows what to look for.
    """
    if question.category not in CATEGORIES:
        raise ValueError(f"a prompt without a category cannot be judged: {question.prompt!r}")
    if question.category == "single object":
        return shows_clearest(findings, question.things[0])
    if question.category == "two objects":
        return shows_all(findings, question.things)
    if question.category == "colours":
        return shows_all(findings, question.things) and findings.background == question.background
    if question.category == "counting":
        return findings.count(question.things[0]) == question.count
    if question.category == "attribute binding":
        return have_colours(findings, question.things, question.colours)
    return stand_as(findings, question.things, str(question.relation))


def verdicts(subject: Subject) -> list[list[tuple[Question, bool]]]:
    """For each picture the questions that could be judged, with the answers."""
    judged = []
    for picture, findings in zip(subject.pictures, subject.findings, strict=True):
        asked = subject.asked.get(picture.prompt, ())
        told = [q for q in asked if q.category]
        judged.append([] if findings is None else [(q, is_right(q, findings)) for q in told])
    return judged


def measure_adherence(subject: Subject) -> list[Figure]:
    """Right pictures in all, in each category, and by what was asked for."""
    answers = [pair for answered in verdicts(subject) for pair in answered]
    by_category = [_category(subject, name, answers) for name in CATEGORIES]
    measured = [figure.name for figure in by_category if figure.value is not None]
    if not measured:
        return [not_measured("adherence", _why_none(subject), JUDGE), *by_category]
    how = f"right answers in {', '.join(measured)}, judged by {JUDGE}"
    in_all = share("adherence", [right for _, right in answers], how, "answers")
    return [in_all, *by_category, *_demands(subject)]


def _category(subject: Subject, name: str, answers: Sequence[tuple[Question, bool]]) -> Figure:
    how = f"{CATEGORIES[name]}, says {JUDGE}"
    mine = [right for question, right in answers if question.category == name]
    if mine:
        return share(name, mine, how)
    asked = {q.category for questions in subject.asked.values() for q in questions}
    return not_measured(name, _why_none(subject) if name in asked else "no prompt asks for it", how)


def _why_none(subject: Subject) -> str:
    if all(findings is None for findings in subject.findings):
        return "the recogniser knows only drawn things as pocket draws them; name a CLIP model with --clip"
    if not any(picture.prompt for picture in subject.pictures):
        return "the pictures do not say what they should show (recipe, metadata.jsonl or .txt)"
    return "no prompt is made of the recogniser's words alone; name a CLIP model with --clip for CLIPScore"


def _demands(subject: Subject) -> list[Figure]:
    """Shares over everything that was asked for, each thing and background on its own."""
    things, backgrounds = [], []
    for answered, findings in zip(verdicts(subject), subject.findings, strict=True):
        if findings is None:
            continue
        asked = {thing for question, _ in answered for thing in question.things}
        things += [findings.of(thing) is not None for thing in sorted(asked)]
        colours = {question.background for question, _ in answered} - {None}
        backgrounds += [findings.background == colour for colour in sorted(map(str, colours))]
    figures = [share("things there", things, "each thing asked for, on its own", "things")]
    if backgrounds:
        how = "each background asked for, on its own"
        figures.append(share("backgrounds right", backgrounds, how, "backgrounds"))
    return figures


def clip_score(pictures: Tensor, texts: Tensor) -> Tensor:
    """2.5 · max(cos(picture, text), 0).

    Args:
        pictures: Embeddings of length 1, (N, D).
        texts: Embeddings of length 1 of each picture's prompt behind "A photo depicts", (N, D).

    Returns:
        (N,), 0...2.5.

    Source: Hessel et al. 2021, arXiv:2104.08718, eq. (1) and section 3.
    """
    return CLIP_WEIGHT * torch.clamp((pictures * texts).sum(dim=1), min=0)


def measure_clip_score(subject: Subject) -> list[Figure]:
    """Mean CLIPScore over prompts."""
    clip = subject.instruments.clip
    groups = subject.groups()
    if not groups:
        return [not_measured("CLIPScore", "the pictures do not say what they should show")]
    scores = subject.clip_scores
    means = [sum(scores[row] for row in rows) / len(rows) for rows in groups.values()]
    cut = sum(clip.is_cut("A photo depicts " + prompt) for prompt in groups)
    warning = f"{cut} prompts are longer than CLIP reads and were cut" if cut else ""
    return [
        mean_figure(
            "CLIPScore", means, subject.rounds, counted="prompts", better="higher", warning=warning,
            how=f"2.5 x cosine (arXiv:2104.08718), {clip.described}",
        )
    ]  # fmt: skip
