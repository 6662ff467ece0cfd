"""`t2i models`: the models that t2i knows by name."""

from __future__ import annotations

import dataclasses
import json as json_format
from typing import Annotated

import typer

from t2i.errors import UsageError


def command(
    action: Annotated[str, typer.Argument(help="list, or show", metavar="[list|show]")] = "list",
    name: Annotated[str, typer.Argument(help="which model to show", metavar="[MODEL]")] = "",
    json: Annotated[bool, typer.Option("--json", help="print JSON, a line per model")] = False,
) -> None:
    """List the models with a short name, or show one. Any other is given by Hub id, folder or file."""
    from t2i.catalog import MODELS, find_model, nearest_models

    if action not in ("list", "show"):
        raise UsageError(f"models {action}: not one of list, show")
    if bool(name) != (action == "show"):
        wanted = f"takes no name (got {name!r})" if name else "which model is to be shown?"
        raise UsageError(f"models {action}: {wanted}", "for example: t2i models show sd15")
    rows = list(MODELS.values())
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


def _flat(values: dict[str, object]) -> dict[str, object]:
    """Nested defaults as "default steps", sequences as words, empty values left out."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"default {inner}": found for inner, found in value.items()}
        else:
            flat[key.replace("_", " ")] = ", ".join(value) if isinstance(value, (tuple, list)) else value
    return {key: value for key, value in flat.items() if value not in (None, "")}
