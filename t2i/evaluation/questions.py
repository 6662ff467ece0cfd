"""The prompts of an evaluation and what each asks for: built-in suites, prompt files, single prompts.

The categories are those of GenEval (Ghosh et al. 2023, arXiv:2310.11513). Standard library only; whether a
picture answers a question is decided in `t2i.evaluation.adherence`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from t2i.catalog import ASSETS
from t2i.errors import DatasetError, UsageError
from t2i.evaluation.vocabulary import PLACES, Vocabulary, read_vocabulary

SUITES = {path.stem: path for path in sorted((ASSETS / "suites").glob("*.jsonl"))}
DEFAULT_SUITE = "pocket"
SUFFIXES = (".txt", ".jsonl")


CATEGORIES: dict[str, str] = {
    "single object": "the clearest thing is the one asked for",
    "two objects": "both things are there",
    "counting": "there are as many as asked for",
    "colours": "the thing is there and the background has the colour asked for",
    "position": "both things are there and stand as asked for",
    "attribute binding": "each of two things has its own colour",
}
"""Kind of question → when a picture counts as right, for people.

Only "colours" looks behind the things; a background named in other questions counts in "backgrounds right".
"""


@dataclass(frozen=True)
class Question:
    """One prompt and what its picture must show.

    Attributes:
        prompt: What the model is asked to draw.
        category: A key of `CATEGORIES`; empty if nobody knows what to look for.
        things: Concepts that must be there.
        background: Its name: a colour, or a place such as beach.
        relation: How the first thing stands to the second: left of, right of, above, below.
        count: How many of the thing.
        colours: The colour of each thing.
    """

    prompt: str
    category: str = ""
    things: tuple[str, ...] = ()
    background: str | None = None
    relation: str | None = None
    count: int | None = None
    colours: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for one line of a suite, without what is not asked for."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value not in ("", (), None)
        }


def read_questions(source: str) -> tuple[Question, ...]:
    """The questions of a built-in suite or of a prompt file.

    Args:
        source: A name out of `SUITES`; a .txt with a prompt a line; or a .jsonl with "prompt" and, if wanted,
            the other fields of `Question`. Prompts without a category are read with the recogniser's own
            vocabulary.

    Raises:
        UsageError: Neither a suite nor a .txt or .jsonl name.
        DatasetError: Missing, unreadable or empty file, or a line that makes no sense.
    """
    words = read_vocabulary()
    if source in SUITES:
        return tuple(_of_rows(SUITES[source], _lines(SUITES[source]), words))
    path = Path(source)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"--prompts {source}: neither a suite nor a prompt file",
            f"suites: {', '.join(SUITES)}; files: {', '.join(SUFFIXES)}",
        )
    lines = _lines(path)
    if path.suffix.lower() == ".txt":
        return tuple(question for _, line in lines for question in _understand(line, words))
    return tuple(_of_rows(path, lines, words))


def understand(prompt: str) -> tuple[Question, ...]:
    """The questions that a prompt without annotations puts, or the bare prompt if it is not understood."""
    return _understand(prompt, read_vocabulary())


def _understand(prompt: str, words: Vocabulary) -> tuple[Question, ...]:
    meaning = words.understand(prompt)
    if meaning is None:
        return (Question(prompt),)
    things, background = meaning.things, meaning.background
    if meaning.colours:
        return (Question(prompt, "attribute binding", things, background, colours=meaning.colours),)
    if meaning.count is not None:
        return (Question(prompt, "counting", things, background, count=meaning.count),)
    if len(things) == 2:
        category = "two objects" if meaning.relation is None else "position"
        return (Question(prompt, category, things, background, meaning.relation),)
    if background is None or background in words.places:
        return (Question(prompt, "single object", things, background),)
    return Question(prompt, "single object", things), Question(prompt, "colours", things, background)


def by_prompt(questions: Iterable[Question]) -> dict[str, tuple[Question, ...]]:
    """Prompt → its questions, in the order of the first mention: a prompt is drawn once for all of them."""
    found: dict[str, tuple[Question, ...]] = {}
    for question in questions:
        found[question.prompt] = (*found.get(question.prompt, ()), question)
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    """(line number, text) of the lines that are not empty."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"prompt file {path} does not exist", f"suites: {', '.join(SUITES)}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DatasetError(f"prompt file {path} cannot be read: {why}") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DatasetError(f"prompt file {path} holds no prompt")
    return lines


def _of_rows(path: Path, lines: Iterable[tuple[int, str]], words: Vocabulary) -> Iterable[Question]:
    for number, line in lines:
        where = f"{path.name}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{where}: not JSON") from error
        if not isinstance(row, dict) or not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
            raise DatasetError(f'{where}: needs a "prompt"')
        if row.get("category"):
            yield _question(where, row, words)
        else:
            yield from _understand(row["prompt"].strip(), words)


def _question(where: str, row: Mapping[str, Any], words: Vocabulary) -> Question:
    """One annotated line, checked."""
    known = {item.name for item in fields(Question)}
    unknown = sorted(set(row) - known)
    if unknown:
        raise DatasetError(f"{where}: unknown field {unknown[0]!r}", f"known: {', '.join(sorted(known))}")
    category, count, relation = row["category"], row.get("count"), row.get("relation")
    if not isinstance(category, str) or category not in CATEGORIES:
        raise DatasetError(f"{where}: unknown category {category!r}", f"known: {', '.join(CATEGORIES)}")
    lists = {name: row.get(name, []) for name in ("things", "colours")}
    for name, values in lists.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise DatasetError(f"{where}: {name} must be a list of words")
    things = len(lists["things"])
    background = row.get("background")
    strange = [name for name in lists["things"] if name not in words.concepts]
    if strange:
        raise DatasetError(f"{where}: the recogniser does not know {strange[0]!r}")
    problems = {
        "needs two things": category in ("two objects", "position", "attribute binding") and things != 2,
        "needs one thing": category in ("single object", "counting", "colours") and things != 1,
        f"needs a relation out of {', '.join(PLACES)}": category == "position" and relation not in PLACES,
        f"needs a background out of {', '.join(words.backgrounds)}": (
            category == "colours" or background is not None
        ) and background not in words.backgrounds,
        "needs two different things": len(set(lists["things"])) < things,
        "needs a count of at least 1": (
            category == "counting" and (type(count) is not int or count < 1)
        ),
        "needs a colour for each thing": (
            category == "attribute binding" and len(lists["colours"]) != things
        ),
        f"needs colours out of {', '.join(words.colours)}": not set(lists["colours"]) <= set(words.colours),
    }  # fmt: skip
    for problem, is_so in problems.items():
        if is_so:
            raise DatasetError(f"{where}: {category} {problem}")
    return Question(
        row["prompt"].strip(), category, tuple(lists["things"]), background, relation, count,
        tuple(lists["colours"]),
    )  # fmt: skip
