"""The axes of a sweep: options of `t2i generate` that take several values.

    --axis steps=5,10,20   --axis scheduler=ddim,"DPM++ 2M Karras"   --axis seed=1..4
    --axis size=64x64,96x64   --axis model=pocket,runs/mine/model
    --axis lora=,corgi.safetensors,corgi.safetensors:0.5;star.safetensors   --axis lora-scale=0,0.5,1
    --axis prompt="a cat, sitting|a dog"   --axis negative-prompt="|blurry, dark"
    --axis replace=red,blue,green          the word red of the prompt as it is, and each other in its place

Commas part values as in a row of CSV: a value that has commas stands in double quotes, and `1..4` is 1, 2, 3,
4. Prompts have commas, so `|` parts the values of `prompt` and `negative-prompt`, and of any other axis that
has a `|`. An empty value of `lora` is none, and `;` stands between several LoRAs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import Any

from t2i import weights
from t2i.config import GenerateConfig, flag_of
from t2i.config.loras import without_folders
from t2i.errors import T2IError, UsageError
from t2i.promptfiles.axes import Axis, split_values
from t2i.promptfiles.keys import LISTS, OPTIONS, find_key, read_size, read_value
from t2i.promptfiles.mistakes import Mistakes
from t2i.recipes import CONTROL
from t2i.settling import preview

MOST_AXES = 3
MOST_VALUES = 100  # of one axis: a sheet of more columns cannot be read
BAR_PARTED = ("prompt", "negative_prompt")
REPLACE = "replace"
NOT_SWEPT = {
    "output": "pictures are named by their values",
    "name": "pictures are named by their values",
    "num_images": "a cell of the sheet holds one picture; for several, --axis seed=0..3",
    "batch_size": "it says how pictures are drawn together, not what is on them",
}
EXAMPLE = "for example --axis steps=5,10,20"

Fields = dict[str, Any]


def read_axes(texts: Sequence[str], mistakes: Mistakes) -> list[Axis]:
    """The axes in the order given, each value checked as the option itself is.

    A point of `replace=red,blue` sets "replace red", which is no field: `t2i.sweep.cells` applies it.

    Args:
        texts: Of each `--axis`.
        mistakes: Where everything wrong is noted, value by value.
    """
    if not 1 <= len(texts) <= MOST_AXES:
        mistakes.add(None, f"--axis is given {len(texts)} times; 1 to {MOST_AXES} make a sweep", EXAMPLE)
    axes: list[Axis] = []
    for text in texts:
        try:
            axis = _read(text, mistakes)
        except UsageError as error:
            mistakes.add_error(None, error)
            continue
        if not axis.points:
            continue
        taken = {name for other in axes for name in other.fields} & axis.fields
        if taken:
            mistakes.add(
                None, f"--axis {text}: another axis sets {', '.join(map(shown_name, sorted(taken)))}"
            )
        axes.append(axis)
    return axes


def shown_name(name: str) -> str:
    """What an axis or field is called on sheets and in messages: "guidance-scale", "replace red"."""
    return name if name.startswith(REPLACE) else flag_of(name)[2:]


def model_labels(models: Collection[str]) -> dict[str, str]:
    """What each model is called: an alias or Hub id as it is, a path by its last two parts or more.

    As many parts as tell them apart: a sheet goes to others, and where a folder lies is nobody's business.
    """
    parts = {
        model: [part for part in PurePath(model.replace("\\", "/")).parts if part != "/"] for model in models
    }
    labels = dict(zip(models, models, strict=True))
    for count in range(2, max((len(path) for path in parts.values()), default=0) + 2):
        labels = {model: "/".join(path[-count:]) or model for model, path in parts.items()}
        if len(set(labels.values())) == len(labels):
            break
    return labels


def _read(text: str, mistakes: Mistakes) -> Axis:
    """One axis; without points where every value is wrong.

    Raises:
        UsageError: Not NAME=VALUES, or an option that cannot be varied.
    """
    typed, equals, rest = text.partition("=")
    if not equals:
        raise UsageError(f"--axis {text}: not NAME=VALUE,VALUE…", EXAMPLE)
    name = typed.strip().lstrip("-").lower()
    if name != REPLACE:
        try:
            name = find_key(name)
        except UsageError as error:
            known = ", ".join(map(shown_name, [*sorted(OPTIONS.keys() - NOT_SWEPT.keys()), REPLACE]))
            hint = error.hint if error.hint.startswith("did you mean") else f"known: {known}"
            raise UsageError(f"--axis {typed}: not an option that can be varied", hint) from error
    if name in NOT_SWEPT:
        raise UsageError(f"--axis {typed}: cannot be varied: {NOT_SWEPT[name]}")
    bars = name in BAR_PARTED or "|" in rest
    values = [value.strip() for value in split_values(text, rest, "|" if bars else ",")]
    if len(values) > MOST_VALUES:
        raise UsageError(f"--axis {typed}: {len(values)} values, at most {MOST_VALUES}")
    if name in BAR_PARTED and len(values) == 1 and "," in values[0]:
        raise UsageError(f"--axis {text}: one value; | parts prompts, not a comma", f'{typed}="a cat|a dog"')
    if name == REPLACE:
        return _replacing(text, values)
    points: list[tuple[str, Fields]] = []
    for value in values:
        try:
            fields = _fields(name, value)
            if any(fields == other for _, other in points):
                raise UsageError("is there twice")
            points.append((value, fields))
        except T2IError as error:
            reason = error.message.removeprefix(f"{flag_of(name)} {value}: ")
            mistakes.add(None, f"--axis {shown_name(name)}={value}: {reason}", error.hint)
    if name in ("model", *CONTROL):
        labels = model_labels([value for value, _ in points])
        points = [(labels[value], fields) for value, fields in points]
    if name in LISTS:
        points = [(" ".join(map(without_folders, fields[name])) or "none", fields) for _, fields in points]
    return Axis(name, tuple(points))


def _fields(name: str, value: str) -> Fields:
    """The fields of `GenerateConfig` that a value sets; `prompt` for its prompt.

    Raises:
        UsageError: It cannot be used.
        ModelError: There is no such model, LoRA or textual inversion.
    """
    if name == "size":
        return read_size(value)
    read = read_value(name, value, textual=True)
    if name in LISTS:
        weights.find_adapters(GenerateConfig(**{name: read}), "")
    elif isinstance(read, tuple):
        raise UsageError("a whole number is needed")
    if name == "prompt" and not read:
        raise UsageError("there is no prompt")
    if name == "model":
        preview(GenerateConfig(model=read))
    return {name: read}


def _replacing(text: str, values: list[str]) -> Axis:
    word = values[0]
    if not word:
        raise UsageError(f"--axis {text}: the word to replace comes first", "for example replace=red,blue")
    if len(set(values)) < len(values):
        raise UsageError(f"--axis {text}: a value is there twice")
    name = f"{REPLACE} {word}"
    return Axis(name, tuple((value, {name: value}) for value in values))
