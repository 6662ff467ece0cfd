"""Training a model on a folder: the stages of a run, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from t2i import checkpoints
from t2i.config import TrainConfig
from t2i.dataset import ImageFolder, unpack
from t2i.methods import METHODS
from t2i.training.class_images import draw_class_images
from t2i.training.export import result_of
from t2i.training.folder import check_folder, stages_of, why_done
from t2i.training.inputs import check_inputs, with_inputs
from t2i.training.optimising import check_optimizer
from t2i.training.processes import Team, check_processes, follow, follows, team
from t2i.training.reading import load_data, packed_dataset, read_dataset
from t2i.training.resuming import dataset_digest
from t2i.training.session import CACHE, Stop, locked, stop_signals
from t2i.training.stage import Progress, Stage, planned_steps
from t2i.training.start import check_start, settled
from t2i.training.trackers import check_trackers, tracker_notice

__all__ = ["Progress", "Stage", "follows", "result_of", "train"]


def train(config: TrainConfig) -> Iterator[Progress]:
    """Run the stages of a config, yielding progress; the model ends up in OUTPUT/model.

    What can be refused without decoding a picture is refused before anything is written.

    The run folder holds, per stage, `config.json`, `metrics.jsonl`, `samples/` and `checkpoints/`, and in
    `parts/` the finished stages in fp32.

    Raises:
        UsageError: No such device here, or a batch that the processes cannot share.
        DatasetError: The dataset cannot be used.
        StorageError: The run folder is taken, full or forbidden, or holds what would be replaced.
        ModelError: A part that a stage needs is missing, or the loss is no longer finite.
        Interrupted: SIGINT or SIGTERM; a checkpoint was saved, unless the first step was not yet done.
        PartialError: `--max-train-time` was over before the first step.
    """
    config = settled(config)
    if follows():
        with team(config) as processes:
            follow(config, processes)
        return
    output = Path(config.output)
    check_folder(config)
    check_processes(config)
    check_optimizer(config)
    check_trackers(config)
    check_start(config)
    packed = packed_dataset(config)
    if packed is not None:
        yield from (Progress(stages_of(config)[0], 0, 0, notice=told) for told in unpack(packed))
    folder = check_inputs(config, read_dataset(config, packed))
    with locked(output), stop_signals() as stopped:
        checkpoints.sweep_temporaries(output)
        with team(config) as processes:
            yield from run_stages(config, folder, processes, stopped)


def run_stages(
    config: TrainConfig, folder: ImageFolder, processes: Team, stopped: Stop
) -> Iterator[Progress]:
    """The stages of a run, in one of its processes.

    Args:
        config: The run.
        folder: Its pictures and captions.
        processes: This process's place among those that train together.
        stopped: Set when the run shall end after the present step.
    """
    cache = Path(config.output) / CACHE
    stages = stages_of(config)
    if config.class_prompt is not None and processes.leads:
        for told in draw_class_images(config, stopped):
            yield Progress(stages[0], 0, 0, notice=told)
    processes.wait()  # nobody decodes class pictures before they are there
    with stopped.at_once(), processes.leader_first():
        data, understood = load_data(config, folder, cache)
    yield from (Progress(stages[0], 0, 0, notice=text) for text in understood)
    assert data.pictures is not None
    folder = data.pictures.folder
    with stopped.at_once(), processes.leader_first():
        data = with_inputs(config, folder, data)
    pictures_and_captions = dataset_digest(data)
    noticed: set[str] = set()
    for stage in stages:
        done = why_done(config, stage, planned_steps(config, stage, data), pictures_and_captions)
        shared = METHODS[stage].shares_batches
        if done:
            yield Progress(stage, 0, 0, notice=done)
        elif shared or processes.leads:
            with stopped.at_once():
                running = Stage(config, stage, data, processes if shared else Team())
            if processes.leads:  # what is true of the data is told by the first stage that meets it
                notices = [*running.method.notices(), tracker_notice(config)]
                new = [text for text in notices if text and text not in noticed]
                noticed.update(new)
                yield from map(running.tell, new)
            yield from running.run(stopped)
        processes.wait()  # the next stage builds on what the leader has written
