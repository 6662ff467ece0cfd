"""Write what `t2i eval` takes from here: the recogniser's vocabulary and the suite of prompts.

    python examples/pocket/suite.py

The suite asks, in the six categories of GenEval, for combinations that pocket never saw: things on
backgrounds and pairs of things out of the held-out lists. No number of things and no coloured thing was ever
rendered, so those two categories need no list. A test compares both files with what this script would write.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from captions import BACKGROUNDS, NO_ARTICLE, SYNONYMS, phrase, with_article
from glyphs import core_concepts
from holdout import held_out_backgrounds, held_out_pairs
from words import plural

from t2i.evaluation.questions import Question
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


def files() -> dict[Path, str]:
    """Path → contents of both files."""
    lines = [json.dumps(question.to_dict(), ensure_ascii=False) + "\n" for question in suite()]
    return {
        ASSETS / "recogniser" / "vocabulary.json": json.dumps(vocabulary(), indent=1) + "\n",
        ASSETS / "suites" / "pocket.jsonl": "".join(lines),
    }


def main() -> None:
    """Write both files."""
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"{path}, {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
