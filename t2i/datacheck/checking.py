"""From a dataset folder to a report of everything that is wrong with it, before anything is trained."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from t2i.config.data import DEFAULT_RESOLUTION, DataCheckConfig
from t2i.datacheck.examining import Examined, examine_all
from t2i.datacheck.findings import KINDS, Finding, Report
from t2i.datacheck.likeness import alike
from t2i.datacheck.names import name_problems
from t2i.datacheck.wording import about_captions, about_other_files, relative, tokens_by, words_of
from t2i.dataset import (
    BucketPlan,
    Columns,
    Fault,
    ImageFolder,
    Packed,
    default_bucket_step,
    find_packed,
    read_unpacked,
)

Progress = Callable[[int, int], None]
"""Called with how many pictures have been decoded, and how many there are."""


@dataclass(frozen=True)
class Checked:
    """A report and what it was made of.

    Attributes:
        report: For a person.
        folder: What was read.
        examined: File → what it is, for every picture in the folder.
    """

    report: Report
    folder: ImageFolder
    examined: Mapping[Path, Examined]


def packed_dataset(config: DataCheckConfig) -> Packed | None:
    """The dataset where it is no folder of pictures, and has to be unpacked.

    Raises:
        UsageError: As `find_packed`.
        DatasetError: As `find_packed`.
    """
    columns = Columns.of(config.captions, config.caption, config.image_column, config.caption_column)
    return find_packed(config.folder, columns, config.dataset_config, config.offline, config.captions)


def check(
    config: DataCheckConfig,
    progress: Progress = lambda done, total: None,
    packed: Packed | None = None,
) -> Checked:
    """Look at every file of a dataset. Writes nothing.

    Args:
        config: What to look at.
        progress: Told after each picture.
        packed: Its `packed_dataset`, unpacked.

    Raises:
        DatasetError: Not a folder, unreadable, or no pictures in it.
        ModelError: No such `--model`.
    """
    root = Path(config.folder) if packed is None else packed.folder
    length = words_of if config.model is None else tokens_by(config.model)
    resolution = _resolution(config)
    faults: list[Fault] = []
    folder = read_unpacked(
        config.folder, packed, config.captions, config.caption, config.follow_symlinks,
        config.image_column, config.caption_column, faults.append,
    )  # fmt: skip
    files = list(dict.fromkeys(example.file for example in folder.examples))
    examined: dict[Path, Examined] = {}
    for file, one in zip(files, examine_all(files, resolution), strict=True):
        examined[file] = one
        progress(len(examined), len(files))
    there = list(_all_files(root, config.follow_symlinks))
    findings = [
        *(Finding(fault.kind, *_placed(fault, root)) for fault in faults),
        *(
            Finding(kind, relative(file, root), detail)
            for file, one in examined.items()
            for kind, detail in one.found
        ),
        *_copies(folder, examined),
        *about_captions(folder, {file for file, one in examined.items() if one.size}, length),
        *about_other_files(folder, there),
        *(Finding("name", place, told) for place, told in name_problems([relative(f, root) for f in there])),
    ]
    order = {kind: number for number, kind in enumerate(KINDS)}
    by_kind = sorted(dict.fromkeys(findings), key=lambda finding: order[finding.kind])  # places as they came
    buckets = _histogram(folder, examined, resolution, config.bucket_step)
    report = Report(config.folder, folder.summary(), len(files), tuple(by_kind), resolution, buckets)
    return Checked(report, folder, examined)


def _resolution(config: DataCheckConfig) -> int:
    if config.resolution is not None or config.model is None:
        return config.resolution or DEFAULT_RESOLUTION
    from t2i import weights

    defaults = weights.resolve_model(config.model, offline=True).defaults
    return min(defaults.width, defaults.height)


def _all_files(root: Path, follow_symlinks: bool) -> Iterator[Path]:
    seen = set()
    for folder, inner, names in os.walk(root, followlinks=follow_symlinks):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in names)


def _placed(fault: Fault, root: Path) -> tuple[str, str]:
    """Place and detail of a fault, without the folder's own path in front."""
    place = fault.place.removeprefix(f"{root}/")
    detail = fault.message.removeprefix(f"{fault.place}: ").removeprefix(f"{fault.place} ")
    return place, detail.replace(f"{root}/", "")


def _copies(folder: ImageFolder, examined: Mapping[Path, Examined]) -> Iterator[Finding]:
    """Pictures that are, or look like, an earlier one; worse where one of the two is held out."""
    held = {example.file for example in folder.examples if example.part in ("val", "test")}
    # Those to train on come first, so that the copy that is told of is the one held out.
    files = sorted((file for file, one in examined.items() if one.likeness), key=lambda file: file in held)

    def told(kind: str, copy: Path, of: Path, how: str) -> Finding:
        kind = "leak" if (copy in held) != (of in held) else kind
        return Finding(kind, relative(copy, folder.root), f"{how} {relative(of, folder.root)}")

    first: dict[str, Path] = {}
    unlike: list[Path] = []
    for file in files:
        original = first.setdefault(examined[file].pixels, file)
        if original is file:
            unlike.append(file)
        else:
            yield told("duplicate", file, original, "has the pixels of")
    near: dict[int, list[int]] = {}
    for one, other in alike([found for file in unlike if (found := examined[file].likeness)]):
        near.setdefault(other, []).append(one)
    for other, ones in sorted(near.items()):
        across = [one for one in ones if (unlike[one] in held) != (unlike[other] in held)]
        yield told("near-duplicate", unlike[other], unlike[(across or ones)[0]], "looks like")


def _histogram(
    folder: ImageFolder, examined: Mapping[Path, Examined], resolution: int, step: int | None
) -> dict[str, int]:
    """Bucket → pictures, the fullest first."""
    step = default_bucket_step(resolution) if step is None else step
    plan = BucketPlan(-(-resolution // step) * step, step)
    sizes = [one.size for one in examined.values() if one.size]
    counts = Counter("{}x{}".format(*plan.size_for(*size)) for size in sizes)
    return dict(counts.most_common())
