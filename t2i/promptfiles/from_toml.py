"""`.toml`: `[[prompts]]` tables or `prompts = ["a fox", …]`; the keys before them are defaults.

    steps = 30

    [[prompts]]
    prompt = "a fox"
    seed = 7

The standard library's `tomllib` reads the file (TOML 1.0.0) but tells no lines; a second, small pass over the
same text finds them. A file that is not TOML at all has one mistake: where the reader stopped.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from t2i.promptfiles.mistakes import Mistakes
from t2i.promptfiles.sources import Item, Parsed, Record

LIST = "prompts"
TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*|[\[\]{},=\n]|[^\s\"'\#\[\]{},=]+|[^\S\n]+",
    re.DOTALL,
)


def read(text: str, mistakes: Mistakes) -> Parsed:
    """The tables of a TOML file.

    Args:
        text: With plain newlines.
        mistakes: Where the reader's complaint or a wrong `prompts` is noted.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, a number of thousands of digits
        found = re.search(r" ?\(at line (\d+), column \d+\)", str(error))
        at_end = "end of document" in str(error)
        line = int(found[1]) if found else len(text.rstrip().split("\n")) if at_end else None
        mistakes.add(line, f"not TOML: {str(error).replace(found[0], '') if found else error}")
        return Parsed(None, [])
    key_lines, element_lines = lines_of(text)
    tables = document.pop(LIST, [])
    defaults = Record(1, _items(document, key_lines.get(0, {}), 1)) if document else None
    if not isinstance(tables, list):
        mistakes.add(
            key_lines.get(0, {}).get(LIST), "prompts is not a list", "write [[prompts]] above every prompt"
        )
        return Parsed(defaults, [])
    records = []
    for number, table in enumerate(tables, 1):
        line = element_lines[number - 1] if number <= len(element_lines) else 1
        if isinstance(table, str):
            table = {"prompt": table}
        if isinstance(table, dict):
            records.append(Record(line, _items(table, key_lines.get(number, {}), line)))
        else:
            mistakes.add(line, "neither a table nor text", 'for example [[prompts]] and prompt = "a fox"')
    return Parsed(defaults, records)


def _items(table: dict[str, Any], lines: dict[str, int], line: int) -> tuple[Item, ...]:
    return tuple(Item(key, value, lines.get(key, line)) for key, value in table.items())


def lines_of(text: str) -> tuple[dict[int, dict[str, int]], list[int]]:
    """Where things stand in a text that is valid TOML.

    Returns:
        For each table (0 = the top, then the `[[prompts]]` in order) key → line; and the line of each element
        of `prompts`, whether it is a table or stands in an array.
    """
    keys: dict[int, dict[str, int]] = {0: {}}
    elements: list[int] = []
    table: int | None = 0
    for statement in _statements(text):
        words = [token for token, _ in statement]
        line = statement[0][1]
        if words[0] == "[":  # a header; [[prompts]] begins the next one, any other is none of ours
            table = None
            if words[:2] == ["[", "["] and _bare(words[2]) == LIST and words[3] == "]":
                elements.append(line)
                table = len(elements)
                keys[table] = {}
        elif table is not None and words[1] == "=":
            keys[table].setdefault(_bare(words[0]), line)
            if table == 0 and _bare(words[0]) == LIST:
                elements += _element_lines(statement[2:])
    return keys, elements


def _statements(text: str) -> Iterator[list[tuple[str, int]]]:
    """The (token, line) of each header and each `key = value`, without space and comments."""
    statement: list[tuple[str, int]] = []
    line, depth = 1, 0
    for found in TOKEN.finditer(text):
        token = found.group()
        if token == "\n" and depth == 0 and statement:
            yield statement
            statement = []
        elif not token.isspace() and token[0] != "#":
            statement.append((token, line))
        depth += (token in "[{") - (token in "]}")
        line += token.count("\n")
    if statement:
        yield statement


def _element_lines(value: list[tuple[str, int]]) -> Iterator[int]:
    """The line of each element of an array."""
    depth, awaited = 0, False
    for token, line in value:
        if depth == 1 and awaited and token != "]":
            yield line
            awaited = False
        depth += (token in "[{") - (token in "]}")
        if depth == 1 and token in "[,":
            awaited = True


def _bare(key: str) -> str:
    return key[1:-1] if key[0] in "\"'" else key
