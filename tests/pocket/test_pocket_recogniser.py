"""The judge: its targets, its answers, its training, and that it learns."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import recogniser_examples
import spoiling
import torch
import train_recogniser
from backgrounds import FLAT
from composing import compose
from glyphs import GlyphSource, all_concepts
from judging import contradicted, judge_plans, spoilt
from mixtures import MIXTURES, Mixture
from plans import Part, Plan
from recogniser_examples import UNKNOWN, Examples, natural_colour, targets_of, things_of
from suite import held_out_plans, question_of
from tints import NATURAL, NEARLY_THE_SAME, TINTABLE, TINTS, tint

from t2i.evaluation.adherence import is_right
from t2i.evaluation.recogniser import (
    Findings,
    Recogniser,
    load_recogniser,
    save_recogniser,
)
from t2i.evaluation.recogniser_network import Answers
from t2i.evaluation.vocabulary import read_vocabulary

NARROW = (16, 32, 24)
CONCEPTS = list(all_concepts())


@pytest.fixture(scope="module")
def ten_mixture(ten: frozenset[str]) -> Mixture:
    return replace(MIXTURES["pocket"], concepts=ten)


@pytest.fixture(scope="module")
def examples(ten_mixture: Mixture, ten_font: Path) -> Examples:
    return recogniser_examples.render_examples(0, 48, ten_mixture, ten_font)


def answers_of(data: Examples) -> Answers:
    """What a perfect network would say."""
    targets = targets_of(data.things)

    def one_hot(classes: torch.Tensor, count: int) -> torch.Tensor:
        hot = torch.nn.functional.one_hot(classes.clamp(min=0), count).float() * 20
        return hot.movedim(-1, 1)

    return Answers(
        torch.logit(targets.centres, eps=1e-4),
        one_hot(targets.concepts, len(CONCEPTS)),
        one_hot(targets.colours, 1 + len(TINTS)),
        one_hot(data.backgrounds, 20),
        one_hot(data.styles, 7),
    )


class Oracle(Recogniser):
    """Answers with what was drawn, read from targets by the network's own rules."""

    def __init__(self, things: list[np.ndarray]) -> None:
        super().__init__(CONCEPTS, (), (), (), NARROW)
        self.things = torch.from_numpy(np.stack(things))

    def read(self, pixels: torch.Tensor) -> list[Findings]:
        rows, self.things = self.things[: len(pixels)], self.things[len(pixels) :]
        nothing = torch.zeros(len(rows), dtype=torch.long)
        return train_recogniser.new_judge(NARROW).findings(
            answers_of(Examples(pixels, rows, nothing, nothing))
        )


def test_targets_read_back_as_the_things_that_were_drawn(shapes: GlyphSource) -> None:
    rng = random.Random(4)
    plans = [plan for plan in held_out_plans()[:60] if plan.kind != "single"]
    scenes = [compose(plan, shapes, 128, rng) for plan in plans]
    found = Oracle([things_of(scene, shapes) for scene in scenes]).recognise(
        np.zeros((len(scenes), 128, 128, 3), dtype=np.uint8)
    )
    for plan, scene, findings in zip(plans, scenes, found, strict=True):
        assert is_right(question_of(plan), findings), plan
        assert not is_right(question_of(plan), replace(findings, found=findings.found[1:])), plan
        for one in findings.found:  # half of the lengths, because findings are in px of 64
            assert min(
                max(abs(thing.x / 2 - one.x), abs(thing.y / 2 - one.y)) for thing in scene.objects
            ) < 4, plan  # fmt: skip


def test_two_neighbours_that_are_equally_sure_are_one_thing() -> None:
    nothing = targets_of(torch.zeros(1, 5, 6))
    answers = answers_of(Examples(*(torch.zeros(1, 5, 6),) * 2, *(torch.zeros(1, dtype=torch.long),) * 2))
    answers.centres[0, 4, 4:6] = 40  # exactly 1.0 in fp32, both
    assert nothing.centres.sum() == 0
    (findings,) = train_recogniser.new_judge(NARROW).findings(answers)
    assert findings.count(CONCEPTS[0]) == 1
    assert (findings.found[0].x, findings.found[0].y) == pytest.approx((20, 18), abs=0.1)


def test_what_lies_outside_or_shows_no_colour_is_not_asked_for() -> None:
    things = torch.zeros(1, 5, 6)
    things[0, 0] = torch.tensor([3, 20, 100, 40, 20, UNKNOWN])
    things[0, 1] = torch.tensor([9, -3, 60, 30, 30, 4])  # moved out of the picture
    targets = targets_of(things)
    assert targets.centres[0, 12, 2] == 1 and (targets.centres == 1).sum() == 1
    assert set(targets.concepts.unique().tolist()) == {UNKNOWN, 2}
    assert set(targets.colours.unique().tolist()) == {UNKNOWN}


def test_a_thing_has_the_colour_that_it_has_by_nature(glyphs: GlyphSource) -> None:
    assert natural_colour("rose", glyphs) == "red"
    assert natural_colour("dog", glyphs) is None and natural_colour("panda", glyphs) is None


def test_the_table_of_natural_colours_says_what_a_tint_hardly_changes(
    glyphs: GlyphSource, ten: frozenset[str]
) -> None:
    def change(concept: str, colour: str) -> float:
        own, tinted = (
            np.asarray(picture, dtype=float)
            for picture in (glyphs.full(concept), tint(glyphs.full(concept), colour))
        )
        return float(np.abs(tinted - own)[own[..., 3] > 200][:, :3].mean())

    known = ten & TINTABLE
    changes = {concept: {colour: change(concept, colour) for colour in TINTS} for concept in known}
    nearest = {concept: min(row, key=row.__getitem__) for concept, row in changes.items()}
    assert {concept: NATURAL[concept] for concept in known & set(NATURAL)} == {
        concept: colour for concept, colour in nearest.items() if changes[concept][colour] < NEARLY_THE_SAME
    }
    assert set(NATURAL) <= TINTABLE and len(known & set(NATURAL)) >= 3


def test_moving_moves_the_boxes_along() -> None:
    torch.manual_seed(1)
    pixels, boxes = torch.zeros(8, 3, 128, 128), torch.zeros(8, 1, 6)
    pixels[:, :, 40:48, 76:84] = 1
    boxes[:, 0] = torch.tensor([5, 80, 44, 8, 8, 2])
    moved, things = spoiling.move(pixels, boxes, 1.2)
    weight = moved[:, 0] / moved[:, 0].sum(dim=(1, 2), keepdim=True)
    middles = torch.arange(128) + 0.5
    x, y = (weight.sum(dim=1) * middles).sum(dim=1), (weight.sum(dim=2) * middles).sum(dim=1)
    assert torch.stack([x, y], 1).sub(things[:, 0, 1:3]).abs().max() < 3  # the wobble's share
    assert (x - 80).abs().max() > 3
    assert (things[:, 0, [0, 5]] == torch.tensor([5.0, 2.0])).all()


def test_spoiling_changes_no_colour_name(glyphs: GlyphSource) -> None:
    names, values = list(FLAT), np.array(list(FLAT.values()), dtype=np.uint8)
    plain = values[:, None, None].repeat(128, 1).repeat(128, 2)
    means = spoilt(plain).mean(axis=(1, 2))
    nearest = np.linalg.norm(means[:, None] - values[None], axis=2).argmin(axis=1)
    assert [names[k] for k in nearest] == names
    assert np.abs(spoilt(plain).astype(int) - plain).mean() > 2


def test_weights_survive_a_round_trip(
    tmp_path: Path, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model, path = train_recogniser.new_judge(), tmp_path / "judge.safetensors"
    save_recogniser(model, path)
    loaded = load_recogniser(path)
    assert loaded.widths == model.widths
    assert (loaded.backgrounds, loaded.colours, loaded.styles) == (
        model.backgrounds, model.colours, model.styles,
    )  # fmt: skip
    assert path.stat().st_size <= 4_000_000
    pixels = examples.pictures[:2].permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        assert torch.allclose(loaded(pixels).concepts, model.eval()(pixels).concepts, atol=2e-2)
    other = replace(read_vocabulary(), concepts={"dog": ()})
    monkeypatch.setattr("t2i.evaluation.recogniser.read_vocabulary", lambda: other)
    with pytest.raises(ValueError, match="other classes"):
        load_recogniser(path)


COURSE = train_recogniser.Course(steps=4, batch_size=4, scenes=48, save_every=2)


def test_a_stopped_training_arrives_at_the_same_weights(tmp_path: Path, examples: Examples) -> None:
    def run(name: str, *stops: int | None) -> dict[str, torch.Tensor]:
        for stop_after in stops:
            torch.manual_seed(0)
            model = train_recogniser.new_judge(NARROW)
            checkpoint = train_recogniser.Checkpoint(tmp_path / name, COURSE)
            train_recogniser.train(model, examples, COURSE, checkpoint, lambda values: None, stop_after)
        return model.state_dict()

    whole, stopped = run("whole", None), run("stopped", 2, None)
    assert all(torch.equal(tensor, stopped[name]) for name, tensor in whole.items())
    other = train_recogniser.Checkpoint(tmp_path / "whole", replace(COURSE, steps=5))
    with pytest.raises(SystemExit, match="another course"):
        model = train_recogniser.new_judge(NARROW)
        train_recogniser.train(model, examples, replace(COURSE, steps=5), other, lambda values: None)


def test_one_batch_is_learnt_by_heart(examples: Examples) -> None:
    torch.manual_seed(0)
    model = train_recogniser.new_judge(NARROW).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rows = slice(0, 8)
    pixels = examples.pictures[rows].permute(0, 3, 1, 2).float() / 127.5 - 1
    targets = targets_of(examples.things[rows])
    totals = []
    for _ in range(30):
        parts = train_recogniser.losses(
            model(pixels), targets, examples.backgrounds[rows], examples.styles[rows]
        )
        totals.append({name: part.item() for name, part in parts.items()})
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        optimizer.step()
    assert all(totals[-1][name] < 0.5 * totals[0][name] for name in totals[0])


def test_the_figures_tell_a_seeing_judge_from_a_blind_one(glyphs: GlyphSource) -> None:
    plans = [
        Plan("single", (Part("dog"),), "beach"),
        Plan("counted", (Part("car", count=5),), "white"),
        Plan("pair", (Part("cat"), Part("rose")), "gray", "above"),
        Plan("coloured pair", (Part("dog", "blue"), Part("car", "red")), "white", "and"),
    ]
    wrong = [contradicted(plan, plans[(row + 1) % 4]) for row, plan in enumerate(plans)]
    assert wrong[1].parts[0].count == 2 and wrong[2].relation == "below"
    assert [part.colour for part in wrong[3].parts] == ["red", "blue"]

    class Blind(Oracle):
        def __init__(self) -> None:
            super().__init__([np.zeros((5, 6), dtype=np.float32)] * 12)

    class Seeing(Oracle):
        """Is shown the true scenes, the same ones spoilt, and the wrong ones, in this order."""

        def __init__(self) -> None:
            things = [things_of(compose(plan, glyphs, 128, random.Random(1)), glyphs) for plan in plans]
            others = [things_of(compose(plan, glyphs, 128, random.Random(1)), glyphs) for plan in wrong]
            super().__init__([*things, *things, *others])

    figures = judge_plans(Seeing(), plans, glyphs, 1)
    assert all(row["right"]["percent"] == row["right, spoilt"]["percent"] == 100 for row in figures.values())
    assert all(row["wrongly right"]["percent"] == 0 for row in figures.values())
    figures = judge_plans(Blind(), plans, glyphs, 1)
    assert set(figures) == {"single object", "counting", "position", "attribute binding"}
    assert all(column["right"] == 0 for row in figures.values() for column in row.values())


@pytest.mark.slow
def test_the_quick_recipe_runs_from_nothing_to_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train", "--work", str(tmp_path), "--quick", "--workers", "1"])
    train_recogniser.main()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]
    record = json.loads((tmp_path / "recogniser.json").read_text())
    assert set(record["renderings"]) >= {"counting", "position", "attribute binding", "colours"}
    assert record["renderings"]["colours"]["right"]["percent"] >= record["renderings"]["colours"][
        "wrongly right"
    ]["percent"]  # fmt: skip
