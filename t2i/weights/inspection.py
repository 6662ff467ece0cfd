"""Reading what a model is without its weights: family, defaults, scheduler, and the files it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.catalog import Defaults
from t2i.weights.layout import Layout, family_of, own_defaults, read_layout
from t2i.weights.single_file import SingleFile, read_single_file
from t2i.weights.sources import ModelSource, fetch_model
from t2i.weights.tokenizers import TOKENIZER_FILES


@dataclass(frozen=True)
class Inspection:
    """A checked model on this machine.

    Attributes:
        contents: The checked folder, or the checked single file.
        id: What recipes call it; never a path of this machine.
        family: Row of `t2i.families.FAMILIES`.
        defaults: What is used when the person says nothing.
        scheduler_config: The checkpoint's own.
        files: Name → every file that loading reads.
    """

    contents: Layout | SingleFile
    id: str
    family: str
    defaults: Defaults
    scheduler_config: Mapping[str, Any]
    files: Mapping[str, Path]


def inspect_model(source: ModelSource) -> Inspection:
    """Fetch a model if it is on the Hub, check its files, and say what it is.

    Raises:
        ModelError: Missing, unsafe, damaged, or of a kind that this version does not run.
    """
    source = fetch_model(source)
    with source.named_in_errors():
        return _inspect(source)


def _inspect(source: ModelSource) -> Inspection:
    assert source.path is not None
    if source.kind == "file":
        file = read_single_file(source.path)
        unet, vae = file.configs["unet"], file.configs["vae"]
        defaults = own_defaults(file.settings, unet, vae, Defaults())
        return Inspection(file, source.id, file.family, defaults, file.scheduler_config, file.files)
    layout = read_layout(source.path)
    family = str(layout.settings.get("family") or family_of(layout.pipeline, layout.configs["unet"]))
    base = source.known.defaults if source.known is not None else Defaults()
    if source.kind == "hub" and source.known is not None:
        defaults = base
    else:
        defaults = own_defaults(layout.settings, layout.configs["unet"], layout.configs["vae"], base)
    scheduler = layout.configs["scheduler"]
    return Inspection(layout, source.id, family, defaults, scheduler, folder_files(layout))


def folder_files(layout: Layout) -> dict[str, Path]:
    """Name → every file of a model folder that loading reads."""
    names = ["model_index.json", "scheduler/scheduler_config.json"]
    for network in layout.networks:
        weights = layout.weights[network]
        paths = [*weights.files, *([weights.index] if weights.index else [])]
        names += [f"{network}/config.json", *(f"{network}/{path.name}" for path in paths)]
    tokenizers = ["tokenizer", "tokenizer_2"] if "text_encoder_2" in layout.networks else ["tokenizer"]
    optional = [f"{folder}/{name}" for folder in tokenizers for name in TOKENIZER_FILES]
    optional += ["tokenizer/words.json", "t2i.json"]
    names += [name for name in optional if (layout.folder / name).exists()]
    return {name: layout.folder / name for name in names}
