"""What a stage shows while it trains: validation loss, sample sheets, curves, the page of the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from t2i import durable
from t2i.config import TrainConfig
from t2i.config.files import to_toml
from t2i.errors import ModelError
from t2i.methods import Method, TrainingData
from t2i.training.curves import write_curves
from t2i.training.export import Made
from t2i.training.folder import SETTINGS, SETTINGS_FILE
from t2i.training.journal import Journal
from t2i.training.memorisation import COMPARED, report_memorisation
from t2i.training.optimising import Average
from t2i.training.page import write_page
from t2i.training.trackers import Tracker, open_trackers
from t2i.training.validation import FILE, Best, Forward, read_best, save_best, validation_loss

OF_ONE_CALL = ("overwrite", "resume", "handoff")  # what a run that is repeated decides anew


class Watch:
    """The eyes of one stage in the process that leads.

    Args:
        config: The run.
        name: The stage.
        data: Of the run.
        method: Of the stage.
        forward: Its loss, in the format of the training.
        average: The weights that are shown and validated.
    """

    def __init__(
        self,
        config: TrainConfig,
        name: str,
        data: TrainingData,
        method: Method,
        forward: Forward,
        average: Average,
    ) -> None:
        self.config, self.name, self.data = config, name, data
        self.method, self.forward, self.average = method, forward, average
        self.folder = Path(config.output) / name
        self.validation_steps = config.validation_steps or config.checkpointing_steps
        self.noticed: list[str] = []
        self.best: Best | None = None
        self.trackers: list[Tracker] = []

    @contextmanager
    def opened(self, step: int, exact: bool) -> Iterator[None]:
        """Open what is written to, for a stage that begins or goes on at `step`.

        Args:
            step: Steps done.
            exact: The steps will be those of the run that was here before.
        """
        self.journal = Journal(self.folder, step)
        self.journal.about |= {
            "pictures": len(self.data.training_rows()),
            "held_out": len(self.data.held_out),
            "captions": sum(map(bool, self.data.captions)),
            "learning_parameters": sum(value.numel() for value in self.average.values.values()),
        }
        if self.data.held_out:
            self.best = read_best(self.folder)
            if self.best is not None and self.best.step > step and not exact:
                self.best = None  # of another course, which this run does not take
        if self.best is None:
            durable.remove(self.folder / FILE)
        durable.write_json(self.folder / SETTINGS, self.config.to_dict())
        durable.write_bytes(self.folder / SETTINGS_FILE, to_toml(self.config, OF_ONE_CALL).encode())
        with open_trackers(self.config, self.folder, self.name, step, self.journal.run_id) as self.trackers:
            yield

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Write the figures of a step, if there are any."""
        for tracker in self.trackers if figures else ():
            tracker.write(step, figures)

    def validate(self, step: int) -> dict[str, float]:
        """The validation loss of the averaged weights, which are kept where it is the lowest so far."""
        if not self.data.held_out:
            return {}
        with self.journal.phase("validation"), self.average.carried():
            together = not self.method.shares_batches
            loss = validation_loss(self.forward, together, self.data, self.config.batch_size)
        if self.best is None or loss < self.best.loss:
            self.best = Best(step, loss)
            with self.journal.phase("saving"):
                save_best(self.folder, self.best, self.average.values)
        return {"val_loss": loss}

    def sample(self, step: int) -> dict[str, float]:
        """Write a sample sheet of the averaged weights; one that cannot be drawn is told."""
        path = self.folder / "samples" / f"{step:08d}.png"
        try:
            with self.journal.phase("sampling"), self.average.carried():
                return self.method.sample(path, self.config.sample_prompts)
        except ModelError as error:
            self.noticed.append(f"no sample sheet of step {step}: {error.message}")
            return {}

    def memorisation(self, step: int) -> None:
        """Compare pictures that the method draws with those it was trained on."""
        draw = getattr(self.method, "draw", None)
        if self.name not in COMPARED or draw is None or self.config.memorisation_samples == 0 or step == 0:
            return
        with self.journal.phase("memorisation"), self.average.carried(), torch.no_grad():
            told = report_memorisation(self.folder, self.data, draw, self.config)
        self.noticed.append(told)

    def result(self, made: Made) -> None:
        """Keep for the page what the stage has made, and how it is used."""
        self.journal.about |= {"result": str(made.path), "command": made.hint}

    def show(self, step: int, total: int) -> None:
        """Write journal, curves and page anew."""
        self.journal.about |= {"steps": total}
        self.journal.save(step)
        with self.journal.phase("reporting"):
            write_curves(self.folder)
            write_page(Path(self.config.output))
