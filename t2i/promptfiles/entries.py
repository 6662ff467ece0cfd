"""From records to what is drawn: defaults, axes and repeats applied, seeds given, wildcards picked.

**Seeds.** Image k of a line has seed s + k, as in `t2i generate`. s is the line's own seed, else the
command line's, else the header's, else SHA-256 of (run seed, prompt as written), below 2³¹. So neither the
order of the lines nor a line that comes or goes changes the seed of another line; editing a prompt does,
unless a seed is given. A repetition goes on where the one before it ended: with n images per line,
repetition r begins at s + r n. A line that stands in the file again, equal in all that shapes a picture,
goes on in the same way. Only where the line gives its seed itself are the same pictures asked for once
more; `duplicates` counts them. All combinations of axes have the same seeds, so that they differ in nothing
else. Wildcards pick by the seed of each picture.

**Precedence**: header < command line < the line. An axis and a line must not both set one option.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from pathlib import PurePosixPath
from typing import Any

from t2i.config import GenerateConfig, flag_of
from t2i.config.generate import SEED_LIMIT
from t2i.errors import UsageError
from t2i.promptfiles.axes import Combination
from t2i.promptfiles.keys import WHERE_DEFAULTS_STAND, read_items
from t2i.promptfiles.mistakes import Mistakes
from t2i.promptfiles.picks import render
from t2i.promptfiles.sources import Parsed, Record
from t2i.promptfiles.wildcard_files import WildcardFileError, WildcardFiles
from t2i.promptfiles.wildcards import Template, is_dynamic, parse

DERIVED_SEED_LIMIT = 2**31  # seeds that go on from one stay below 2³², which every tool accepts
MOST_PICTURES = 1_000_000
COUNTED = ("seed", "num_images", "batch_size")  # they say which pictures, not what is on them
NOT_SHOWN = (*COUNTED, "name", "output")  # two lines that differ in these alone draw the same
DEFAULTS = GenerateConfig()
CONFIG_FIELDS = frozenset(item.name for item in fields(GenerateConfig))
_shown = attrgetter(*sorted(CONFIG_FIELDS - set(COUNTED)))


@dataclass(frozen=True)
class Entry:
    """Pictures of one line that differ in nothing but the seed.

    Attributes:
        line: Where the record starts in the file, from 1.
        config: One prompt, its wildcards picked; a seed; `num_images`. What nobody said is None.
        template: The prompt as written.
        negative_template: The negative prompt as written.
        name: What the line calls itself, or None.
        output: A file name inside the output folder, or None; the line may have several pictures.
        axes: (option, value) of each axis, as typed.
        image_index: k of the first picture, counted over all pictures of the line, from 0.
        line_images: How many pictures the line has.
    """

    line: int
    config: GenerateConfig
    template: str
    negative_template: str
    name: str | None
    output: str | None
    axes: tuple[tuple[str, str], ...]
    image_index: int
    line_images: int

    @property
    def images(self) -> int:
        """Number of pictures."""
        return self.config.num_images

    @property
    def label(self) -> str:
        """What a report calls it: its name, its file name, or its prompt."""
        return self.name or self.output or self.config.prompts[0]


@dataclass(frozen=True)
class _Line:
    """A record whose values have been read.

    Attributes:
        number: Where it starts.
        values: By field, defaults included; `seed` may be a tuple.
        own_seed: The line or an axis gives the seed.
        prompt: Parsed.
        negative: Parsed.
    """

    number: int
    values: Mapping[str, Any]
    own_seed: bool
    prompt: Template
    negative: Template


@dataclass(frozen=True)
class _Drawing:
    """A line with one combination of the axes: the values of the config, and where its seeds begin."""

    combination: Combination
    values: dict[str, Any]
    negative: Template
    images: int
    seeds: tuple[int, ...]


@dataclass
class Planner:
    """Turns the records of one file into entries.

    Attributes:
        defaults: Checked values of the command line.
        combinations: Of the axes; all are drawn.
        repeat: Times that each line is drawn.
        wildcards: Where `__name__` is found.
        run_seed: What seeds come from that nobody gives.
        mistakes: Where everything wrong is noted.
    """

    defaults: Mapping[str, Any]
    combinations: Sequence[Combination]
    repeat: int
    wildcards: WildcardFiles
    run_seed: int
    mistakes: Mistakes
    _drawn: dict[frozenset[tuple[str, Any]], int] = field(default_factory=dict)
    _outputs: dict[str, int] = field(default_factory=dict)
    _folders: dict[str, int] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    _axis_negatives: dict[str, Template] = field(default_factory=dict)

    def plan(self, parsed: Parsed) -> list[Entry]:
        """The entries of all lines that are right; what is wrong with the others is in `mistakes`."""
        header = parsed.defaults.items if parsed.defaults else ()
        defaults = {**read_items(header, parsed.textual, self.mistakes)[0], **self.defaults}
        for name in ("prompt", "negative_prompt"):  # told here, not again for every line
            at = parsed.defaults.line if parsed.defaults and name not in self.defaults else None
            if name in defaults and self._template(defaults[name], at) is None:
                defaults[name] = ""
        for combination in self.combinations:
            if "negative_prompt" in combination.fields:
                text = combination.fields["negative_prompt"]
                self._axis_negatives[text] = self._template(text, None) or ()
        entries: list[Entry] = []
        pictures = 0
        for record in parsed.records:
            line = self._read(record, defaults, parsed.textual)
            if line is None:
                continue
            drawings = self._drawings(line)
            pictures += self._count(drawings)
            if pictures > MOST_PICTURES:
                message = f"more than {MOST_PICTURES:,} pictures up to here"
                self.mistakes.add(record.line, message, "split the file")
                break
            try:
                entries += self._entries(line, drawings)
            except UsageError as error:
                self.mistakes.add_error(record.line, error)
        return entries

    def _read(self, record: Record, defaults: Mapping[str, Any], textual: bool) -> _Line | None:
        """A line with everything checked, or None after noting what is wrong."""
        before = len(self.mistakes)
        given, wrong = read_items(record.items, textual, self.mistakes)
        values = {**defaults, **given}
        if "prompt" not in wrong and not values.get("prompt", "").strip():
            self.mistakes.add(record.line, "there is no prompt", "" if textual else WHERE_DEFAULTS_STAND)
        for name in sorted(self._axis_fields & (given.keys() | wrong)):
            self.mistakes.add(
                record.line, f"{flag_of(name)} is given here and by an --axis", "keep one of them"
            )
        output = values.get("output")
        if output is not None:
            self._note_output(output, record.line)
        prompt = self._template(values.get("prompt", ""), record.line)
        negative = self._template(values.get("negative_prompt", DEFAULTS.negative_prompt), record.line)
        if prompt is None or negative is None or wrong or len(self.mistakes) > before:
            return None
        return _Line(record.line, values, "seed" in given or "seed" in self._axis_fields, prompt, negative)

    def _note_output(self, output: str, line: int) -> None:
        """Every line has a file of its own, also on a disk where upper and lower case are one."""
        path = PurePosixPath(output.casefold())
        name, folders = str(path), [str(folder) for folder in path.parents]
        taken = next((folder for folder in folders if folder in self._outputs), None)
        told = ""
        if name in self._outputs:
            told = f"line {self._outputs[name]} has that name"
        elif name in self._folders:
            told = f"line {self._folders[name]} has a folder of that name"
        elif taken is not None:
            told = f"{taken} is the file of line {self._outputs[taken]}"
        if told:
            self.mistakes.add(line, f"--output {output}: {told}")
            return
        self._outputs[name] = line
        for folder in folders:
            self._folders.setdefault(folder, line)

    @property
    def _axis_fields(self) -> set[str]:
        return set(self.combinations[0].fields)

    def _template(self, text: str, line: int | None) -> Template | None:
        """The parts of a text, or None after noting what is wrong with its wildcards."""
        try:
            template = parse(text)
        except UsageError as error:
            self.mistakes.add_error(line, error)
            return None
        problems = self.wildcards.problems(template) if is_dynamic(template) else []
        for problem in problems:
            if problem is self.wildcards.error:
                continue  # told before the first line
            if not isinstance(problem, WildcardFileError) or problem.message not in self._told:
                self.mistakes.add_error(line, problem)
                self._told.add(problem.message)
        return None if problems else template

    def _drawings(self, line: _Line) -> list[_Drawing]:
        """A line with each combination of the axes."""
        drawings = []
        for combination in self.combinations:
            values = {**line.values, **combination.fields}
            seed = values.get("seed")
            if seed is None:
                seed = _derived_seed(self.run_seed, values["prompt"])
            settings = {name: value for name, value in values.items() if name in CONFIG_FIELDS}
            seeds = seed if isinstance(seed, tuple) else (seed,)
            images = values.get("num_images", DEFAULTS.num_images)
            negative = line.negative
            if "negative_prompt" in combination.fields:
                negative = self._axis_negatives[combination.fields["negative_prompt"]]
            drawings.append(_Drawing(combination, settings, negative, images, seeds))
        return drawings

    def _count(self, drawings: Iterable[_Drawing]) -> int:
        """Pictures of a line."""
        return self.repeat * sum(drawing.images * len(drawing.seeds) for drawing in drawings)

    def _already_drawn(self, line: _Line, drawings: Iterable[_Drawing]) -> int:
        """How many seeds equal lines before this one have used."""
        if line.own_seed:
            return 0
        key = frozenset(item for item in line.values.items() if item[0] not in NOT_SHOWN)
        drawn = self._drawn.get(key, 0)
        self._drawn[key] = drawn + self.repeat * max(drawing.images for drawing in drawings)
        return drawn

    def _entries(self, line: _Line, drawings: Sequence[_Drawing]) -> Iterator[Entry]:
        """The entries of one line.

        Raises:
            UsageError: Seeds leave their range, or the config refuses a combination.
        """
        total, done, offset = self._count(drawings), 0, self._already_drawn(line, drawings)
        template, name, output = line.values["prompt"], line.values.get("name"), line.values.get("output")
        for drawing in drawings:
            negative_template = drawing.values.get("negative_prompt", DEFAULTS.negative_prompt)
            dynamic = is_dynamic(line.prompt) or is_dynamic(drawing.negative)
            count = self.repeat * drawing.images
            step = 1 if dynamic else drawing.images
            for begin in drawing.seeds:
                first = begin + offset
                if first + count > SEED_LIMIT:
                    raise UsageError(f"--seed {begin}: too large for {count} pictures")
                for seed in range(first, first + count, step):
                    changed = {
                        "prompts": (render(line.prompt, seed, "prompt", self.wildcards),),
                        "negative_prompt": render(drawing.negative, seed, "negative_prompt", self.wildcards),
                        "seed": seed,
                        "num_images": step,
                    }
                    config = GenerateConfig(**(drawing.values | changed))
                    labels = drawing.combination.labels
                    yield Entry(
                        line.number, config, template, negative_template, name, output, labels, done, total
                    )
                    done += step


def _derived_seed(run_seed: int, prompt: str) -> int:
    """A seed for a line that has none."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}\n{prompt}".encode()).digest()) % DERIVED_SEED_LIMIT


def count_duplicates(entries: Iterable[Entry]) -> int:
    """Pictures that were asked for already: same config, same seed."""
    ranges: defaultdict[Any, list[tuple[int, int]]] = defaultdict(list)
    for entry in entries:
        assert entry.config.seed is not None
        ranges[_shown(entry.config)].append((entry.config.seed, entry.config.seed + entry.images))
    again = 0
    for spans in ranges.values():
        reached = -1
        for start, end in sorted(spans):
            again += max(0, min(end, reached) - start)
            reached = max(reached, end)
    return again
