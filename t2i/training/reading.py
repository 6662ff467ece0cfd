"""The dataset of a run as its settings want it: read, decoded, some of it held out."""

from __future__ import annotations

from pathlib import Path

from t2i.config import TrainConfig
from t2i.dataset import (
    BucketPlan,
    Columns,
    ImageFolder,
    Packed,
    default_bucket_step,
    find_packed,
    load_pictures,
    load_pixels,
    pixels_key,
    read_unpacked,
    unpack,
)
from t2i.errors import UsageError
from t2i.methods import TrainingData
from t2i.training.validation import hold_out


def packed_dataset(config: TrainConfig) -> Packed | None:
    """The dataset of a run where it is no folder of pictures, and has to be unpacked.

    Raises:
        UsageError: Captions that only a folder can have; and as `find_packed`.
        DatasetError: As `find_packed`.
    """
    return find_packed(
        config.dataset,
        Columns.of(config.captions, config.instance_prompt, config.image_column, config.caption_column),
        config.dataset_config,
        config.offline,
        config.captions,
    )


def read_dataset(config: TrainConfig, packed: Packed | None = None) -> ImageFolder:
    """The pictures and captions of a run; nothing is decoded.

    Args:
        config: The run.
        packed: Its `packed_dataset`, unpacked; None finds and unpacks it here, if it is one.

    Raises:
        DatasetError: As `read_folder`, `find_packed` and `unpack`.
        UsageError: Buckets that no picture can be in.
    """
    bucket_plan(config)
    if packed is None and (packed := packed_dataset(config)) is not None:
        for _ in unpack(packed):
            pass
    return read_unpacked(
        config.dataset, packed, config.captions, config.instance_prompt, config.follow_symlinks,
        config.image_column, config.caption_column,
    )  # fmt: skip


def bucket_plan(config: TrainConfig) -> BucketPlan | None:
    """The sizes that pictures are trained at; None where all are squares.

    Raises:
        UsageError: Sides that do not go with `--resolution`.
    """
    if not config.buckets:
        return None
    if config.class_prompt is not None:
        raise UsageError("--class-prompt makes squares, which --buckets has not", "leave one of them out")
    step = default_bucket_step(config.resolution) if config.bucket_step is None else config.bucket_step
    return BucketPlan(config.resolution, step, config.bucket_min, config.bucket_max, config.bucket_upscale)


def load_data(config: TrainConfig, folder: ImageFolder, cache: Path) -> tuple[TrainingData, list[str]]:
    """Decode the pictures of a run once, and hold some out.

    Args:
        config: The run.
        folder: From `read_dataset`.
        cache: Folder for what is computed once.

    Returns:
        The data, and lines for a person about what was understood and left out.

    Raises:
        DatasetError: Too many pictures cannot be decoded, or none would be left to train on.
    """
    plan, background = bucket_plan(config), config.alpha_background
    pictures = load_pictures(
        folder, config.resolution, cache, plan, background, config.random_flip, config.max_bad
    )
    notices, usable = pictures.notices(), pictures.folder
    out = hold_out(usable, config.validation_split, cache)
    squares = getattr(pictures.tables[0], "table", pictures.tables[0])  # without the mirror images
    if plan is not None:  # reports compare squares
        form = str(config.resolution) + ("" if background == "white" else f" on {background}")
        key = pixels_key(usable.examples, form, cache)
        squares = load_pixels(usable, config.resolution, cache, key, background)
    names = [str(example.file.relative_to(usable.root)) for example in usable.examples]
    seen = pictures.holding_out(out)
    data = TrainingData(squares, pictures.captions, cache, pictures.key, out, names, pictures=seen)
    return data, notices
