"""`t2i show`: the recipe inside a picture."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from t2i.cli.door import printable, raise_all
from t2i.errors import PartialError, StorageError, T2IError


def command(
    pictures: Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files", metavar="IMG")],
    json: Annotated[
        bool, typer.Option("--json", help="print the recipe as JSON, a line per picture")
    ] = False,
) -> None:
    """Show how a picture was made.

    Reads the recipe that t2i wrote into it, or the `parameters` text of other programs. Loads no model.
    Exit code 3 if some of several pictures can be shown and some cannot.
    """
    from t2i import images, recipes

    failures: list[T2IError] = []
    for path in pictures:
        try:
            found = images.read_metadata(path)
            if found.recipe is None and found.parameters is None:
                raise StorageError(f"{path} does not say how it was made")
            if json:
                values = found.recipe or {"config": recipes.from_parameters(found.parameters or "")}
                shown = json_format.dumps({"path": str(path), **values}, ensure_ascii=False)
            else:
                lines = recipes.to_lines(found.recipe) if found.recipe else [found.parameters or ""]
                shown = printable("\n".join([f"{path}:"] * (len(pictures) > 1) + lines))
        except StorageError as error:
            failures.append(error.named(path))
        else:
            print(shown)
    if failures and len(failures) < len(pictures):
        failures.append(PartialError(f"{len(failures)} of {len(pictures)} pictures could not be shown"))
    raise_all(failures)
