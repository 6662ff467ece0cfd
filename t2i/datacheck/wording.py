"""What is wrong with the captions of a dataset: none, too long, the same, for nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

from t2i.datacheck.findings import Finding
from t2i.dataset import SUFFIXES, ImageFolder
from t2i.dataset.captions import SIDECARS

MOST_WORDS = 75  # a CLIP text encoder has places for as many tokens; a word is one or more
SHOWN_LETTERS = 60
NOT_CAPTIONS = {"readme", "license", "licence", "notice", "changelog", "copying"}

Length = Callable[[str], tuple[int, int, str]]
"""How long a caption is, how long it may be, and in what."""


def words_of(caption: str) -> tuple[int, int, str]:
    """The length of a caption in words."""
    return len(caption.split()), MOST_WORDS, "words"


def tokens_by(model: str) -> Length:
    """How long captions are for a model; loads its tokenizer, none of its networks, and nothing from the net.

    Raises:
        ModelError: No such model.
    """
    from t2i import weights

    tokenizer, _ = weights.load_vocabulary(weights.resolve_model(model, offline=True))
    window = tokenizer.model_max_length - 2  # begin and end have a place each

    def tokens_of(caption: str) -> tuple[int, int, str]:
        return len(tokenizer(caption, add_special_tokens=False, verbose=False).input_ids), window, "tokens"

    return tokens_of


def about_captions(folder: ImageFolder, usable: Container[Path], length: Length) -> Iterator[Finding]:
    """What is to be said of the captions of a folder.

    Args:
        folder: What was read.
        usable: The pictures that can be decoded; of the others, captions do not matter.
        length: How captions are measured.
    """
    examples = [example for example in folder.examples if example.file in usable]
    if not any(caption for example in examples for caption in example.captions):
        yield Finding("uncaptioned", "", "")
        return
    uses: Counter[str] = Counter()
    for example in examples:
        place = relative(example.file, folder.root)
        for caption in example.captions:
            if not caption:
                yield Finding("no-caption", place, "")
                continue
            uses[caption] += 1
            count, most, unit = length(caption)
            if count > most:
                yield Finding("long-caption", place, f"{count} {unit}, of which {most} are read at once")
    for caption, count in uses.most_common():
        if count > 1:
            shown = caption if len(caption) <= SHOWN_LETTERS else caption[:SHOWN_LETTERS] + "…"
            yield Finding("duplicate-caption", "", f"{count} times: {shown}")
    listed = Counter(relative(example.file, folder.root) for example in examples)
    for place, count in listed.items():
        if count > 1:
            yield Finding("listed-twice", place, f"{count} lines")


def about_other_files(folder: ImageFolder, files: Sequence[Path]) -> Iterator[Finding]:
    """Files that are no pictures with captions: captions without a picture, and pictures that nothing reads.

    Args:
        folder: What was read.
        files: Every file under the folder.
    """
    stems = {file.with_suffix("") for file in files if file.suffix.lower() in SUFFIXES}
    read = {example.file for example in folder.examples}
    for file in sorted(files):
        place, suffix = relative(file, folder.root), file.suffix.lower()
        if suffix in SIDECARS and "sidecar" in folder.caption_source:
            if file.with_suffix("") not in stems and file.stem.lower() not in NOT_CAPTIONS:
                yield Finding("orphan-caption", place, "no picture of this name")
        elif suffix in OTHER_FORMATS:
            yield Finding("format", place, f"{suffix[1:].upper()} is not read; save it as PNG or JPEG")
        elif suffix in SUFFIXES and "metadata" in folder.caption_source and file not in read:
            yield Finding("unlisted", place, "")


OTHER_FORMATS = {
    ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif", ".jpe", ".svg",
    ".psd", ".tga", ".ico", ".dng", ".cr2", ".nef", ".arw", ".raw", ".apng", ".ppm", ".exr",
}  # fmt: skip


def relative(file: Path, root: Path) -> str:
    """A file as it is called inside the folder, with slashes."""
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
