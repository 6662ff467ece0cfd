"""The recipe of one picture: everything needed to draw it again, as JSON and as A1111 `parameters` text.

Knows no files and no tensors. A recipe holds base names and content hashes, never a path, a user or a host.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath, PureWindowsPath
from typing import Any, get_args, get_origin, get_type_hints

from t2i.config import GenerateConfig
from t2i.config.loras import without_folders
from t2i.errors import StorageError, UsageError
from t2i.version import __version__

RECIPE_VERSION = 1
MAX_RECIPE_BYTES = 60_000  # an EXIF or XMP block of a JPEG holds 64 KiB
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

CONTROL = ("controlnet", "control_image")  # settings that name one file or folder

Recipe = dict[str, Any]


@dataclass(frozen=True)
class Placed:
    """Where one picture stood while it was denoised; needed to repeat it to the bit.

    Args:
        index: Position in the run.
        seed: Start noise.
        batch_shape: Latents of the whole batch, (B, C, h, w).
        batch_position: Row of the batch, from 0.
    """

    index: int
    seed: int
    batch_shape: tuple[int, int, int, int]
    batch_position: int


def make_recipe(
    config: GenerateConfig,
    placed: Placed,
    model: Mapping[str, Any],
    runtime: Mapping[str, Any],
    pixels_sha256: str,
) -> Recipe:
    """The recipe of one picture.

    Args:
        config: Resolved: one prompt, this picture's seed, no None among the values that shape a picture.
        placed: Its place in the batch.
        model: "id", "family" and "files" (relative name → SHA-256).
        runtime: Device, dtype, threads, versions: what `t2i.devices.describe` returns.
        pixels_sha256: Of the uint8 pixels before they are encoded.
    """
    identity = base_name(str(model["id"]))
    places = {name: getattr(config, name) for name in CONTROL if getattr(config, name) is not None}
    return {
        "t2i": __version__,
        "recipe": RECIPE_VERSION,
        "config": {
            **config.to_dict(),
            "model": identity,
            "lora": [without_folders(text) for text in config.lora],
            "embedding": [without_folders(text) for text in config.embedding],
            **{name: without_folders(text) or name for name, text in places.items()},
        },
        "image": {
            "index": placed.index,
            "seed": placed.seed,
            "batch_shape": list(placed.batch_shape),
            "batch_position": placed.batch_position,
        },
        "model": {**model, "id": identity},
        "runtime": dict(runtime),
        "pixels_sha256": pixels_sha256,
    }


def base_name(model: str) -> str:
    """A model as a recipe may name it: an alias or Hub id as it is, a path by its last part."""
    if "\\" in model:
        return PureWindowsPath(model).name
    is_path = (
        model.startswith(("/", ".", "~")) or model.count("/") != 1 or model.endswith((".safetensors", "/"))
    )
    return PurePath(model).name if is_path else model


def dumps(recipe: Mapping[str, Any]) -> str:
    """The recipe as one line of JSON, the same bytes for the same recipe.

    Raises:
        StorageError: Longer than a picture may carry.
    """
    text = _text(recipe)
    if len(text.encode()) > MAX_RECIPE_BYTES:
        raise StorageError(
            f"the recipe has {len(text.encode())} bytes or more, and a picture can carry {MAX_RECIPE_BYTES}",
            "use a shorter prompt or --metadata minimal",
        )
    return text


def digest(recipe: Mapping[str, Any]) -> str:
    """SHA-256 of the whole recipe as JSON, hexadecimal; also of one that no picture could carry."""
    return hashlib.sha256(_text(recipe).encode()).hexdigest()


def _text(recipe: Mapping[str, Any]) -> str:
    text = json.dumps(recipe, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode()  # a lone surrogate in a prompt cannot be written


def check_fits(config: GenerateConfig) -> None:
    """Refuse prompts that no recipe has room for, before the model is loaded.

    Raises:
        StorageError: A prompt and its settings alone are longer than a picture may carry.
    """
    for prompt in dict.fromkeys(config.prompts):
        dumps(config.replace(prompts=(prompt,)).to_dict())


def loads(text: str) -> Recipe:
    """The recipe in a picture's text, checked only so far that nothing later stumbles over its shape.

    Raises:
        StorageError: Not a recipe, or one of a newer t2i.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StorageError("the recipe in this picture is damaged") from error
    parts = ("config", "image", "model", "runtime")
    if not isinstance(value, dict) or any(not isinstance(value.get(part), dict) for part in parts):
        raise StorageError("the recipe in this picture is not one of t2i's")
    if not isinstance(value.get("recipe"), int) or value["recipe"] > RECIPE_VERSION:
        raise StorageError(
            f"the recipe has version {value.get('recipe')!r}, this t2i reads {RECIPE_VERSION}", "update t2i"
        )
    return value


def config_of(recipe: Mapping[str, Any]) -> GenerateConfig:
    """The config that drew the picture: one prompt, one image, its own seed.

    Raises:
        StorageError: Values that no t2i wrote.
    """
    kinds = get_type_hints(GenerateConfig)
    values = {name: value for name, value in recipe["config"].items() if name in kinds}
    values["seed"] = recipe["image"].get("seed", values.get("seed"))
    for name, value in values.items():
        if not _is_of(kinds[name], value):
            raise StorageError(f"the recipe cannot be used: {name} is {str(value)[:40]!r}")
    for name in {"lora", "embedding"} & values.keys():  # a recipe that names folders is not t2i's
        values[name] = [without_folders(text) for text in values[name]]
    for name in CONTROL:
        if values.get(name) is not None:
            values[name] = without_folders(values[name]) or name
    try:
        return GenerateConfig.from_dict(values)
    except UsageError as error:
        raise StorageError(f"the recipe cannot be used: {error}") from error


def compare_runtimes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What of device, format, threads and versions is not as recorded: "torch 2.12.0 -> 2.13.0"."""
    before, after = _flat(recorded), _flat(now)
    return tuple(
        f"{name} {before.get(name)} -> {after.get(name)}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


def _flat(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """The runtime with the versions beside everything else."""
    inner = runtime.get("versions")
    return {name: value for name, value in runtime.items() if name != "versions"} | (
        inner if isinstance(inner, dict) else {}
    )


def to_parameters(recipe: Mapping[str, Any]) -> str:
    """The recipe in the form that A1111's "PNG info" and its readers understand.

    The first line is the prompt, then "Negative prompt: ...", then "Steps: 20, Sampler: ..., ...".
    """
    from t2i.schedulers import find_row

    config, model = recipe["config"], recipe["model"]
    row = find_row(config["scheduler"])
    control = recipe.get("control")
    hashes = [  # of the whole checkpoint, or of the UNet in a model folder
        digest
        for name, digest in sorted(model["files"].items())
        if name.endswith(".safetensors") and ("/" not in name or name.startswith("unet/"))
    ]
    entries = {
        "Steps": config["steps"],
        "Sampler": row.aliases[0] if row.aliases else row.name,
        "CFG scale": config["guidance_scale"],
        "Seed": recipe["image"]["seed"],
        "Size": f"{config['width']}x{config['height']}",
        "Model hash": hashes[0][:10] if hashes else None,
        "Model": model["id"],
        "Lora": ", ".join(f"{row['file']} x{row['scale']:g}" for row in recipe.get("loras", ())) or None,
        "ControlNet 0": f"Model: {control['controlnet']}, Weight: {control['scale']:g}" if control else None,
        "Version": f"t2i {recipe['t2i']}",
    }
    last = ", ".join(f"{name}: {_quote(value)}" for name, value in entries.items() if value is not None)
    negative = config["negative_prompt"]
    return "\n".join([*config["prompts"], *([f"Negative prompt: {negative}"] if negative else []), last])


def from_parameters(text: str) -> dict[str, Any]:
    """The `GenerateConfig` values in a `parameters` text, also of other programs.

    What has no equal here (hashes, upscalers) is left out; `model` too, since a name in a picture is no model
    on this machine. LoRAs stay in the prompt, as tags.

    Raises:
        StorageError: No line of settings in it.
    """
    head, _, last = text.strip().rpartition("\n")
    if "Steps: " not in last:
        raise StorageError("the `parameters` text in this picture has no settings")
    prompt, _, negative = ("\n" + head).partition("\nNegative prompt:")
    found = {
        name: _unquote(value) for name, value in re.findall(r'\s*([\w ]+):\s*("(?:\\.|[^"])*"|[^,]*)', last)
    }
    values: dict[str, Any] = {"prompts": (prompt.strip(),), "negative_prompt": negative.strip()}
    sampler = found.get("Sampler")
    if sampler:
        schedule = found.get("Schedule type", "Automatic")
        values["scheduler"] = sampler if schedule in ("Automatic", "Uniform") else f"{sampler} {schedule}"
    try:
        for name, key, kind in (
            ("steps", "Steps", int),
            ("guidance_scale", "CFG scale", float),
            ("seed", "Seed", int),
        ):
            if key in found:
                values[name] = kind(found[key])
        if "Size" in found:
            values["width"], values["height"] = (int(side) for side in found["Size"].split("x"))
    except ValueError as error:
        raise StorageError(f"the `parameters` text in this picture cannot be read: {error}") from error
    return values


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a value out of JSON is what a config field of this type holds."""
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    allowed = get_args(kind) or (kind,)
    if isinstance(value, bool):
        return bool in allowed
    return isinstance(value, (*allowed, int) if float in allowed else allowed)


def _quote(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text


def _unquote(text: str) -> str:
    if not text.startswith('"'):
        return text.strip()
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def to_lines(recipe: Mapping[str, Any]) -> list[str]:
    """The recipe for a person, a setting a line."""
    config, model, runtime = recipe["config"], recipe["model"], recipe["runtime"]

    def inside(values: Mapping[str, Any], name: str, kind: type) -> Any:  # nobody checked what is in a recipe
        return values[name] if isinstance(values.get(name), kind) else kind()

    shown = {
        "prompt": " | ".join(map(str, inside(config, "prompts", list))),
        "negative": config.get("negative_prompt"),
        "seed": recipe["image"].get("seed"),
        "size": f"{config.get('width')} x {config.get('height')}",
        "steps": config.get("steps"),
        "guidance": config.get("guidance_scale"),
        "scheduler": config.get("scheduler"),
        "model": f"{model.get('id')} ({model.get('family')}, {len(inside(model, 'files', dict))} files)",
        "loras": "; ".join(_shown(row, "scale", "format") for row in _rows(recipe, "loras")),
        "embeddings": "; ".join(_shown(row, "token", "format") for row in _rows(recipe, "embeddings")),
        "control": _shown_control(inside(recipe, "control", dict)),
        "batch": f"row {recipe['image'].get('batch_position')} of {recipe['image'].get('batch_shape')}",
        "machine": ", ".join(
            f"{name} {value}" for name, value in runtime.items() if not isinstance(value, dict)
        ),
        "versions": ", ".join(f"{name} {value}" for name, value in inside(runtime, "versions", dict).items()),
        "pixels": str(recipe.get("pixels_sha256")),
    }
    return [f"{name:<10} {value}" for name, value in shown.items() if value not in ("", None)]


def _rows(recipe: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The LoRAs or embeddings of a recipe; nobody checked what is in one."""
    found = recipe.get(name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _shown_control(entry: Mapping[str, Any]) -> str:
    """ "edges (scale 1.0) follows dog.png (64 x 64, sha256 0123456789)"."""
    if not entry:
        return ""
    size = entry.get("image_size")
    sides = " x ".join(map(str, size)) if isinstance(size, list) else "?"
    kind = f"the {entry['kind']} of " if entry.get("kind") else ""
    return (
        f"{entry.get('controlnet')} (scale {entry.get('scale')}) follows {kind}{entry.get('image')} "
        f"({sides}, sha256 {str(entry.get('image_sha256'))[:10]})"
    )


def _shown(row: Mapping[str, Any], *names: str) -> str:
    """ "corgi.safetensors (scale 0.8, peft, sha256 0123456789)"."""
    values = [f"{name} {row.get(name)}" if name != "format" else str(row.get(name)) for name in names]
    return f"{row.get('file')} ({', '.join(values)}, sha256 {str(row.get('sha256'))[:10]})"
