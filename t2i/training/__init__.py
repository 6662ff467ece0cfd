"""Training a model on a folder: the stages of a run, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from t2i import checkpoints
from t2i.config import TrainConfig
from t2i.dataset import dataset_key, load_pixels, read_folder
from t2i.methods import METHODS, SCRATCH, TrainingData
from t2i.training.processes import Team, team
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
    output = Path(config.output)
    with locked(output), stop_signals() as stopped:
        checkpoints.sweep_temporaries(output)
        with team(config) as processes:
            yield from run_stages(config, processes, stopped)


def run_stages(config: TrainConfig, processes: Team, stopped: threading.Event) -> Iterator[Progress]:
    """The stages of a run, in one of its processes.

    Args:
        config: The run.
        processes: This process's place among those that train together.
        stopped: Set when the run shall end after the present step.
    """
    folder = read_folder(Path(config.dataset), config.captions)
    output = Path(config.output)
    stages = SCRATCH if config.method == "scratch" else (config.method,)
    pictures = f"{len(folder.examples)} pictures, captions: {folder.caption_source}"
    yield Progress(stages[0], 0, 0, notice=pictures)
    with processes.leader_first():
        pixels = load_pixels(folder, config.resolution, output / "cache")
    key = dataset_key(folder, config.resolution)
    data = TrainingData(pixels, folder.captions(), output / "cache", key)
    for stage in stages:
        if config.method == "scratch" and config.resume and (output / stage / "done.json").is_file():
            yield Progress(stage, 0, 0, notice="already trained")
            continue
        if METHODS[stage].shares_batches:
            yield from Stage(config, stage, data, processes).run(stopped)
        elif processes.leads:
            yield from Stage(config, stage, data, Team()).run(stopped)
        processes.wait()  # the next stage builds on what the leader has written
