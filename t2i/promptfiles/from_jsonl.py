"""`.jsonl`: one JSON object a line (https://jsonlines.org), or a JSON string, which is a prompt.

    {"defaults": {"steps": 30, "negative_prompt": "blurry"}}        the first line may give defaults
    {"prompt": "a fox", "seed": 7, "size": "512x768", "name": "fox"}
    "a castle"

RFC 8259 leaves open what two equal keys mean, and has no NaN: both are mistakes here. Blank lines are
skipped.
"""

from __future__ import annotations

import json
from typing import Any

from t2i.promptfiles.mistakes import Mistakes
from t2i.promptfiles.sources import Item, Parsed, Record


class _Pairs(list[tuple[str, Any]]):
    """An object with all its keys, those that stand twice as well."""


_decoder = json.JSONDecoder(object_pairs_hook=_Pairs)


def read(text: str, mistakes: Mistakes) -> Parsed:
    """The lines of a JSON Lines file.

    Args:
        text: With plain newlines.
        mistakes: Where lines that are not JSON objects are noted.
    """
    defaults, records, first = None, [], True
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        pairs = _pairs(line, number, mistakes)
        if pairs is None:
            continue
        if first and len(pairs) == 1 and pairs[0][0] == "defaults" and isinstance(pairs[0][1], _Pairs):
            defaults = _record(pairs[0][1], number)
        else:
            records.append(_record(pairs, number))
        first = False
    return Parsed(defaults, records)


def _pairs(line: str, number: int, mistakes: Mistakes) -> _Pairs | None:
    try:
        value = _decoder.decode(line)
    except json.JSONDecodeError as error:
        mistakes.add(number, f"not JSON: {error.msg} in column {error.colno}")
        return None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, endless brackets
        mistakes.add(number, f"not JSON that can be read: {error}")
        return None
    if isinstance(value, str):
        return _Pairs([("prompt", value)])
    if not isinstance(value, _Pairs):
        mistakes.add(number, "not a JSON object", 'for example {"prompt": "a fox", "seed": 7}')
        return None
    return value


def _record(pairs: _Pairs, number: int) -> Record:
    return Record(
        number,
        tuple(Item(key, {} if isinstance(value, _Pairs) else value, number) for key, value in pairs),
    )
