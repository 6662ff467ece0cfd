"""`t2i models`: the models that t2i knows by name, and what a LoRA or embedding file is."""

from __future__ import annotations

import dataclasses
import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from t2i.cli.door import printable
from t2i.errors import ModelError, UsageError


def command(
    action: Annotated[str, typer.Argument(help="list, or show", metavar="[list|show]")] = "list",
    name: Annotated[
        str, typer.Argument(help="which model, LoRA or embedding file to show", metavar="[MODEL|FILE]")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="print JSON, a line per model")] = False,
) -> None:
    """List the models with a short name, or show one. Any other is given by Hub id, folder or file.

    Of a LoRA or textual inversion (.safetensors), show tells format, networks, rank or token, and base model.
    """
    from t2i.catalog import MODELS, find_model, nearest_models

    if action not in ("list", "show"):
        raise UsageError(f"models {action}: not one of list, show")
    if bool(name) != (action == "show"):
        wanted = f"takes no name (got {name!r})" if name else "which model is to be shown?"
        raise UsageError(f"models {action}: {wanted}", "for example: t2i models show sd15")
    rows = list(MODELS.values())
    if action == "show" and find_model(name) is None and name.endswith(".safetensors"):
        values = _adapter(Path(name).expanduser())
        told = (
            [json_format.dumps(values)]
            if json
            else [f"{key:<15} {value}" for key, value in _flat(values).items()]
        )
        print(printable("\n".join(told)))
        return
    if action == "show":
        row = find_model(name)
        if row is None:
            near = ", ".join(nearest_models(name)) or "see t2i models"
            raise UsageError(
                f"no model is called {name!r}", f"did you mean {near}?" if "see" not in near else near
            )
        rows = [row]
    for row in rows:
        values = {**dataclasses.asdict(row), "native_size": row.native_size}
        if json:
            print(json_format.dumps(values))
        elif action == "show":
            print("\n".join(f"{key:<15} {value}" for key, value in _flat(values).items()))
        else:
            size = f"{row.download_bytes / 2**30:.1f} GiB" if row.download_bytes else "built in"
            print(f"{row.alias:<12} {row.native_size:>9}  {size:>8}  {row.note} ({row.licence})")


def _adapter(path: Path) -> dict[str, object]:
    """What a LoRA or textual inversion file says of itself.

    Raises:
        ModelError: It is neither, or cannot be read.
    """
    from t2i import weights

    try:
        lora = weights.inspect_lora(path)
    except ModelError as not_lora:
        try:
            found = weights.inspect_embedding(path)
        except ModelError:
            raise not_lora from None
        return {
            "file": found.name, "kind": "embedding", "format": found.format, "token": found.token,
            "vectors": found.vectors, "widths": [str(width) for width in found.widths],
        }  # fmt: skip
    said = {key: value[:200] for key, value in sorted(lora.metadata.items()) if key.startswith("modelspec.")}
    return {
        "file": lora.name, "kind": "LoRA", "format": lora.format_in_words,
        "networks": [f"{part} ({count} layers)" for part, count in lora.layers.items()],
        "rank": [str(rank) for rank in lora.ranks], "base_model": lora.base or "not said", **said,
    }  # fmt: skip


def _flat(values: dict[str, object]) -> dict[str, object]:
    """Nested defaults as "default steps", sequences as words, empty values left out."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"default {inner}": found for inner, found in value.items()}
        else:
            flat[key.replace("_", " ")] = ", ".join(value) if isinstance(value, (tuple, list)) else value
    return {key: value for key, value in flat.items() if value not in (None, "")}
