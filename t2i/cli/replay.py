"""`t2i replay`: draw a picture again from its own recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from t2i.cli import drawing
from t2i.cli.options import config_command
from t2i.config import GenerateConfig
from t2i.config.output import OutputConfig
from t2i.errors import StorageError, UsageError

SAME_PIXELS = {"model"}  # says where the model is; every other option asks for another picture
# So do these, where they name the files of the recipe.
PLACES = ("lora", "embedding", "controlnet", "control_image")


@config_command(GenerateConfig, also=OutputConfig, skip=("prompts",), defaults="the picture's")
def command(
    given: dict[str, Any],
    door: OutputConfig,
    picture: Annotated[Path, typer.Argument(help="PNG, JPEG or WebP with a recipe", metavar="IMG")],
    prompt: Annotated[str | None, typer.Option("-p", "--prompt", help="draw this instead")] = None,
    size: Annotated[str | None, typer.Option(help="width and height, as 512x768", metavar="WxH")] = None,
) -> None:
    """Draw a picture again from its own recipe, with any setting changed.

    Without changes the picture is made in its recorded batch shape, so that it comes out the same. A recipe
    holds the names of LoRAs, embeddings, ControlNet and control picture, not their folders: --lora,
    --embedding, --controlnet and --control-image say where they are.
    """
    from t2i import images, recipes, verification

    found = images.read_metadata(picture)
    if found.recipe is None and found.parameters is None:
        raise StorageError(f"{picture} does not say how it was made")
    changes = drawing.with_size(given, size) | ({"prompts": (prompt,)} if prompt is not None else {})
    notices = []
    try:
        if found.recipe is None:
            config = GenerateConfig.from_dict({**recipes.from_parameters(found.parameters or ""), **changes})
            differs = f"with {config.model} the result will differ (--model)"
            notices = [f"the settings are another program's; {differs}"]
        else:
            config = recipes.config_of(found.recipe)
            places = {name: changes.pop(name) for name in PLACES if name in changes}
            try:
                config = verification.with_places(config, **places)
            except UsageError:  # other files, or other scales
                changes |= places
            config = config.replace(**changes)
    except StorageError as error:
        raise error.named(picture) from error
    verification.find_model(config.model, given="model" in changes or found.recipe is None)
    same = found.recipe if not set(changes) - SAME_PIXELS else None
    if same is not None:
        notices += [f"changed since: {name}" for name in verification.changed_adapters(same, config)]
    drawing.draw(config, door, same, notices)
