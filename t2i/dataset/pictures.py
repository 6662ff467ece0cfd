"""The pictures of a run as its steps see them: size, caption, repeats, mirror images; and those left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from math import floor, gcd
from pathlib import Path
from typing import Any

import numpy as np

from t2i.dataset.buckets import BucketPlan, Turns, entries_of
from t2i.dataset.captions import Example
from t2i.dataset.decoding import BadPicture, crop_of, measure
from t2i.dataset.folder import ImageFolder
from t2i.dataset.tables import cached_table, check_share, decoded_table, pixels_key
from t2i.errors import DatasetError


class WithMirrored:
    """A table of n pictures and, behind them, the mirror image of each: 2 n rows, half of them on disk.

    What is encoded of it is encoded from mirrored pixels, because a VAE does not commute with mirroring.
    Indexing with an array of rows gives uint8 (B, 3, H, W), as that of the table does.
    """

    def __init__(self, table: np.ndarray) -> None:
        self.table = table
        self.shape: tuple[int, ...] = (2 * len(table), *table.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows)
        pixels = np.array(self.table[rows % len(self.table)])
        mirrored = rows >= len(self.table)
        pixels[mirrored] = pixels[mirrored][..., ::-1]
        return pixels


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures with their captions, in buckets of one size each.

    A *row* is a picture with one of its captions, mirrored or not: what a step sees. Rows 0 to N − 1 are the
    N pictures as they are, with their first captions. Where mirror images are wanted, rows N to 2 N − 1 are
    those; then follow further captions, picture by picture. So wherever nothing is mirrored and every picture
    has one caption, rows are pictures.

    A *view* is an index into the table of a bucket: what is encoded once, however many captions it has.
    With one bucket, views are the rows but for further captions.

    Attributes:
        folder: The examples that could be decoded, N.
        tables: For each bucket uint8 (V, 3, H, W), mapped from disk; V counts mirror images too.
        keys: For each table a name that changes with any of its pixels, for what is computed from it.
        key: One name for all of them.
        captions: One per row.
        left_out: File → why, of pictures that could not be decoded.
        held_out: Pictures that no step sees, as `holding_out` was told; who decides that is `training`.
    """

    folder: ImageFolder
    tables: tuple[Any, ...]  # np.ndarray or WithMirrored
    keys: tuple[str, ...]
    key: str
    captions: list[str]
    left_out: dict[Path, str]
    held_out: frozenset[int]
    _cache: Path = field(repr=False)
    _mirrored: bool = field(repr=False)
    _bucket: np.ndarray = field(repr=False)  # of each picture, (N,)
    _place: np.ndarray = field(repr=False)  # of each picture among those of its bucket, (N,)
    _further: np.ndarray = field(repr=False)  # where the further captions of each picture begin, (N + 1,)

    def __len__(self) -> int:
        """Pictures, N."""
        return len(self.folder.examples)

    def rows(self, step: int, batch_size: int, seed: int) -> np.ndarray:
        """The rows that a step (from 0) sees, all of one bucket; decided by seed and step alone.

        Every picture that is not held out comes equally often, times its repeats, each time with a caption,
        and mirrored or not, as drawn for that pass. With one bucket, one caption each and no mirror images
        this is `batch_rows`.

        Returns:
            int64, (batch_size,).
        """
        counts = tuple(map(len, self._entries))
        bucket, number = Turns(counts, batch_size, seed).of(step)
        entries, passes = entries_of(counts[bucket], batch_size, number, seed, bucket)
        pictures = self._entries[bucket][entries]
        if len(self.captions) == len(self):
            return pictures
        drawn = np.empty((batch_size, 2))
        for which in np.unique(passes):
            draw = np.random.default_rng((seed, int(which), bucket, 2))
            drawn[passes == which] = draw.random((counts[bucket], 2))[entries[passes == which]]
        return self._row(pictures, drawn[:, 0], drawn[:, 1])

    @property
    def pass_length(self) -> int:
        """Pictures of one pass (an epoch): those not held out, each as often as it is repeated."""
        examples = enumerate(self.folder.examples)
        return sum(example.repeats for number, example in examples if number not in self.held_out)

    def holding_out(self, pictures: Iterable[int]) -> Pictures:
        """The same, but that no step sees these pictures, 0 to N − 1, and sees all others.

        Raises:
            DatasetError: Nothing would be left to see.
        """
        held = frozenset(pictures)
        if len(held) >= len(self):
            raise DatasetError(f"dataset {self.folder.root}: all pictures are held out", "hold out fewer")
        return replace(self, held_out=held)

    def bucket_of(self, rows: np.ndarray) -> int:
        """The bucket that all of these rows are in.

        Raises:
            ValueError: They are in several.
        """
        found = np.unique(self._bucket[self.pictures_of(rows)])
        if len(found) != 1:
            raise ValueError(f"rows of {len(found)} buckets in one batch")
        return int(found[0])

    def views(self, rows: np.ndarray) -> np.ndarray:
        """Where these rows are in the table of their bucket, int64 (B,)."""
        pictures, mirrored = self._picture_and_side(np.asarray(rows))
        places = self._place[pictures]
        if not self._mirrored:
            return places
        halves = np.array([len(table) // 2 for table in self.tables])
        return places + mirrored * halves[self._bucket[pictures]]

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """The pictures of rows of one bucket, uint8 (B, 3, H, W).

        Raises:
            ValueError: They are in several buckets.
        """
        return np.asarray(self.tables[self.bucket_of(rows)][self.views(rows)])

    def shape_of(self, row: int) -> tuple[int, int]:
        """Height and width of a row's picture, pixels."""
        table = self.tables[self.bucket_of(np.array([row]))]
        return int(table.shape[-2]), int(table.shape[-1])

    def pictures_of(self, rows: np.ndarray) -> np.ndarray:
        """The pictures that rows show, 0 to N − 1: indices into `folder.examples`, (B,)."""
        return self._picture_and_side(np.asarray(rows))[0]

    def time_ids(self, rows: np.ndarray) -> np.ndarray:
        """What SDXL is told of each picture besides its caption (Podell et al. 2023, arXiv:2307.01952, 2.2).

        Returns:
            int64, (B, 6): original height and width, top and left of the crop in the scaled picture, and
            height and width of what is trained on; pixels.
        """
        result = []
        for row in np.asarray(rows):
            height, width = self.shape_of(int(row))
            size = tuple(self._sizes[self.pictures_of(np.array([row]))[0]].tolist())
            result.append((size[1], size[0], *crop_of(size, width, height), height, width))
        return np.array(result, dtype=np.int64).reshape(-1, 6)

    def notices(self) -> list[str]:
        """What a person should know: what was understood, which pictures were left out, the buckets."""
        lines = [self.folder.summary() + ", mirror images too" * self._mirrored]
        if self.left_out:
            lines.append(f"{len(self.left_out)} pictures cannot be read and are left out:")
            lines += self.left_out.values()
        if len(self.tables) > 1:
            counts = zip(self.tables, np.bincount(self._bucket), strict=True)
            shapes = [f"{table.shape[-1]}x{table.shape[-2]}: {count}" for table, count in counts]
            lines.append(f"{len(shapes)} buckets: {', '.join(shapes)}")
        return lines

    @cached_property
    def _entries(self) -> list[np.ndarray]:
        """For each bucket its pictures, each as often as it is repeated."""
        repeats = np.array([example.repeats for example in self.folder.examples])
        repeats[sorted(self.held_out)] = 0
        repeats //= max(1, reduce(gcd, repeats.tolist()))  # a pass is as short as it can be
        pictures = np.arange(len(self))
        return [
            np.repeat(pictures[chosen], repeats[chosen])
            for chosen in (self._bucket == bucket for bucket in range(len(self.tables)))
        ]

    @cached_property
    def _sizes(self) -> np.ndarray:
        """Upright width and height of each picture, int32 (N, 2)."""
        files = [example.file for example in self.folder.examples]
        return measured(files, self._cache, self.key)

    def _row(self, pictures: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Rows that show these pictures, by two numbers in 0…1: which caption, and mirrored or not."""
        counts = np.diff(self._further)[pictures] // (2 if self._mirrored else 1)  # of further captions
        caption = np.floor(first * (counts + 1)).astype(np.int64)
        mirrored = (second < 0.5).astype(np.int64) * self._mirrored
        further = self._further[pictures] + mirrored * counts + caption - 1
        rows: np.ndarray = np.where(caption == 0, pictures + mirrored * len(self), further)
        return rows

    def _picture_and_side(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each row its picture, and 1 where it is mirrored."""
        count, sides = len(self), 2 if self._mirrored else 1
        pictures: np.ndarray = rows % count
        mirrored: np.ndarray = rows // count
        later = rows >= sides * count
        owners = np.searchsorted(self._further, rows[later], side="right") - 1
        pictures[later] = owners
        further = np.diff(self._further)[owners] // sides
        mirrored[later] = (rows[later] - self._further[owners]) // further
        return pictures, mirrored


def load_pictures(
    folder: ImageFolder,
    resolution: int,
    cache: Path,
    buckets: BucketPlan | None = None,
    background: str = "white",
    random_flip: bool = False,
    max_bad: float = 0.01,
) -> Pictures:
    """Decode every picture once, leaving out those that cannot be, and those of test/.

    Args:
        folder: From `read_folder`.
        resolution: Side of the squares, where there are no buckets.
        cache: Folder for what is computed once.
        buckets: Which sizes there are; None makes squares of all pictures.
        background: What transparent pixels lie on.
        random_flip: Whether mirror images are seen too.
        max_bad: Share of the pictures that may be left out because they cannot be decoded.

    Raises:
        DatasetError: More than that cannot be decoded.
    """
    examples = folder.without_test().examples
    files = [example.file for example in examples]
    most_bad = floor(max_bad * len(files) + 1e-9)
    left_out: dict[int, str] = {}
    groups = {(resolution, resolution): np.arange(len(files))}
    if buckets is not None:
        sizes = measured(files, cache, pixels_key(examples, "sizes", cache))
        left_out = {int(index): _why_unreadable(files[index]) for index in np.flatnonzero(sizes[:, 0] == 0)}
        check_share(list(left_out.values()), most_bad, len(files))
        groups = _grouped(buckets, sizes)
    kept: list[tuple[int, int, int]] = []  # example, bucket, place
    tables: list[Any] = []
    keys: list[str] = []
    for size, members in groups.items():
        form = str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
        form += "" if background == "white" else f" on {background}"
        key = pixels_key([examples[member] for member in members], form, cache)
        chosen = [files[member] for member in members]
        table, bad = decoded_table(chosen, size, cache, key, background, most_bad - len(left_out))
        left_out |= {int(members[place]): why for place, why in bad.items()}
        good = [int(member) for place, member in enumerate(members) if place not in bad]
        if good:
            kept += [(member, len(tables), place) for place, member in enumerate(good)]
            tables.append(WithMirrored(table) if random_flip else table)
            keys.append(f"{key}-mirrored" if random_flip else key)
    if not kept:
        raise DatasetError(f"not one picture of {folder.root} can be read", "`t2i data check` says why")
    kept.sort()
    usable = replace(folder, examples=tuple(examples[number] for number, _, _ in kept))
    captions, further = _captions_by_row(usable.examples, random_flip)
    return Pictures(
        usable,
        tuple(tables),
        tuple(keys),
        keys[0] if len(keys) == 1 else hashlib.sha256(" ".join(keys).encode()).hexdigest()[:16],
        captions,
        {files[index]: why for index, why in sorted(left_out.items())},
        frozenset(),
        cache,
        random_flip,
        np.array([bucket for _, bucket, _ in kept]),
        np.array([place for _, _, place in kept]),
        further,
    )


def measured(files: Sequence[Path], cache: Path, key: str) -> np.ndarray:
    """Upright width and height of each picture by its header, int32 (N, 2), read once; 0 where it has none.

    Args:
        files: The pictures.
        cache: Folder for what is computed once.
        key: Changes with any of them.
    """

    def sizes() -> Iterator[np.ndarray]:
        with ProcessPoolExecutor() as pool:
            for size in pool.map(_measure_or_zero, files, chunksize=64):
                yield np.array(size)

    return cached_table(cache / f"sizes-{key}.npy", (len(files), 2), np.int32, sizes)


def _measure_or_zero(file: Path) -> tuple[int, int]:
    try:
        return measure(file)
    except BadPicture:
        return 0, 0


def _why_unreadable(file: Path) -> str:
    try:
        measure(file)
    except BadPicture as error:
        return error.message
    return f"picture {file} could not be read earlier"


def _grouped(buckets: BucketPlan, sizes: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Bucket → the places of its pictures, buckets in the order of their sizes."""
    found: dict[tuple[int, int], list[int]] = {}
    for index, (width, height) in enumerate(sizes.tolist()):
        if width:
            found.setdefault(buckets.size_for(width, height), []).append(index)
    return {size: np.array(found[size]) for size in sorted(found)}


def _captions_by_row(examples: Sequence[Example], mirrored: bool) -> tuple[list[str], np.ndarray]:
    """The caption of every row, and the first row of each example's further captions; see `Pictures`."""
    sides = 2 if mirrored else 1
    captions = [example.caption for example in examples] * sides
    further = [len(captions)]
    for example in examples:
        captions += example.more_captions * sides
        further.append(len(captions))
    return captions, np.array(further)
