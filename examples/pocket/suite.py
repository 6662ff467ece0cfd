"""Write what `t2i eval` takes from here: the vocabulary of the recogniser and the suite.

    python examples/pocket/suite.py
    python examples/pocket/suite.py --ten prompts.jsonl     for models of the ten glyphs (`make.sh --quick`)

The suite asks, in the six categories of GenEval, for the combinations that pocket never saw
(`holdout.HeldOut`), in the plainest words of the captions. A test compares both files in the package with
what this script would write.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import backgrounds
import words
from glyphs import all_concepts
from holdout import held_out
from mixtures import MIXTURES, Mixture
from phrasings import CONTENT_PHRASES, plain_caption
from plans import Part, Plan, draw_kind, draw_plan
from styles import STYLES
from tints import NATURAL, TINTS
from visibility import HIDES, NEUTRAL, SWALLOWS

from t2i.evaluation.questions import CATEGORIES, Question
from t2i.evaluation.vocabulary import PLACES

ASSETS = Path(__file__).parents[2] / "t2i" / "assets"
SEED = 3


def vocabulary() -> dict[str, object]:
    """The recogniser's classes, in their order, with the words for each."""

    def singular(name: str) -> list[str]:
        return [words.main_word(name), *words.SYNONYMS.get(name, ())]

    countable = [name for name in all_concepts() if name not in words.UNCOUNTED]
    said = {name: [phrase.lstrip(", ") for phrase in phrases] for name, phrases in CONTENT_PHRASES.items()}
    return {
        "concepts": {name: [word for word in singular(name) if word != name] for name in all_concepts()},
        "plurals": {name: [words.plural(word) for word in singular(name)] for name in countable},
        "backgrounds": {name: said.get(name, []) for name in backgrounds.BACKGROUNDS},
        "colours": list(TINTS),
        "natural": NATURAL,
        "styles": list(STYLES),
    }


def category_of(plan: Plan) -> str | None:
    """Which kind of question a scene answers, or None."""
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
    """A flat colour before which all of these can be seen; a neutral one if all have colours of their own."""
    return rng.choice([
        name
        for name in (NEUTRAL if all(part.colour for part in parts) else backgrounds.FLAT)
        if not any(
            part.colour in SWALLOWS[name] if part.colour else part.concept in HIDES.get(name, ())
            for part in parts
        )
    ])  # fmt: skip


def held_out_plans() -> list[Plan]:
    """One scene for each of the 600 held-out combinations, category by category in turn."""
    rng, held = random.Random(SEED), held_out()

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


def questions_of_ten() -> list[Question]:
    """For each of the ten things on its colours, large as they were learnt: which thing, which colour?"""
    mixture = MIXTURES["quick"]
    questions = []
    for thing in sorted(mixture.concepts):
        for colour in (name for name in mixture.backgrounds if thing not in HIDES.get(name, ())):
            prompt = plain_caption(Plan("single", (Part(thing, size=mixture.size),), colour))
            questions.append(Question(prompt, "single object", (thing,)))
            questions.append(Question(prompt, "colours", (thing,), colour))
    return questions


def lines(questions: list[Question]) -> str:
    """A suite as text, a question a line."""
    return "".join(json.dumps(question.to_dict(), ensure_ascii=False) + "\n" for question in questions)


def files() -> dict[Path, str]:
    """Path → contents of the files in the package."""
    return {
        ASSETS / "recogniser" / "vocabulary.json": json.dumps(vocabulary(), indent=1) + "\n",
        ASSETS / "suites" / "pocket.jsonl": lines([question_of(plan) for plan in held_out_plans()]),
    }


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--ten", type=Path, metavar="FILE", help="write a suite of the ten things, and only that"
    )
    options = parser.parse_args()
    texts = files() if options.ten is None else {options.ten: lines(questions_of_ten())}
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"{path}, {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
