"""Training a model on a folder: the stages of a run, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from t2i import checkpoints
from t2i.config import TrainConfig
from t2i.dataset import dataset_key, load_pixels, read_folder
from t2i.methods import SCRATCH, TrainingData
from t2i.training.session import locked, stop_signals
from t2i.training.stage import Progress, Stage

__all__ = ["Progress", "Stage", "train"]


def train(config: TrainConfig) -> Iterator[Progress]:
    """Run the stages of a config, yielding progress; the model ends up in OUTPUT/model.

    The run folder holds, per stage, `config.json`, `metrics.jsonl`, `samples/` and `checkpoints/`, and in
    `parts/` the finished stages in fp32.

    Raises:
        DatasetError: The dataset cannot be used.
        StorageError: The run folder is taken, full or forbidden.
        ModelError: A part that a stage needs is missing, or the loss is no longer finite.
        Interrupted: SIGINT or SIGTERM; a checkpoint was saved.
    """
    folder = read_folder(Path(config.dataset), config.captions)
    output = Path(config.output)
    stages = SCRATCH if config.method == "scratch" else (config.method,)
    with locked(output), stop_signals() as stopped:
        checkpoints.sweep_temporaries(output)
        pictures = f"{len(folder.examples)} pictures, captions: {folder.caption_source}"
        yield Progress(stages[0], 0, 0, notice=pictures)
        pixels = load_pixels(folder, config.resolution, output / "cache")
        key = dataset_key(folder, config.resolution)
        data = TrainingData(pixels, folder.captions(), output / "cache", key)
        for stage in stages:
            if config.method == "scratch" and config.resume and (output / stage / "done.json").is_file():
                yield Progress(stage, 0, 0, notice="already trained")
                continue
            yield from Stage(config, stage, data).run(stopped)
