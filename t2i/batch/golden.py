"""Expected pictures: `golden.json` and, in the folder of its name beside it, a PNG of each.

A picture is looked up by what it shows (prompt, seed, settings, name of the model), not by how it was
computed, nor by the model's files: those may change, and what becomes of the pixels is the question.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from t2i import durable, images, recipes
from t2i.batch.plan import NOT_IN_ID, BatchJob
from t2i.config import GenerateConfig
from t2i.config.batch import MIN_PSNR
from t2i.config.loras import without_folders
from t2i.errors import StorageError, UsageError
from t2i.naming import slug
from t2i.texts import count_of

VERSION = 1
COMPUTED = ("device", "dtype", "deterministic")  # how, not what; they stand in the runtime
DEFAULTS = GenerateConfig().to_dict()


@dataclass(frozen=True)
class Expected:
    """One picture of a golden file.

    Attributes:
        prompt: Wildcards picked.
        seed: Its own.
        settings: What else shapes it, as far as it is no default.
        pixels_sha256: Of the RGB pixels of its file.
        reference: The stored picture.
        runtime: Everything that equal bytes depend on.
    """

    prompt: str
    seed: int
    settings: Mapping[str, Any]
    pixels_sha256: str
    reference: Path
    runtime: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What it is looked up by."""
        return _key(self.prompt, self.seed, self.settings)

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.prompt!r}, seed {self.seed}"


@dataclass(frozen=True)
class Golden:
    """A golden file.

    Attributes:
        path: The file.
        min_psnr: From here on a picture of another machine counts as the same, dB.
        pictures: By key.
    """

    path: Path
    min_psnr: float
    pictures: Mapping[str, Expected]


def read_golden(path: Path) -> Golden:
    """The golden file.

    Raises:
        StorageError: Missing, or not one.
    """
    try:
        values = json.loads(path.read_bytes())
        if values["golden"] > VERSION:
            raise StorageError(
                f"{path} has version {values['golden']}, this t2i reads {VERSION}", "update t2i"
            )
        found = [_expected(path, row, values["runtimes"]) for row in values["pictures"]]
        return Golden(path, float(values["min_psnr_db"]), {expected.key: expected for expected in found})
    except FileNotFoundError:
        raise StorageError(f"{path} does not exist", "--update-golden makes it") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        hint = "choose another name, or delete it and pass --update-golden"
        raise StorageError(f"{path} is no golden file of t2i", hint) from error


def check_distinct(jobs: Sequence[BatchJob]) -> None:
    """Refuse pictures of one run that a golden file could not tell apart.

    Raises:
        UsageError: Two of them differ only in how they are computed, or in the folder of the model.
    """
    known: dict[str, BatchJob] = {}
    for job in jobs:
        other = known.setdefault(key_of(job), job)
        different = [name for name in ("model", *COMPUTED)
                     if getattr(job.config, name) != getattr(other.config, name)]  # fmt: skip
        if different:
            raise UsageError(
                f"--expect: the pictures of lines {other.line} and {job.line} with seed {job.seed} differ "
                f"only in {' and '.join(different)}, which a golden file does not tell apart",
                "draw them into two folders, each with a golden file of its own",
            )


def update_golden(
    path: Path, jobs: Sequence[BatchJob], folder: Path, min_psnr: float | None, metadata: str
) -> list[str]:
    """Make the pictures of a run the expected ones.

    The PNGs are there before the file that names them, and those of before go after it.

    Args:
        path: The golden file, made or replaced.
        jobs: All of a run, each drawn.
        folder: Of the pictures.
        min_psnr: To be stored; default: as it was, else `MIN_PSNR`.
        metadata: Of the PNGs, "minimal" or "none".

    Returns:
        What changed, one line for each picture and one for all.

    Raises:
        StorageError: A picture carries no recipe or cannot be read, or a file cannot be written.
    """
    before = read_golden(path) if path.exists() else Golden(path, MIN_PSNR, {})
    after: dict[str, Expected] = {}
    lines, equal = [], 0
    for job in jobs:
        key = key_of(job)
        if key in after:
            continue
        pixels = images.read_pixels(folder / job.file)
        digest = images.pixels_sha256(pixels)
        reference = path.parent / path.stem / f"{slug(job.prompt)}-{job.seed}-{digest[:12]}.png"
        runtime = runtime_of(images.read_recipe(folder / job.file))
        expected = Expected(job.prompt, job.seed, _settings(job), digest, reference, runtime)
        after[key] = expected
        if not reference.exists():
            durable.write_bytes(reference, images.encode(pixels, "PNG", metadata=metadata))
        if key not in before.pictures:
            lines.append(f"new: {expected.name}")
        elif before.pictures[key].pixels_sha256 == digest:
            equal += 1
        else:
            lines.append(f"changed: {expected.name}")
    lines += [f"gone: {expected.name}" for key, expected in before.pictures.items() if key not in after]
    least = before.min_psnr if min_psnr is None else min_psnr
    durable.write_json(path, _to_dict(Golden(path, least, after)))
    kept = {expected.reference for expected in after.values()}
    for reference in {expected.reference for expected in before.pictures.values()} - kept:
        reference.unlink(missing_ok=True)
    return [*lines, f"{path}: {count_of(len(after), 'picture')}, {equal} of them as before"]


def key_of(job: BatchJob) -> str:
    """What the expected picture of a job is looked up by."""
    return _key(job.prompt, job.seed, _settings(job))


def _key(prompt: str, seed: int, settings: Mapping[str, Any]) -> str:
    return json.dumps([prompt, seed, settings], sort_keys=True)


def _settings(job: BatchJob) -> dict[str, Any]:
    """What shapes a picture besides prompt and seed; options that later versions add have their defaults."""
    skipped = {*NOT_IN_ID, *COMPUTED}
    settings = {
        name: float(value) if name == "guidance_scale" and value is not None else value
        for name, value in job.config.to_dict().items()
        if name not in skipped and value != DEFAULTS[name]
    }
    files = {"lora": job.config.lora, "embedding": job.config.embedding}
    settings |= {name: [*map(without_folders, texts)] for name, texts in files.items() if texts}
    settings |= {name: without_folders(str(settings[name])) for name in recipes.CONTROL if name in settings}
    return {**settings, "model": recipes.base_name(job.config.model)}


def runtime_of(recipe: recipes.Recipe) -> dict[str, Any]:
    """What equal bytes depend on besides the files of the model."""
    runtime = {**recipe["runtime"], "batch_shape": recipe["image"].get("batch_shape")}
    return {**runtime, "processor": _processor()} if runtime.get("device") == "cpu" else runtime


def _processor() -> str:
    """What tells this kind of processor from others: libraries choose kernels by it."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    found = {name: value for name, value in re.findall(r"^([\w ]+?)\s*: (.+)$", text, re.MULTILINE)}
    if "model name" not in found:
        return platform.processor() or platform.machine()
    return f"{found['model name']}, family {found.get('cpu family')}, model {found.get('model')}"


def _to_dict(golden: Golden) -> dict[str, Any]:
    runtimes: list[Mapping[str, Any]] = []
    rows = []
    for expected in golden.pictures.values():
        if expected.runtime not in runtimes:
            runtimes.append(expected.runtime)
        rows.append({
            "prompt": expected.prompt,
            "seed": expected.seed,
            "settings": expected.settings,
            "pixels_sha256": expected.pixels_sha256,
            "file": expected.reference.relative_to(golden.path.parent).as_posix(),
            "runtime": runtimes.index(expected.runtime),
        })  # fmt: skip
    head = {"golden": VERSION, "min_psnr_db": golden.min_psnr}
    return {**head, "runtimes": runtimes, "pictures": rows}


def _expected(path: Path, row: Mapping[str, Any], runtimes: Sequence[Mapping[str, Any]]) -> Expected:
    """One entry; its picture may be nowhere but in the folder of the golden file's name."""
    inside = PurePosixPath(row["file"])
    if inside.parts[:-1] != (path.stem,) or inside.name in ("", ".."):
        raise ValueError(row["file"])
    texts = row["prompt"], row["pixels_sha256"]
    if not all(isinstance(text, str) for text in texts) or type(row["seed"]) is not int:
        raise TypeError(texts)
    runtime = runtimes[row["runtime"]]
    return Expected(
        texts[0], row["seed"], dict(row["settings"]), texts[1], path.parent / inside, dict(runtime)
    )
