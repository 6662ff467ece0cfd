"""How LoRAs are written: `--lora PATH:SCALE`, and `<lora:NAME:SCALE>` inside a prompt as in AUTOMATIC1111."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from t2i.errors import UsageError

LARGEST_SCALE = 100.0
TAG = re.compile(r"<lora:([^<>]*)>", re.IGNORECASE)
NAME = re.compile(r"[^/\\:<>\0]{1,200}")
EXAMPLE = "for example --lora corgi.safetensors:0.8, or <lora:corgi:0.8> in the prompt"


@dataclass(frozen=True)
class LoraSpec:
    """A LoRA as a person named it.

    Attributes:
        name: A path, or the name of a file without its suffix.
        scale: Of its change of the weights; 1 is what it was trained for, 0 nothing.
        is_tag: It stands in a prompt, where a path is not allowed.
    """

    name: str
    scale: float = 1.0
    is_tag: bool = False

    def __str__(self) -> str:
        return f"{self.name}:{self.scale}"


def parse_lora(text: str) -> LoraSpec:
    """`PATH` or `PATH:SCALE`; what stands behind the last colon is a scale, if it is neither path nor suffix.

    Raises:
        UsageError: No path, or a scale that is not a number from -100 to 100.
    """
    path, colon, behind = text.rpartition(":")
    if not colon or "/" in behind or "\\" in behind or behind.endswith(".safetensors"):  # C:\\x
        path, behind = text, "1"
    if not path.strip() or "\0" in path:
        raise UsageError(f"--lora {text!r}: no file is named", EXAMPLE)
    return LoraSpec(path, _scale(behind, f"--lora {text}"))


def read_tags(prompt: str) -> tuple[str, tuple[LoraSpec, ...]]:
    """A prompt without its `<lora:…>` tags, and what they say.

    Raises:
        UsageError: A tag that is none, or a name that comes twice.
    """
    specs: dict[str, LoraSpec] = {}
    for found in TAG.finditer(prompt):
        name, colon, scale = found[1].partition(":")
        if not NAME.fullmatch(name) or name != name.strip() or ".." in name:
            raise UsageError(f"{found[0][:80]}: names no LoRA; paths are for --lora", EXAMPLE)
        if name in specs:
            raise UsageError(f"<lora:{name}> is in the prompt twice", "keep one of them")
        specs[name] = LoraSpec(name, _scale(scale if colon else "1", found[0][:80]), is_tag=True)
    return (TAG.sub("", prompt), tuple(specs.values())) if specs else (prompt, ())


def without_folders(text: str) -> str:
    """What `--lora` or `--embedding` was given, with the name of the file in place of its path.

    The same of a folder; one that is named by dots alone has no name here: "".
    """
    name = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return name if name.strip(".") else ""


def _scale(text: str, shown: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale) or abs(scale) > LARGEST_SCALE:
        limit = f"a number from -{LARGEST_SCALE:g} to {LARGEST_SCALE:g} is needed"
        raise UsageError(f"{shown}: {text[:40]!r} is no scale; {limit}", EXAMPLE)
    return scale
