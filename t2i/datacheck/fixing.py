"""A clean copy of a dataset: what is fine as it is, what is odd as a plain picture, nothing broken."""

from __future__ import annotations

import io
import json
import os
import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from t2i import durable
from t2i.datacheck.checking import Checked
from t2i.datacheck.findings import UNUSABLE
from t2i.datacheck.names import safe_name
from t2i.datacheck.wording import relative
from t2i.dataset import Example
from t2i.dataset.decoding import in_rgb, open_picture, turned
from t2i.errors import DatasetError, StorageError, UsageError
from t2i.naming import SUFFIXES, check_writable

if TYPE_CHECKING:
    from PIL import Image as PillowImage

LEFT_OUT = UNUSABLE | {"duplicate", "leak"}
REPAINTED = {"rotated", "16-bit", "cmyk", "alpha", "animated", "profile"}
SUFFIX_OF = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "WEBP": ".webp"}


def check_target(target: Path, folder: Path) -> None:
    """Refuse a place for the copy before anything is looked at.

    Raises:
        UsageError: It is in the dataset, which would grow by it, or the dataset is in it.
        StorageError: It is there already, or cannot be written.
    """
    inside, outside = target.resolve(), folder.resolve()
    if inside.is_relative_to(outside) or outside.is_relative_to(inside):
        raise UsageError(f"--fix {target} and the dataset {folder} lie in one another", "name another folder")
    if os.path.lexists(target):
        raise StorageError(f"{target} already exists", "--fix makes a new folder; name another")
    check_writable([target])


def write_fixed(checked: Checked, target: Path, background: str) -> dict[str, Any]:
    """Write the copy, whole or not at all: pictures, and metadata.jsonl with every caption.

    A picture with nothing wrong keeps its bytes; one that is turned by EXIF, in CMYK, with 16 bits,
    transparent, animated or with a colour profile becomes an upright 8-bit sRGB PNG. What cannot be decoded,
    the second of two equal pictures, and a held-out picture that is one of the others are left out. The
    original is only read.

    Args:
        checked: What was found.
        target: A new folder.
        background: Colour under transparent parts.

    Returns:
        Folder, number of pictures written, repainted and renamed, and the files left out with reasons.

    Raises:
        StorageError: No room, no permission, or something is there.
        DatasetError: Nothing would be in it.
    """
    root = checked.folder.root
    reasons: dict[str, str] = {}
    for finding in checked.report.findings:
        if finding.kind in LEFT_OUT:
            reasons.setdefault(finding.place, f"{finding.kind}: {finding.detail}".rstrip(": "))
    kinds = {file: {kind for kind, _ in one.found} for file, one in checked.examined.items()}
    taken: set[str] = set()
    rows, names, repainted = [], {}, 0
    with durable.staged_folder(target) as staged:
        for example in checked.folder.examples:
            place = relative(example.file, root)
            if place in reasons:
                continue
            if example.file not in names:
                repaint = bool(kinds[example.file] & REPAINTED)
                repainted += repaint
                name = _free_name(_inside(example.file, root), _suffix(example.file, repaint), taken)
                names[example.file] = name
                _copy(example.file, staged / name, repaint, background)
            rows.append(_row(example, names[example.file]))
        if not rows:
            raise DatasetError(f"not one picture of {root} can be used", "nothing is written")
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (staged / "metadata.jsonl").write_text(lines, encoding="utf-8")
    renamed = sum(name != relative(file, root) for file, name in names.items())
    return {
        "folder": str(target),
        "written": len(names),
        "repainted": repainted,
        "renamed": renamed,
        "left_out": [{"file": file, "why": why} for file, why in sorted(reasons.items())],
    }


def _inside(file: Path, root: Path) -> PurePosixPath:
    """Where a picture goes: as in the original, with safe names."""
    parts = [part for part in PurePosixPath(relative(file, root)).parts if part not in ("..", ".", "/")]
    return PurePosixPath(*map(safe_name, parts))


def _suffix(file: Path, repaint: bool) -> str:
    """The suffix that says what is in the copy; its own where that is right."""
    if repaint:
        return ".png"
    with open_picture(file) as opened:
        right = SUFFIX_OF[str(opened.format)]
    return file.suffix if SUFFIXES.get(file.suffix.lower()) == SUFFIXES[right] else right


def _free_name(path: PurePosixPath, suffix: str, taken: set[str]) -> str:
    """The path with a suffix, and with a number where it is taken, whatever the case of its letters."""
    name, number = str(path.with_suffix(suffix)), 1
    while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
        number += 1
        name = str(path.with_name(f"{path.stem}-{number}{suffix}"))
    taken.add(key)
    return name


def _copy(file: Path, target: Path, repaint: bool, background: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not repaint:
        shutil.copyfile(file, target)
        return
    with open_picture(file) as opened:
        opened.load()
        picture = _in_srgb(turned(opened), background)
    picture.save(target, "PNG")  # outside: what the disk refuses is not the picture's fault


def _in_srgb(picture: PillowImage.Image, background: str) -> PillowImage.Image:
    """The picture in 8-bit RGB, its colours converted by its profile if it has one that can be read."""
    profile = picture.info.get("icc_profile")
    if profile and picture.mode in ("RGB", "CMYK", "L"):
        try:
            from PIL import ImageCms

            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(
                picture, own, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            picture = converted or picture
        except Exception:  # a damaged profile, or one of another kind than the picture: as without it
            pass
    plain = in_rgb(picture, background)
    plain.info.clear()  # neither the profile nor an orientation is true of it any more
    return plain


def _row(example: Example, name: str) -> Mapping[str, Any]:
    captions: Sequence[str] | str = example.captions if example.more_captions else example.caption
    repeats = {"repeats": example.repeats} if example.repeats != 1 else {}
    return {"file_name": name, "text": captions, **repeats}
