"""`.yaml`: a list of prompts, or a mapping whose `prompts` is that list and whose other keys are defaults.

    steps: 30
    prompts:
      - a castle
      - prompt: a fox
        seed: 7

Read with PyYAML's safe loader (YAML 1.1: `yes` is true, `1:30` is 90, so quote such words), which comes
with `transformers`. Only plain values are built, one at a time, so that each wrong one is told with its
line. Merge keys (`<<`) are not read. A file that is not YAML has one mistake: where the reader stopped.
"""

from __future__ import annotations

import importlib
import re
from bisect import bisect_left
from typing import Any

from t2i.promptfiles.mistakes import Mistakes
from t2i.promptfiles.sources import UNREADABLE, Item, Parsed, Record

LIST = "prompts"
DEEPEST = 100


def read(text: str, mistakes: Mistakes) -> Parsed:
    """The mappings of a YAML file.

    Args:
        text: With plain newlines.
        mistakes: Where the reader's complaint and everything that is no prompt is noted.
    """
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError:
        mistakes.add(None, "YAML needs the package PyYAML", "pip install pyyaml, or use TOML")
        return Parsed(None, [])
    kind = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    lines = _Lines(text)
    try:
        deep = _too_deep(text, yaml, kind)
        if deep is not None:
            mistakes.add(lines.of(deep), f"more than {DEEPEST} lists or mappings inside of each other")
            return Parsed(None, [])
        loader = kind(text)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        found = yaml.reader.Reader.NON_PRINTABLE.search(text)  # the two readers count positions differently
        mistakes.add(lines.at(found.start()) if found else None, f"not YAML: {error.reason}")
        return Parsed(None, [])
    except (
        yaml.YAMLError,
        ValueError,
        OverflowError,
    ) as error:  # the last two for escapes such as \U99999999
        mark = getattr(error, "problem_mark", None)
        line = lines.of(mark) if mark else None
        mistakes.add(line, f"not YAML: {getattr(error, 'problem', None) or error}")
        return Parsed(None, [])
    return _Nodes(loader, yaml, lines, mistakes).parsed(root) if root is not None else Parsed(None, [])


class _Lines:
    """Lines as all other formats count them; YAML 1.1 ends a line at U+0085, U+2028 and U+2029 too."""

    def __init__(self, text: str) -> None:
        self.ends = [found.start() for found in re.finditer("\n", text)]

    def at(self, index: int) -> int:
        return bisect_left(self.ends, index) + 1

    def of(self, mark: Any) -> int:
        return self.at(mark.index)


def _too_deep(text: str, yaml: Any, kind: Any) -> Any | None:
    """Where nesting goes beyond all reason; composing such a text overflows the stack of the C reader."""
    depth = 0
    for event in yaml.parse(text, kind):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            return event.start_mark
    return None


class _Nodes:
    """From PyYAML's node graph to records."""

    def __init__(self, loader: Any, yaml: Any, lines: _Lines, mistakes: Mistakes) -> None:
        self.loader, self.yaml, self.lines, self.mistakes = loader, yaml, lines, mistakes

    def line(self, node: Any) -> int:
        return self.lines.of(node.start_mark)

    def parsed(self, root: Any) -> Parsed:
        defaults, prompts = None, root
        if isinstance(root, self.yaml.MappingNode):
            pairs = [pair for pair in root.value if pair[0].value == LIST]
            others = [pair for pair in root.value if pair[0].value != LIST]
            defaults = Record(1, self.items(others)) if others else None
            if len(pairs) != 1:
                wanted = "two lists of prompts" if pairs else "there is no list of prompts"
                self.mistakes.add(
                    self.line(pairs[1][0]) if pairs else None, wanted, "write prompts: above them"
                )
                return Parsed(defaults, [])
            prompts = pairs[0][1]
        if not isinstance(prompts, self.yaml.SequenceNode):
            self.mistakes.add(self.line(prompts), "not a list of prompts", "begin every prompt with a hyphen")
            return Parsed(defaults, [])
        records = []
        for node in prompts.value:
            if isinstance(node, self.yaml.MappingNode):
                records.append(Record(self.line(node), self.items(node.value)))
            elif isinstance(node, self.yaml.ScalarNode):
                records.append(Record(self.line(node), (Item("prompt", self.value(node), self.line(node)),)))
            else:
                self.mistakes.add(
                    self.line(node), "neither a mapping nor text", "for example - prompt: a fox"
                )
        return Parsed(defaults, records)

    def items(self, pairs: list[Any]) -> tuple[Item, ...]:
        scalar = self.yaml.ScalarNode
        return tuple(
            Item(key.value if isinstance(key, scalar) else "(not text)", self.value(value), self.line(key))
            for key, value in pairs
        )

    def value(self, node: Any) -> Any:
        """A plain value; a list of plain values; anything else as an empty table, which no key allows."""
        if isinstance(node, self.yaml.SequenceNode):
            plain = all(isinstance(one, self.yaml.ScalarNode) for one in node.value)
            return [self.value(one) for one in node.value] if plain else {}
        if not isinstance(node, self.yaml.ScalarNode):
            return {}
        try:
            return self.loader.construct_object(node)
        except (self.yaml.YAMLError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            kind = node.tag.rpartition(":")[2]
            self.mistakes.add(
                self.line(node), f"{node.value!r} is not the {kind} it looks like", "put text in quotes"
            )
            return UNREADABLE
