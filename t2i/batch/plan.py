"""Which pictures a prompt file asks for: the id, the settled config and the file name of each.

The id of a picture is the SHA-256 of all that shapes it: prompt, seed, settled config, model (of one on this
machine the hashes of its files, of a Hub model its id and revision), LoRAs, textual inversions, ControlNet
and control picture (by their hashes), and of the name that its line gives it. Batch size, order of the lines
and place in the file are not in it. A picture that is asked for twice is drawn once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from t2i import durable, weights
from t2i.batch.manifest import Record, owners
from t2i.config import GenerateConfig
from t2i.config.loras import read_tags
from t2i.errors import StorageError, T2IError
from t2i.naming import check_free, slug
from t2i.promptfiles import Entry
from t2i.settling import preview

NOT_IN_ID = ("prompts", "seed", "num_images", "batch_size", "model")
MOST_TOLD = 20  # names in one message
BY_CONTENT = (
    "lora",
    "lora_scale",
    "embedding",
    "controlnet",
    "control_image",
    "control_scale",
    "control_kind",
)  # in the id by what is in the files, and only where there are some
LABEL_LENGTH, AXES_LENGTH = 48, 24  # with line, seed and id a name stays below 120 bytes


@dataclass(frozen=True)
class BatchJob:
    """One picture of a batch.

    Attributes:
        id: SHA-256, hexadecimal; see the module.
        index: Position in the file, from 0.
        line: Of the file, from 1.
        label: What a report calls its line.
        prompt: Wildcards picked.
        seed: Its own.
        config: Settled, without prompt and seed.
        file: Path inside the folder, with /.
        owned: The file is this job's by the manifest, and may be replaced.
        problem: Why it cannot be drawn, where that is known before the model is loaded.
        adapters: What tells its LoRAs, embeddings and ControlNet from others; see `adapters_identity`.
    """

    id: str
    index: int
    line: int
    label: str
    prompt: str
    seed: int
    config: GenerateConfig
    file: str
    owned: bool
    problem: T2IError | None
    adapters: str = "[]"


def plan_batch(
    entries: Sequence[Entry],
    records: Mapping[str, Record],
    folder: Path,
    overwrite: bool = False,
    ask_hub: bool = False,
) -> list[BatchJob]:
    """Every picture once, in the order of the file. A name that the manifest knows is kept.

    Args:
        entries: Of a prompt file.
        records: Of the folder's manifest.
        folder: Where the pictures will be.
        overwrite: Whether a file that no picture of the batch made may be replaced.
        ask_hub: Whether a model that is not here has to be on the Hub; nothing is downloaded.

    Raises:
        StorageError: A line names a file that is there already.
        ModelError: A file of a model cannot be read.
    """
    settling = _Settling(ask_hub)
    wanted: dict[str, tuple[Entry, int, _Settled]] = {}
    for entry in entries:
        settled = settling.settle(entry.config)
        assert entry.config.seed is not None
        for seed in range(entry.config.seed, entry.config.seed + entry.images):
            wanted.setdefault(_job_id(entry, seed, settled), (entry, seed, settled))
    owner = owners(records)
    known = {job: str(records[job]["file"]) for job in owner.values() if job in wanted}
    taken = known.values() if overwrite else owner.keys()
    names = _Names(folder, overwrite, {name.casefold() for name in taken})
    jobs: list[BatchJob] = []
    taken_names: list[StorageError] = []
    for index, (job, (entry, seed, settled)) in enumerate(wanted.items()):
        try:
            file = known[job] if job in known else names.choose(job, entry, seed)
        except StorageError as error:
            taken_names.append(error)
            continue
        prompt = entry.config.prompts[0]
        jobs.append(
            BatchJob(job, index, entry.line, entry.label, prompt, seed, settled.config, file, job in known,
                     settled.problem, settled.adapters)
        )  # fmt: skip
    if taken_names:
        first, *others = taken_names
        more = f"; {len(others)} more: " + "; ".join(error.message for error in others[:MOST_TOLD])
        raise StorageError(first.message + more * bool(others), first.hint)
    return jobs


def in_common(config: GenerateConfig) -> tuple[Any, ...]:
    """What pictures of one batch share: all but the negative prompt and how strong the guidance is."""
    scale = config.guidance_scale
    return config.replace(negative_prompt="", guidance_scale=None), scale is None, scale == 1


def in_shard(job: BatchJob, shard: tuple[int, int] | None) -> bool:
    """Whether a job belongs to part K of N, which depends on its id alone."""
    return shard is None or int(job.id, 16) % shard[1] == shard[0] - 1


def is_done(job: BatchJob, records: Mapping[str, Record], folder: Path, metadata: str = "full") -> bool:
    """Whether the picture was made with this metadata and its file is still what was written."""
    record = records.get(job.id)
    if record is None or record.get("status") != "done" or not job.owned:
        return False
    if record.get("metadata", "full") != metadata:
        return False
    try:
        return durable.sha256_file(folder / job.file) == record.get("sha256")
    except OSError:
        return False


@dataclass(frozen=True)
class _Settled:
    config: GenerateConfig
    identity: str
    problem: T2IError | None
    adapters: str = "[]"


@dataclass
class _Settling:
    """Settles configs; each model and each combination of settings is looked up once."""

    ask_hub: bool
    previews: dict[GenerateConfig, GenerateConfig | T2IError] = field(default_factory=dict)
    identities: dict[str, str | T2IError] = field(default_factory=dict)
    settled: dict[GenerateConfig, _Settled] = field(default_factory=dict)
    adapted: dict[tuple[Any, ...], str | T2IError] = field(default_factory=dict)

    def settle(self, config: GenerateConfig) -> _Settled:
        tags = read_tags(config.prompts[0])[1]
        key = (*(getattr(config, name) for name in BY_CONTENT), tags)
        if key not in self.adapted:
            try:
                self.adapted[key] = adapters_identity(config, config.prompts[0])
            except T2IError as error:
                self.adapted[key] = error
        adapters = self.adapted[key]
        config = config.replace(prompts=(), seed=None, num_images=1)
        if config not in self.settled:
            self.settled[config] = self._settle(config)
        found = self.settled[config]
        if isinstance(adapters, T2IError):
            return replace(found, problem=found.problem or adapters, adapters=json.dumps(key, default=str))
        return replace(found, adapters=adapters)

    def _settle(self, config: GenerateConfig) -> _Settled:
        shape = config.replace(negative_prompt="")  # wildcards make many of them
        if shape not in self.previews:
            try:
                self.previews[shape] = preview(shape)
            except T2IError as error:
                self.previews[shape] = error
        found = self.previews[shape]
        if isinstance(found, T2IError):
            return _Settled(config, config.model, found)
        known = self._identify(config.model)
        if isinstance(known, T2IError):
            return _Settled(config, config.model, known)
        return _Settled(found.replace(negative_prompt=config.negative_prompt), known, None)

    def _identify(self, model: str) -> str | T2IError:
        """`identity` of a model, or why it cannot be drawn with; each is asked for once."""
        if model not in self.identities:
            try:
                if self.ask_hub:
                    weights.fetch_model(weights.resolve_model(model), download=False)
                self.identities[model] = identity(model)
            except T2IError as error:
                self.identities[model] = error
        return self.identities[model]


def identity(model: str) -> str:
    """What tells a model from others: the hashes of its files, or its id where they are on the Hub."""
    source = weights.resolve_model(model)
    if source.path is None:
        return source.id
    return hashlib.sha256(json.dumps(weights.hash_files(source.files), sort_keys=True).encode()).hexdigest()


def adapters_identity(config: GenerateConfig, prompt: str) -> str:
    """What tells the LoRAs, textual inversions and ControlNet of a picture from others, as JSON.

    Raises:
        UsageError: See `t2i.weights.find_adapters`.
        ModelError: See there.
    """
    return json.dumps(weights.find_adapters(config, prompt).identity())


def _job_id(entry: Entry, seed: int, settled: _Settled) -> str:
    skipped = {*NOT_IN_ID, *BY_CONTENT}
    config = {name: value for name, value in settled.config.to_dict().items() if name not in skipped}
    if config["guidance_scale"] is not None:
        config["guidance_scale"] = float(config["guidance_scale"])
    shapes = {
        "config": config,
        "model": settled.identity,
        "prompt": entry.config.prompts[0],
        "seed": seed,
        "output": entry.output,
    }
    if settled.adapters != "[]":
        shapes["adapters"] = settled.adapters
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()


@dataclass
class _Names:
    """Gives each new picture a name that is free; `taken` holds names without case."""

    folder: Path
    overwrite: bool
    taken: set[str]

    def choose(self, job: str, entry: Entry, seed: int) -> str:
        error = StorageError("")
        for name in _candidates(job, entry, seed):
            path = self.folder / name
            if name.casefold() in self.taken:
                error = StorageError(f"{path} is another picture of this folder", "choose another name")
                continue
            try:
                check_free(path, self.overwrite)
            except StorageError as reason:
                error = reason
                continue
            self.taken.add(name.casefold())
            return name
        raise StorageError(f"line {entry.line}: {error.message}", error.hint)


def _candidates(job: str, entry: Entry, seed: int) -> Iterator[str]:
    """Names for a picture, the shortest first; a line that names its only picture has but that one."""
    axes = slug(" ".join(f"{name} {value}" for name, value in entry.axes))[:AXES_LENGTH].strip("-")
    which = f"-{axes}-{seed}" if entry.axes else f"-{seed}"
    if entry.output is not None:
        path = PurePosixPath(entry.output)
        if entry.line_images == 1:
            yield str(path)
            return
        stem, suffix = str(path.with_suffix("")), path.suffix
    else:
        stem, suffix = f"{entry.line:05d}-{slug(entry.label)[:LABEL_LENGTH].strip('-')}", ".png"
    for known_by in ("", f"-{job[:8]}", f"-{job}"):
        yield f"{stem}{which}{known_by}{suffix}"
