"""Wildcards: the places of a prompt where one of several texts is picked, and how they are written.

    {red|green|blue}              one of them
    {2$$red|green|blue}           two different ones, joined by ", "
    {2$$ and $$red|green|blue}    joined by " and "
    {1-2$$red|green|blue}         one or two; {-2$$…} is the same, {1-$$…} is one to all
    {3::red|green}                red three times as often
    __colour__, __a/b__           a line of colour.txt, a/b.txt in the folder of wildcards
    {2$$__colour__}               two different lines

Groups nest, and the lines of a file may hold wildcards and weights; blank lines and lines that begin with #
do not count. `\\{ \\} \\| \\$ \\__name__` are the characters themselves; any other backslash stays what it
is. The syntax is that of adieyal/sd-dynamic-prompts (docs/SYNTAX.md). What is not read is a mistake, never
text of the prompt: its variables `${…}`, its patterns `__a*__`, and more options than there are.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from t2i.errors import UsageError

DEEPEST = 32
SEPARATOR = ", "
WEIGHT_UNIT = 10**6  # weights are whole numbers of millionths, so that no rounding depends on a machine
# An uneven number of backslashes makes text of the token behind it; others are text themselves.
TOKEN = re.compile(r"(?<!\\)(\\*)(?:(\$?\{|[}|$])|__(?!_)([\w./*-]+?)(?<!_)__(?!_))")
WEIGHT = re.compile(r"\s*(?:(\d{1,6})(?:\.(\d{0,6}))?|\.(\d{1,6}))::")
COUNT = re.compile(r"([^{}|$\\]*)\$\$")
JOINT = re.compile(r"([^{}$\\]*)\$\$")


@dataclass(frozen=True)
class Choice:
    """One of the texts to pick from.

    Attributes:
        text: As written, without its weight.
        parts: The same, parsed.
        weight: How often beside the others, in millionths.
    """

    text: str
    parts: Template
    weight: int = WEIGHT_UNIT


class Choices:
    """What one wildcard picks from, in the order written.

    Attributes:
        items: One or more.
        ends: Running sum of their weights.
    """

    def __init__(self, items: Iterable[Choice]) -> None:
        self.items = tuple(items)
        self.ends = list(accumulate(one.weight for one in self.items))
        self._distinct: Choices | None = None

    def index(self, number: int) -> int:
        """Which one a 256-bit number means."""
        return bisect_right(self.ends, number % self.ends[-1])

    def distinct(self) -> Choices:
        """The same with equal texts once, and without those that are never picked."""
        if self._distinct is None:
            first = {one.text: one for one in reversed(self.items) if one.weight}
            self._distinct = Choices(reversed(first.values()))
        return self._distinct


@dataclass(frozen=True)
class Group:
    """`{…}`. `low` and `high` say how many different choices; `high` None means all there are."""

    text: str
    choices: Choices
    low: int = 1
    high: int | None = 1
    joint: str = SEPARATOR

    @property
    def single(self) -> bool:
        """Whether exactly one choice is picked."""
        return self.low == self.high == 1


@dataclass(frozen=True)
class Reference:
    """`__name__`."""

    text: str
    name: str


Template = tuple[str | Group | Reference, ...]


def parse(text: str) -> Template:
    """The parts of a prompt: text, groups and references. A text without wildcards is one part, itself.

    Raises:
        UsageError: Unbalanced or nested too deeply, a wrong count or weight, or syntax that is not read.
    """
    if not has_marks(text):
        return (text,) if text else ()
    parser = _Parser(text)
    parts = parser.sequence(0)
    if parser.position < len(text):
        raise UsageError("} without a {", r"write \} for the character itself")
    return parts


def has_marks(text: str) -> bool:
    """Whether a text may hold wildcards or escapes at all."""
    return "{" in text or "}" in text or "__" in text or "\\" in text


def is_dynamic(template: Template) -> bool:
    """Whether anything is picked."""
    return any(not isinstance(part, str) for part in template)


def parse_choice(text: str) -> Choice:
    """A line of a wildcard file: `3::red` or plain text, with or without wildcards.

    Raises:
        UsageError: As `parse`.
    """
    weight, begin = _weight(text, 0)
    return Choice(text[begin:], parse(text[begin:]), weight)


def _weight(text: str, begin: int) -> tuple[int, int]:
    """The weight that stands at `begin`, if any, and where the text behind it begins."""
    found = WEIGHT.match(text, begin)
    if not found:
        return WEIGHT_UNIT, begin
    whole, part, bare = found.groups()
    return int(whole or 0) * WEIGHT_UNIT + int((part or bare or "").ljust(6, "0")), found.end()


class _Parser:
    """Recursive descent over one text."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def sequence(self, depth: int) -> Template:
        """Parts up to the end, or, in a group, up to its next | or }, which is left to be read."""
        parts: list[str | Group | Reference] = []
        written: list[str] = []
        begin = self.position
        while found := TOKEN.search(self.text, begin):
            backslashes, mark, name = found.groups()
            written += self.text[begin : found.start()], "\\" * (len(backslashes) // 2)
            begin = self.position = found.start() + len(backslashes)
            if len(backslashes) % 2 or mark == "$" or (mark == "|" and not depth):
                begin += 1 if mark else found.end() - begin
                written.append(self.text[self.position : begin])
                continue
            if mark in ("|", "}"):
                return (*parts, *_text(written))
            if mark == "${":
                raise UsageError("variables ${…} are not read", r"write \$ for the character itself")
            parts += _text(written)
            written.clear()
            parts.append(
                Reference(found.group()[len(backslashes) :], name) if name else self.group(depth + 1)
            )
            begin = found.end() if name else self.position
        if depth:
            raise UsageError("{ without a }", r"write \{ for the character itself")
        self.position = len(self.text)
        written.append(self.text[begin:])
        return (*parts, *_text(written))

    def group(self, depth: int) -> Group:
        if depth > DEEPEST:
            raise UsageError(f"more than {DEEPEST} braces inside of each other")
        start = self.position
        self.position += 1
        low, high, joint = self.count()
        choices = []
        while True:
            weight, begin = _weight(self.text, self.position)
            self.position = begin
            parts = self.sequence(depth)
            choices.append(Choice(self.text[begin : self.position], parts, weight))
            self.position += 1
            if self.text[self.position - 1] == "}":
                break
        text = self.text[start : self.position]
        if not sum(choice.weight for choice in choices):
            raise UsageError(f"{text}: every weight is 0")
        return Group(text, Choices(choices), low, high, joint)

    def count(self) -> tuple[int, int | None, str]:
        """The `2$$`, `1-2$$` or `2$$ and $$` at the start of a group."""
        found = COUNT.match(self.text, self.position)
        if not found:
            return 1, 1, SEPARATOR
        numbers = re.fullmatch(r"(\d{1,4})|(\d{1,4})-(\d{1,4})?|-(\d{1,4})", found[1].strip())
        if not numbers:
            raise UsageError(f"{{{found[0]}: not a number of options", "write {2$$a|b|c} or {1-2$$a|b|c}")
        exact, first, last, most = numbers.groups()
        low = int(exact or first or 1)
        high = None if first and not last else int(exact or last or most)
        if high is not None and high < low:
            raise UsageError(f"{{{found[0]}: the range ends before it begins")
        self.position = found.end()
        joint = JOINT.match(self.text, self.position)
        if not joint:
            return low, high, SEPARATOR
        self.position = joint.end()
        return low, high, joint[1]


def _text(written: list[str]) -> list[str]:
    """One part, or none if nothing is written."""
    text = "".join(written)
    return [text] if text else []
