"""What `t2i data check` looks at, and what it writes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from t2i.config.colours import check_colour
from t2i.config.fields import Config, option
from t2i.config.train import CAPTION_SOURCES, RunOptions
from t2i.errors import UsageError

DEFAULT_RESOLUTION = 64  # as that of a model trained from scratch


def _as_in_training(name: str) -> Any:
    """A field with the default and help that `t2i train` has for it."""
    found = next(item for item in fields(RunOptions) if item.name == name)
    return field(default=found.default, metadata=found.metadata)


@dataclass(frozen=True)
class DataCheckConfig(Config):
    """One look at a dataset folder. `None` means not given."""

    folder: str = option("", "folder of pictures or other dataset, as t2i train takes it")
    captions: str = option("auto", "where captions come from", choices=CAPTION_SOURCES)
    caption: str | None = option(
        None, "one caption for all pictures; default: those in the folder", "--instance-prompt"
    )
    image_column: str | None = _as_in_training("image_column")
    caption_column: str | None = _as_in_training("caption_column")
    dataset_config: str | None = _as_in_training("dataset_config")
    offline: bool = _as_in_training("offline")
    resolution: int | None = option(
        None, "side of the training pictures; default: that of --model, else 64", low=16, high=4096,
        unit="pixels",
    )  # fmt: skip
    bucket_step: int | None = option(
        None, "sides of aspect-ratio buckets are multiples of it; default: 64, or 8 below 256 pixels",
        "--bucket-reso-steps", low=8, high=512, multiple_of=8, unit="pixels",
    )  # fmt: skip
    model: str | None = option(
        None, "count the tokens of captions as this model reads them; default: count words", "-m"
    )
    follow_symlinks: bool = option(False, "read links that lead out of the folder too")
    fix: str | None = option(None, "also write a clean copy of the dataset into this new folder; default: no")
    alpha_background: str = option("white", "what --fix lays transparent pictures on: white, black, #rrggbb")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.folder:
            raise UsageError("no folder given", "as in: t2i data check ./imgs")
        check_colour("--alpha-background", self.alpha_background)
        if self.caption is not None and self.captions != "auto":
            raise UsageError("--caption and --captions both say what captions are", "give one of them")


@dataclass(frozen=True)
class DataOutputConfig(Config):
    """What is told and drawn of it; none of it changes what is found."""

    show: int = option(20, "lines for each kind of finding; --json has all", low=1, high=1_000_000)
    sheet: str | None = option(None, "also draw the pictures with problems; default: no", unit="picture file")
    overwrite: bool = option(False, "replace the file of --sheet")
    json: bool = option(False, "print one JSON object with everything")
