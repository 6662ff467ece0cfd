"""A dataset folder: which pictures are in it, what is said of each, which of them are held out.

Layouts, the first that fits:

- `metadata.jsonl` or `metadata.csv`: file_name, text (one caption, or in .jsonl a list of them), and repeats;
- a text file beside the picture, `x.txt` or `x.caption`: every line is a caption of its own;
- kohya's folders, `10_sks dog/`: ten repeats, and "sks dog" where there is no text file;
- file names that are words; folder names that are words (a folder per class); nothing.

`train/` beside `val/`, `valid/` or `validation/` (and `test/`) part the pictures; each may have its own
metadata file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from t2i.dataset.captions import (
    METADATA,
    Example,
    Fault,
    OnFault,
    caption_from_folder,
    caption_from_name,
    is_outside,
    read_metadata,
    read_sidecar,
    refuse,
    repeats_of,
    sidecar_of,
)
from t2i.dataset.decoding import SUFFIXES
from t2i.errors import DatasetError, UsageError

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class ImageFolder:
    """The examples of a folder, in a fixed order, and where their captions came from.

    Attributes:
        root: The folder.
        examples: All of them, held out or not.
        caption_source: "metadata", "sidecar", "names", "folders", "one for all" or "none".
        kohya: Whether its folders say how often their pictures are repeated.
    """

    root: Path
    examples: tuple[Example, ...]
    caption_source: str
    kohya: bool = False

    def without_test(self) -> ImageFolder:
        """The same without the pictures of test/, which no training looks at."""
        return replace(self, examples=tuple(one for one in self.examples if one.part != "test"))

    def captions(self) -> list[str]:
        """One caption per example, in order."""
        return [example.caption for example in self.examples]

    def summary(self) -> str:
        """What was understood, in one line: "24 pictures, captions: metadata"."""
        parts = [f"{len(self.examples)} pictures", f"captions: {self.caption_source}"]
        several = sum(bool(example.more_captions) for example in self.examples)
        if several:
            parts.append(f"{several} with several captions")
        if any(example.repeats != 1 for example in self.examples) or self.kohya:
            seen = sum(example.repeats for example in self.examples)
            parts.append(f"{'kohya folders, ' * self.kohya}with repeats {seen} a pass")
        for part in ("val", "test"):
            held = sum(example.part == part for example in self.examples)
            if held:
                parts.append(f"{held} of them held out in {part}/")
        return ", ".join(parts)


def read_folder(
    root: Path,
    captions: str = "auto",
    caption: str | None = None,
    follow_symlinks: bool = False,
    on_fault: OnFault = refuse,
    name_column: str | None = None,
    text_column: str | None = None,
) -> ImageFolder:
    """Find pictures and captions; sub-folders are read too.

    Args:
        root: The dataset folder.
        captions: "metadata", "sidecar", "names" (file names), "folders" (folder names), "none", or "auto":
            the first that fits.
        caption: One caption for all pictures, instead of those in the folder.
        follow_symlinks: Whether links may lead out of the folder.
        on_fault: Told of each file or line that cannot be used; what it is about is left out if it returns.
        name_column: Of metadata, which names the picture; None = file_name.
        text_column: Of metadata, with the captions; None = text.

    Raises:
        UsageError: A column is named and no metadata is read.
        DatasetError: Not a folder, unreadable, no pictures; and, by `refuse`, any fault, such as a caption
            for a picture that is not there.
    """
    if not root.is_dir():
        raise DatasetError(f"dataset {root} is not a folder", "give a folder of pictures")
    try:
        os.listdir(root)
        files = sorted(_picture_files(root, follow_symlinks, on_fault))
        parts = _part_folders(root)
        reading = _Reading(captions, caption, follow_symlinks, on_fault, name_column, text_column)
        if parts and not (captions in ("auto", "metadata") and caption is None and reading.metadata_in(root)):
            found = [reading.read(part, [file for file in files if part in file.parents]) for part in parts]
            others = [file for file in files if not any(part in file.parents for part in parts)]
            if others:
                found.append(reading.read(root, others))
            found = [folder for folder in found if folder.examples]
        else:
            found = [reading.read(root, files)]
    except OSError as error:
        raise DatasetError(f"dataset {root} cannot be read: {error.strerror}") from error
    examples = [example for folder in found for example in folder.examples]
    if not examples:
        raise DatasetError(f"dataset {root} holds no pictures", f"allowed: {', '.join(SUFFIXES)}")
    if parts:
        examples = [replace(example, part=_part_of(example.file, root)) for example in examples]
    sources = dict.fromkeys(folder.caption_source for folder in found)
    return ImageFolder(root, tuple(examples), " and ".join(sources), any(folder.kohya for folder in found))


@dataclass(frozen=True)
class _Reading:
    """How a folder is read; see `read_folder`."""

    captions: str
    caption: str | None
    follow_symlinks: bool
    on_fault: OnFault
    name_column: str | None
    text_column: str | None

    def metadata_in(self, root: Path) -> Path | None:
        path = next((root / name for name in METADATA if (root / name).is_file()), None)
        return path if path is not None and self._allowed(path, root) else None

    def read(self, root: Path, files: Sequence[Path]) -> ImageFolder:
        """The examples of a folder that is not parted; `files` are the pictures in it, sorted."""
        metadata = self.metadata_in(root)
        listed = self.caption is None and (
            self.captions == "metadata" or (self.captions == "auto" and metadata)
        )
        if not listed and (self.name_column, self.text_column) != (None, None):
            raise UsageError(
                "--image-column and --caption-column name columns of metadata, parquet or webdataset files, "
                f"and no such file is read in {root}",
                "leave them out",
            )
        if self.caption is not None:
            return self._said(root, files, "one for all", [self.caption] * len(files))
        if listed:
            if not metadata:
                raise DatasetError(
                    f"{root} has no metadata.jsonl or metadata.csv", "or choose other --captions"
                )
            columns = self.name_column or "file_name", self.text_column or "text"
            rows = read_metadata(root, metadata, self.follow_symlinks, self.on_fault, *columns)
            return ImageFolder(root, tuple(rows), "metadata")
        repeats = [repeats_of(file, root) for file in files]
        kohya = bool(files) and None not in repeats
        if self.captions == "sidecar" or (self.captions == "auto" and any(map(sidecar_of, files))):
            return self._beside(root, files, kohya and self.captions == "auto")
        named = [caption_from_name(file) for file in files]
        classes = [caption_from_folder(file, root) for file in files]
        if self.captions == "folders" or (self.captions == "auto" and kohya):
            return self._said(root, files, "folders", classes)
        if self.captions == "names" or (self.captions == "auto" and sum(map(bool, named)) * 2 > len(named)):
            return self._said(root, files, "names", named)
        worded = all(said and caption_from_name(Path(said)) for said in classes)
        if self.captions == "auto" and worded and len(set(classes)) > 1:
            return self._said(root, files, "folders", classes)
        return self._said(root, files, "none", [""] * len(files))

    def _said(self, root: Path, files: Sequence[Path], source: str, captions: Sequence[str]) -> ImageFolder:
        repeats = [repeats_of(file, root) for file in files]
        kohya = bool(files) and None not in repeats
        examples = (
            Example(file, caption, repeats=count if kohya and count else 1)
            for file, caption, count in zip(files, captions, repeats, strict=True)
        )
        return ImageFolder(root, tuple(examples), source, kohya)

    def _beside(self, root: Path, files: Sequence[Path], class_too: bool) -> ImageFolder:
        """Captions from text files; where there is none, that of the class if `class_too`."""
        said = self._said(root, files, "sidecar", [""] * len(files))
        examples = []
        for example in said.examples:
            sidecar = sidecar_of(example.file)
            captions: tuple[str, ...] = ()
            if sidecar is not None and self._allowed(sidecar, root):
                captions = read_sidecar(sidecar, self.on_fault)
            if not captions:
                captions = (caption_from_folder(example.file, root) if class_too else "",)
            examples.append(replace(example, caption=captions[0], more_captions=captions[1:]))
        return replace(said, examples=tuple(examples))

    def _allowed(self, path: Path, root: Path) -> bool:
        return _inside(path, root.resolve(), self.follow_symlinks, self.on_fault)


def _inside(path: Path, resolved_root: Path, follow_symlinks: bool, on_fault: OnFault) -> bool:
    """Whether a file may be read: it is no link, or one that stays in the folder or is wanted."""
    if follow_symlinks or not path.is_symlink() or not is_outside(path, resolved_root):
        return True
    told = f"{path} is a link out of the dataset folder"
    on_fault(Fault("outside", str(path), told, "--follow-symlinks, if it is yours"))
    return False


def _picture_files(root: Path, follow_symlinks: bool, on_fault: OnFault) -> Iterator[Path]:
    """Every file with the suffix of a picture, in no order."""

    def unreadable(error: OSError) -> None:
        told = f"folder {error.filename} cannot be read: {error.strerror}"
        on_fault(Fault("unreadable", str(error.filename), told))

    resolved_root, seen = root.resolve(), set()
    for folder, inner, names in os.walk(root, followlinks=follow_symlinks, onerror=unreadable):
        if follow_symlinks:
            real = os.path.realpath(folder)
            if real in seen:  # links in a circle
                inner.clear()
                continue
            seen.add(real)
        for path in (Path(folder, name) for name in names):
            if path.suffix.lower() not in SUFFIXES:
                continue
            if path.is_file():
                if _inside(path, resolved_root, follow_symlinks, on_fault):
                    yield path
            elif path.is_symlink():
                told = f"{path} is a link to a file that is not there"
                on_fault(Fault("missing", str(path), told, "remove the link"))


def _part_folders(root: Path) -> list[Path]:
    """The folders of a dataset in parts; empty unless there are one to train on and one to validate on."""
    found = [root / name for name in PARTS if (root / name).is_dir()]
    return found if {"train", "val"} <= {PARTS[path.name] for path in found} else []


def _part_of(file: Path, root: Path) -> str:
    below = file.relative_to(root).parts
    return PARTS.get(below[0], "") if len(below) > 1 else ""
