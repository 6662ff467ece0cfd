"""Where a LoRA, textual inversion or ControlNet is that somebody named, by path or by name alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from t2i.config.loras import LoraSpec
from t2i.errors import ModelError

SUFFIX = ".safetensors"


def user_adapter_folder(kind: str) -> Path:
    """Where a person may keep files that are to be found by name: `T2I_DATA`, else the system's place.

    Args:
        kind: "loras", "embeddings" or "controlnets".
    """
    if os.environ.get("T2I_DATA"):
        return Path(os.environ["T2I_DATA"]) / kind
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "t2i" / kind


def find_file(text: str, kind: str, option: str) -> Path:
    """The file of an option.

    Args:
        text: A path, with or without suffix, or a name of a file in the user's own folder.
        kind: Of `user_adapter_folder`.
        option: For the message.

    Raises:
        ModelError: It is nowhere.
    """
    path = Path(text).expanduser()
    places = [path, path.with_name(path.name + SUFFIX)] if path.name else [path]
    if path.name == text:
        folder = user_adapter_folder(kind)
        places += [folder / text, folder / (text + SUFFIX)]
    found = _first_file(places)
    if found is not None:
        return found
    if _exists(path):
        return path  # a folder or a pipe: whoever reads it says so
    if path.name == text:
        searched = f"searched: the current folder, {places[-1].parent}"
        raise ModelError(f"{option} {text}: there is no such file", searched)
    raise ModelError(f"{option} {text}: there is no such file", "check the spelling of the path")


def find_tagged(tag: LoraSpec, given: Sequence[Path]) -> Path:
    """The file that a tag of a prompt names.

    Args:
        tag: Of the prompt.
        given: The files of `--lora`.

    Raises:
        ModelError: It is nowhere.
    """
    for path in given:
        if tag.name in (path.stem, path.name):
            return path
    folders = dict.fromkeys([*(path.parent for path in given), Path(), user_adapter_folder("loras")])
    names = (tag.name + SUFFIX, *([tag.name] if tag.name.endswith(SUFFIX) else []))
    found = _first_file([folder / name for folder in folders for name in names])
    if found is None:
        searched = ", ".join("the current folder" if folder == Path() else str(folder) for folder in folders)
        hint = f"searched: {searched}; or say where it is with --lora"
        raise ModelError(f"<lora:{tag.name}>: there is no file {tag.name}{SUFFIX}", hint)
    return found


def find_folder(text: str, kind: str, option: str) -> Path:
    """The folder of an option: at that path, or of that name in the user's own folder.

    Raises:
        ModelError: It is nowhere.
    """
    path = Path(text).expanduser()
    own = user_adapter_folder(kind) / text
    if path.name == text and not _exists(path) and _exists(own):
        return own
    if _exists(path):
        return path  # should it be a file, whoever reads it says so
    searched = f"searched: the current folder, {own.parent}"
    hint = searched if path.name == text else "check the spelling of the path"
    raise ModelError(f"{option} {text}: there is no such folder", hint)


def _first_file(places: Iterable[Path]) -> Path | None:
    for place in places:
        try:
            if place.is_file():
                return place
        except (OSError, ValueError):  # a name too long for the system
            continue
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
