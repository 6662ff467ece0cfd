"""Where the figures of a stage go: always metrics.jsonl, and TensorBoard or Weights & Biases beside it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from t2i.config import TrainConfig
from t2i.errors import UsageError
from t2i.training.metrics import open_log

TENSORBOARD = "tensorboard"


class Tracker(Protocol):
    """Takes the figures of a step."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep them."""

    def close(self) -> None:
        """No more will come."""


class Lines:
    """metrics.jsonl, a line a step."""

    def __init__(self, log: IO[str]) -> None:
        self.log = log

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self.log.write(json.dumps({"step": step, **figures}) + "\n")
        self.log.flush()

    def close(self) -> None:
        self.log.close()


class TensorBoard:
    """Event files in OUTPUT/<stage>/tensorboard."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WandB:
    """A run at Weights & Biases, or in OUTPUT/<stage>/wandb with WANDB_MODE=offline."""

    def __init__(self, config: TrainConfig, folder: Path, stage: str, run_id: str) -> None:
        import wandb

        self.run = wandb.init(
            project="t2i",
            name=f"{Path(config.output).name}/{stage}",
            id=run_id,
            resume="allow",
            dir=str(folder),
            config=config.to_dict(),
        )

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        self.run.finish()


def check_trackers(config: TrainConfig) -> None:
    """Refuse a tracker whose package is missing.

    Raises:
        UsageError: Then.
    """
    if config.report_to in ("tensorboard", "wandb") and not _installed(config.report_to):
        name = config.report_to
        raise UsageError(f"--report-to {name} needs the package {name}", f'pip install "t2i[{name}]"')


@contextmanager
def open_trackers(
    config: TrainConfig, folder: Path, stage: str, step: int, run_id: str
) -> Iterator[list[Tracker]]:
    """Everything that takes the figures of a stage which begins, or goes on, at `step`.

    Args:
        config: The run.
        folder: Of the stage.
        stage: Its name.
        step: Steps done.
        run_id: Stays the same when a run is resumed.
    """
    with ExitStack() as stack:
        trackers: list[Tracker] = []

        def add(tracker: Tracker) -> None:
            trackers.append(tracker)
            stack.callback(tracker.close)

        add(Lines(open_log(folder, step)))
        if config.report_to == "tensorboard" or (config.report_to == "auto" and _installed("tensorboard")):
            add(TensorBoard(folder, step))
        if config.report_to == "wandb":
            add(WandB(config, folder, stage, run_id))
        yield trackers


def tracker_notice(config: TrainConfig) -> str:
    """What a person may be missing: TensorBoard is asked for by default, and not always installed."""
    if config.report_to != "auto" or _installed("tensorboard"):
        return ""
    return 'no TensorBoard here (pip install "t2i[tensorboard]"); figures: run.html and metrics.jsonl'


def _installed(package: str) -> Any:
    return importlib.util.find_spec(package) is not None
