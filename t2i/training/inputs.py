"""What single methods learn from besides pictures and captions: class and conditioning pictures, classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from t2i.config import TrainConfig
from t2i.dataset import SUFFIXES, Example, ImageFolder, cached_table, dataset_key, load_pixels
from t2i.edges import edges
from t2i.errors import DatasetError, UsageError
from t2i.methods import TrainingData
from t2i.training.class_images import class_files


def check_inputs(config: TrainConfig, folder: ImageFolder) -> ImageFolder:
    """Refuse a dataset that lacks what the method needs, before anything is decoded or drawn.

    Returns:
        The examples that are trained on: without the conditioning pictures, should they be in the dataset.

    Raises:
        UsageError: No conditioning pictures are named.
        DatasetError: One of them is missing, or there is but one class.
    """
    if config.method == "controlnet":
        if (config.conditioning_images is None) == (config.control_kind is None):
            raise UsageError(
                "--method controlnet needs --conditioning-images DIR or --control-kind, and not both",
                "DIR holds a picture of the same name for each; edges are made of the pictures themselves",
            )
        if config.conditioning_images is not None:
            where = Path(config.conditioning_images).resolve()
            own = tuple(one for one in folder.examples if not one.file.resolve().is_relative_to(where))
            folder = replace(folder, examples=own)
            _conditioning_files(config, folder)
    if config.method == "classifier" and len(set(labels_of(config, folder))) < 2:
        raise DatasetError(
            f"a classifier needs at least two classes; the {config.labels} of {folder.root} give one",
            "put each class in a folder of its own, or give --labels captions",
        )
    return folder


def with_inputs(config: TrainConfig, folder: ImageFolder, data: TrainingData) -> TrainingData:
    """The data of a run with what its method needs besides; class pictures are drawn by now."""
    if config.method == "classifier":
        return replace(data, labels=labels_of(config, folder))
    if config.method == "controlnet":
        return _with_conditioning(config, folder, data)
    if config.class_prompt is None:
        return data
    examples = tuple(Example(file, config.class_prompt) for file in class_files(config))
    drawn = ImageFolder(examples[0].file.parent, examples, "one for all")
    key = dataset_key(drawn, config.resolution, data.cache)
    pixels = load_pixels(drawn, config.resolution, data.cache, key)
    return replace(data, prior=TrainingData(pixels, drawn.captions(), data.cache, key))


def labels_of(config: TrainConfig, folder: ImageFolder) -> list[str]:
    """The class of each picture: its folder below the dataset, or its caption."""
    if config.labels == "captions":
        return folder.captions()
    return [one.file.parent.relative_to(folder.root).as_posix() for one in folder.examples]


def _with_conditioning(config: TrainConfig, folder: ImageFolder, data: TrainingData) -> TrainingData:
    """The data with conditioning pictures, uint8 (N, 3, H, W), made or decoded once."""
    if config.conditioning_images is not None:
        examples = tuple(Example(file, "") for file in _conditioning_files(config, folder))
        given = ImageFolder(Path(config.conditioning_images), examples, "none")
        key = dataset_key(given, config.resolution, data.cache)
        pixels = load_pixels(given, config.resolution, data.cache, key)
        return replace(data, conditioning=pixels, conditioning_key=key)

    def made() -> Iterator[np.ndarray]:
        for row in range(len(data.pixels)):
            yield edges(np.asarray(data.pixels[row]))

    path = data.cache / f"{config.control_kind}-{data.key}.npy"
    return replace(data, conditioning=cached_table(path, tuple(data.pixels.shape), np.uint8, made))


def _conditioning_files(config: TrainConfig, folder: ImageFolder) -> list[Path]:
    """The conditioning picture of each example: the same name below `--conditioning-images`, any suffix."""
    where = Path(str(config.conditioning_images))
    found = []
    for example in folder.examples:
        stem = where / example.file.relative_to(folder.root).with_suffix("")
        there = [path for suffix in SUFFIXES if (path := stem.with_name(stem.name + suffix)).is_file()]
        if not there:
            raise DatasetError(
                f"no conditioning picture for {example.file}: {stem}.png is missing",
                f"every picture needs one of its name in {where}",
            )
        found.append(there[0])
    return found
