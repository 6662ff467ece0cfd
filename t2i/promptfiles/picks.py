"""Picks that no other wildcard can change.

Picks do not come from one stream of random numbers, in which every wildcard moves all that follow. Each
comes from SHA-256 of (seed, scope, own text, occurrence): the text is the group as written or `__name__`;
the occurrence counts equal texts before it, from 0; the scope is the pick inside of whose text it stands,
or the prompt. So adding, moving or deleting a wildcard leaves the picks of all others alone, and picks are
the same on every machine and Python.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Protocol

from t2i.promptfiles.wildcards import Choice, Choices, Group, Reference, Template


class Source(Protocol):
    """Where `__name__` finds its choices; see `t2i.promptfiles.wildcard_files`."""

    def of(self, name: str) -> Choices:
        """The choices of a name.

        Raises:
            UsageError: There is none of that name.
        """
        ...


def render(template: Template, seed: int, scope: str, source: Source) -> str:
    """The text that a seed picks.

    Args:
        template: From `parse`, and checked: every name exists and none contains itself.
        seed: Of the picture.
        scope: What keeps equal wildcards apart that stand in different texts, such as "prompt".
        source: Where names are found.
    """
    seen: Counter[str] = Counter()
    written = []
    for part in template:
        if isinstance(part, str):
            written.append(part)
            continue
        # The wildcard comes last: nothing before it has a line end, so no two keys are the same text.
        key = f"{seed}\n{scope}\n{seen[part.text]}\n{part.text}"
        seen[part.text] += 1
        texts = [
            render(one.parts, seed, f"{_number(key):064x}:{position}", source)
            for position, one in enumerate(_draw(part, key, source))
        ]
        written.append(part.joint.join(texts) if isinstance(part, Group) else texts[0])
    return "".join(written)


def choices_of(part: Group | Reference, source: Source) -> Choices:
    """What a wildcard picks from. Several from one lone name are different lines of that file.

    Raises:
        UsageError: There is no such name.
    """
    if isinstance(part, Reference):
        return source.of(part.name)
    if part.single:
        return part.choices
    only = part.choices.items[0].parts if len(part.choices.items) == 1 else ()
    lone = only[0] if len(only) == 1 else None
    return (source.of(lone.name) if isinstance(lone, Reference) else part.choices).distinct()


def _draw(part: Group | Reference, key: str, source: Source) -> list[Choice]:
    left = choices_of(part, source)
    if isinstance(part, Reference) or part.single:
        return [left.items[left.index(_number(key))]]
    high = len(left.items) if part.high is None else part.high
    drawn: list[Choice] = []
    for position in range(part.low + _number(f"count\n{key}") % (high - part.low + 1)):
        index = left.index(_number(f"{position}\n{key}"))
        drawn.append(left.items[index])
        left = Choices((*left.items[:index], *left.items[index + 1 :]))
    return drawn


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest())
