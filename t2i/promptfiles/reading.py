"""Reads a prompt file whole: every line is checked, and everything wrong is told at once."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2i.jobs import DRAWN_SEED_LIMIT
from t2i.promptfiles import from_csv, from_jsonl, from_toml, from_txt, from_yaml
from t2i.promptfiles.axes import combine, parse_axes
from t2i.promptfiles.entries import MOST_PICTURES, Entry, Planner, count_duplicates
from t2i.promptfiles.keys import read_items
from t2i.promptfiles.mistakes import Mistakes, PromptFileError
from t2i.promptfiles.sources import FORMATS, Item, Parsed, decode, format_of, read_bytes
from t2i.promptfiles.wildcard_files import WildcardFiles

READERS: dict[str, Callable[[str, Mistakes], Parsed]] = {
    "txt": from_txt.read,
    "jsonl": from_jsonl.read,
    "csv": from_csv.read,
    "toml": from_toml.read,
    "yaml": from_yaml.read,
}
assert tuple(READERS) == FORMATS


@dataclass(frozen=True)
class PromptOptions:
    """What is said beside the file; see `t2i.promptfiles.entries` for seeds and precedence.

    Attributes:
        defaults: Fields of `GenerateConfig` that were given on the command line, in their own types.
        axes: Each `NAME=VALUE,VALUE…`; see `t2i.promptfiles.axes`.
        repeat: Times that each line is drawn, with further seeds; 1 or more.
        wildcards: Folder of wildcard files.
        run_seed: What seeds come from that nobody gives, 0 or more; None: drawn below 2³².
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    axes: Sequence[str] = ()
    repeat: int = 1
    wildcards: str | os.PathLike[str] | None = None
    run_seed: int | None = None


@dataclass(frozen=True)
class PromptFile:
    """A prompt file in which nothing is wrong.

    Attributes:
        source: As it was named; "stdin" for `-`.
        entries: In the order of the file; within a line by axes, seeds, repetitions, images.
        prompts: Records of the file.
        images: Pictures, all entries together.
        duplicates: How many of them were asked for before in the same file: same config, same seed.
        run_seed: What the seeds that nobody gave come from; with it the same file gives the same entries.
    """

    source: str
    entries: tuple[Entry, ...]
    prompts: int
    images: int
    duplicates: int
    run_seed: int


def read_prompt_file(
    source: str | os.PathLike[str], format: str | None = None, options: PromptOptions | None = None
) -> PromptFile:
    """Read and check a prompt file.

    Args:
        source: A file, or "-" for stdin.
        format: One of `FORMATS`; default: by the suffix, and txt for stdin.
        options: What is said beside it.

    Raises:
        PromptFileError: Everything that is wrong in the file, the axes and the defaults.
        UsageError: An unknown format.
        StorageError: The file is missing, a folder, forbidden or too large.
    """
    name = os.fspath(source)
    chosen = format_of(name, format)
    return parse_prompt_file(read_bytes(name), chosen, "stdin" if name == "-" else name, options)


def parse_prompt_file(
    data: bytes, format: str, source: str = "prompts", options: PromptOptions | None = None
) -> PromptFile:
    """The same for bytes that were read already; `source` is what messages call them.

    Raises:
        PromptFileError: Everything that is wrong.
    """
    options = options or PromptOptions()
    mistakes = Mistakes()
    parsed = READERS[format](decode(data, mistakes), mistakes)
    given, _ = read_items(
        [Item(key, value, None) for key, value in options.defaults.items()], textual=False, mistakes=mistakes
    )
    parsed_axes = parse_axes(options.axes, mistakes)
    combinations = math.prod(len(axis.points) for axis in parsed_axes)
    if combinations > MOST_PICTURES:
        mistakes.add(None, f"--axis: {combinations:,} combinations, more than {MOST_PICTURES:,}")
        parsed_axes = []
    if options.repeat < 1:
        mistakes.add(None, f"--repeat {options.repeat}: must be at least 1")
    files = WildcardFiles(Path(options.wildcards) if options.wildcards is not None else None)
    if files.error is not None:
        mistakes.add_error(None, files.error)
    seed = secrets.randbelow(DRAWN_SEED_LIMIT) if options.run_seed is None else options.run_seed
    planner = Planner(given, combine(parsed_axes), max(options.repeat, 1), files, seed, mistakes)
    entries = tuple(planner.plan(parsed))
    if not parsed.records and not mistakes:
        mistakes.add(None, "there is no prompt in it")
    if mistakes:
        raise PromptFileError(source, mistakes, entries)
    images = sum(entry.images for entry in entries)
    return PromptFile(source, entries, len(parsed.records), images, count_duplicates(entries), seed)
