"""`t2i verify`: is this picture what its recipe says?"""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from t2i import environment
from t2i.cli.door import printable, raise_all
from t2i.errors import DifferentError, T2IError


def command(
    pictures: Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP with a recipe", metavar="IMG")],
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="where the model is, if its name does not lead there")
    ] = None,
    lora: Annotated[
        list[str] | None, typer.Option(help="where a LoRA of the recipe is; may be repeated", metavar="PATH")
    ] = None,
    embedding: Annotated[
        list[str] | None,
        typer.Option(help="where a textual inversion of it is; may be repeated", metavar="PATH"),
    ] = None,
    controlnet: Annotated[
        str | None, typer.Option(help="where the folder of its ControlNet is", metavar="PATH")
    ] = None,
    control_image: Annotated[
        str | None, typer.Option(help="where the picture is that the ControlNet followed", metavar="PATH")
    ] = None,
    device: Annotated[str | None, typer.Option(help="compute here instead of on the recorded device")] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON, a line per picture")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="never use the network")] = False,
) -> None:
    """Draw each picture again from its recipe and compare.

    Says whether the pixels are exact, and which file of the model, LoRA, embedding, ControlNet or control
    picture has changed. Exit code 0 only if nothing has changed, 1 if something has, 4 if one of the pictures
    or its model cannot be read.
    """
    environment.prepare(offline=offline)
    from t2i.verification import verify

    held: list[bool] = []
    failures: list[T2IError] = []
    for path in pictures:
        try:
            adapters = tuple(lora or ()), tuple(embedding or ())
            verdict = verify(path, model, device, *adapters, controlnet, control_image)
        except T2IError as error:
            failures.append(error.named(path))
            continue
        held.append(verdict.holds)
        if json:
            values = {"path": str(path), "pixels": verdict.pixels, "changed": verdict.changed}
            print(
                json_format.dumps({**values, "machine": verdict.machine, "failure": verdict.failure}),
                flush=True,
            )
        else:
            prefix = f"{path}: " if len(pictures) > 1 else ""
            print("\n".join(printable(prefix + line) for line in verdict.lines()), flush=True)
    unlike = held.count(False)
    told = f"{unlike + len(failures)} of {len(pictures)} pictures could not be confirmed"
    if unlike and failures:
        told += f": {unlike} not as recorded, {len(failures)} not checked"
    if failures and len(pictures) > 1:
        failures.append(type(failures[-1])(told))
    raise_all(failures)
    if unlike:
        raise DifferentError(told)
