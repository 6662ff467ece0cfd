"""Write what `t2i eval` takes from here: for each version a vocabulary of the recogniser and a suite.

    python examples/pocket/suite.py

Both suites ask, in the six categories of GenEval, for combinations that pocket never saw. Version 0: things
on backgrounds and pairs of things out of the held-out lists; no number of things and no coloured thing was
ever rendered, so those two categories need no list. Version 1: a held-out list for each category
(`holdout.HeldOut`), in the plainest words of the captions. A test compares all files with what this script
would write.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import backgrounds
import words
from captions import BACKGROUNDS, NO_ARTICLE, SYNONYMS, phrase, with_article
from glyphs import all_concepts, core_concepts
from holdout import held_out_backgrounds, held_out_pairs, held_out_v1
from mixtures import Mixture
from phrasings import plain_caption
from plans import Part, Plan, draw_kind, draw_plan
from styles import STYLES
from tints import TINTS
from visibility import HIDES, SWALLOWS
from words import plural

from t2i.evaluation.questions import CATEGORIES, Question
from t2i.evaluation.vocabulary import PLACES

ASSETS = Path(__file__).parents[2] / "t2i" / "assets"
SEED = 3
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black")
SAME_IN_PLURAL = {"sheep", "fish", "grapes", "glasses", "fire", "lightning", "earth"}
PLAIN_WORDS = {"red apple": "apple"}  # where the name itself has a colour in it


def coloured(colour: str, concept: str) -> str:
    """A thing with a colour of its own: 'a red car', 'an orange frog', 'green grapes'."""
    words = f"{colour} {PLAIN_WORDS.get(concept, concept)}"
    return words if concept in NO_ARTICLE else with_article(words)


def vocabulary() -> dict[str, object]:
    """The recogniser's classes, in their order, with the other words for each."""
    concepts = {name: list(SYNONYMS.get(name, ())) for name in core_concepts()}
    return {"concepts": concepts, "backgrounds": list(BACKGROUNDS)}


def suite() -> list[Question]:
    """The questions, category by category in turn, so that the first few of them are of every kind."""
    rng = random.Random(SEED)
    countable = [name for name in core_concepts() if name not in SAME_IN_PLURAL]
    counted = [(list(NUMBERS)[k % len(NUMBERS)], name) for k, name in enumerate(rng.sample(countable, 100))]
    columns: list[list[Question]] = [[] for _ in range(6)]
    for k, ((thing, colour), pair, (number, many)) in enumerate(
        zip(held_out_backgrounds(), held_out_pairs(), counted, strict=True)
    ):
        on_colour = phrase((thing,), None, colour)
        relation = list(PLACES)[k % len(PLACES)]
        first, second = rng.sample(COLOURS, 2)
        bound = f"{coloured(first, pair[0])} and {coloured(second, pair[1])}"
        row = (
            Question(on_colour, "single object", (thing,)),
            Question(phrase(pair, "and", None), "two objects", pair),
            Question(
                f"{NUMBERS[number]} {plural(PLAIN_WORDS.get(many, many))}", "counting", (many,), count=number
            ),
            Question(on_colour, "colours", (thing,), colour),
            Question(phrase(pair, relation, None), "position", pair, relation=relation),
            Question(bound, "attribute binding", pair, colours=(first, second)),
        )
        for column, question in zip(columns, row, strict=True):
            column.append(question)
    return [question for row in zip(*columns, strict=True) for question in row]


def vocabulary_v1() -> dict[str, object]:
    """The classes of version 1, in their order, with the other words for each concept."""
    others = {
        name: [word for word in (words.main_word(name), *words.SYNONYMS.get(name, ())) if word != name]
        for name in all_concepts()
    }
    return {
        "version": 1,
        "concepts": others,
        "backgrounds": list(backgrounds.BACKGROUNDS),
        "colours": list(TINTS),
        "styles": list(STYLES),
    }


def category_of(plan: Plan) -> str | None:
    """Which kind of question a scene of version 1 answers, or None."""
    if plan.style is not None or plan.place is not None:
        return None
    if plan.kind == "single":
        return "single object" if plan.background in backgrounds.CONTENT else "colours"
    if plan.kind == "pair":
        return "position" if plan.relation in PLACES else "two objects"
    return {"counted": "counting", "coloured pair": "attribute binding"}.get(plan.kind)


def question_of(plan: Plan) -> Question:
    """What the evaluation asks so that this scene would be a right answer.

    The prompt names the background where that is what is new, and nowhere else.

    Raises:
        ValueError: No category asks for such a scene.
    """
    category = category_of(plan)
    if category is None:
        raise ValueError(f"no category asks for {plan}")
    behind = category in ("single object", "colours")
    return Question(
        plain_caption(plan, names_background=behind),
        category,
        plan.concepts,
        plan.background if behind else None,
        plan.relation if category == "position" else None,
        plan.parts[0].count if category == "counting" else None,
        tuple(str(part.colour) for part in plan.parts) if category == "attribute binding" else (),
    )


def _free_background(rng: random.Random, parts: tuple[Part, ...]) -> str:
    """A flat colour before which all of these can be seen."""
    return rng.choice([
        name
        for name in backgrounds.FLAT
        if not any(
            part.colour in SWALLOWS[name] if part.colour else part.concept in HIDES.get(name, ())
            for part in parts
        )
    ])  # fmt: skip


def held_out_plans() -> list[Plan]:
    """One scene for each of the 600 held-out combinations, category by category in turn."""
    rng, held = random.Random(SEED), held_out_v1()

    def pair(a: Part, b: Part, relation: str, kind: str = "pair") -> Plan:
        return Plan(kind, (a, b), _free_background(rng, (a, b)), relation)

    columns: list[list[Plan]] = [
        [Plan("single", (Part(thing),), behind) for thing, behind in held.single_object],
        [pair(Part(a), Part(b), "and") for a, b in held.two_objects],
        [
            Plan("counted", (part,), _free_background(rng, (part,)))
            for part in (Part(thing, count=number) for thing, number in held.counting)
        ],
        [Plan("single", (Part(thing),), behind) for thing, behind in held.colours],
        [pair(Part(a), Part(b), relation) for a, relation, b in held.position],
        [pair(Part(*a), Part(*b), "and", "coloured pair") for a, b in held.attribute_binding],
    ]
    return [plan for row in zip(*columns, strict=True) for plan in row]


def drawn_plans(mixture: Mixture, per_category: int) -> list[Plan]:
    """Scenes of a mixture, held out or not, so many for each category of questions."""
    rng, found = random.Random(SEED), {name: list[Plan]() for name in CATEGORIES}
    while any(len(plans) < per_category for plans in found.values()):
        plan = draw_plan(rng, draw_kind(rng, mixture), mixture)
        category = category_of(plan)
        if category is not None and len(found[category]) < per_category:
            found[category].append(plan)
    return [plan for plans in found.values() for plan in plans]


def files() -> dict[Path, str]:
    """Path → contents of all files."""

    def lines(questions: list[Question]) -> str:
        rows = (json.dumps(question.to_dict(), ensure_ascii=False) + "\n" for question in questions)
        return "".join(rows)

    return {
        ASSETS / "recogniser" / "vocabulary.json": json.dumps(vocabulary(), indent=1) + "\n",
        ASSETS / "recogniser-v1" / "vocabulary.json": json.dumps(vocabulary_v1(), indent=1) + "\n",
        ASSETS / "suites" / "pocket.jsonl": lines(suite()),
        ASSETS / "suites" / "pocket-v1.jsonl": lines([question_of(plan) for plan in held_out_plans()]),
    }


def main() -> None:
    """Write the files."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"{path}, {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
