"""One stage of training: steps, checkpoints, resume; what it leaves when it ends.

Every random choice of a step comes from `seed` and the step's number, so a resumed run needs only
weights, average, optimizer and step to end in the same bits as one that was never stopped.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from t2i import checkpoints
from t2i.config import TrainConfig
from t2i.devices import pick_device, trains_in_bf16
from t2i.errors import Interrupted, ModelError
from t2i.methods import METHODS, Method, TrainingData
from t2i.methods.draws import Draws
from t2i.training.export import Made, export
from t2i.training.folder import BEST, CHECKPOINTS, clear_after, clear_stage, goes_on, is_done, mark_done
from t2i.training.optimising import (
    Average,
    LossScale,
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    put,
    restore_optimizer,
)
from t2i.training.processes import Team
from t2i.training.resuming import (
    changed_conditions,
    check_resumable,
    conditions_of,
    handoff_settings,
    read_handoff,
)
from t2i.training.start import no_whole_checkpoint, start_parts
from t2i.training.validation import load_best
from t2i.training.watching import Watch


@dataclass(frozen=True)
class Progress:
    """What happened: a step done, or a notice for a person."""

    stage: str
    step: int
    total: int
    notice: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


class Stage:
    """One method on one dataset, from its start or a checkpoint to its end."""

    def __init__(self, config: TrainConfig, name: str, data: TrainingData, team: Team) -> None:
        limit = math.inf if config.max_train_time is None else config.max_train_time * 60
        team.deadline = time.monotonic() + limit
        self.config, self.name, self.data, self.team = config, name, data, team
        self.folder = Path(config.output) / name
        self.checkpoints = self.folder / CHECKPOINTS
        self.total = planned_steps(config, name, data)
        self.device = pick_device(config.device)
        self.precision = "fp16" if config.mixed_precision == "fp16" else "fp32"
        if trains_in_bf16(config.mixed_precision, self.device):
            self.precision = "bf16"
            torch.set_float32_matmul_precision("medium")
        torch.manual_seed(config.seed)  # decides the weights of new parts
        start = start_parts(config, name)
        self.method: Method = METHODS[name](config, replace(data, crew=team), start, self.device)
        self.modules: nn.ModuleDict = self.method.trainable()
        learning = ((key, value) for key, value in self.modules.named_parameters() if value.requires_grad)
        self.parameters = dict(learning)
        self.average = Average(self.modules, self.parameters, config.ema_decay)
        self.optimizer = make_optimizer(config, self.parameters)
        self.scale = LossScale(self.device, self.precision == "fp16")
        self.step = 0
        self.exact: bool | None = True  # the bits of a run that was never stopped; None = not known
        self.conditions = conditions_of(self.method, data, self.precision, self.device.type)
        self.compiled = False
        self.told: list[str] = []

    def tell(self, text: str) -> Progress:
        """A notice, also for the page of the run."""
        self.told.append(text)
        return Progress(self.name, self.step, self.total, notice=text)

    def run(self, stopped: threading.Event) -> Iterator[Progress]:
        """Train to the end, to the time limit, or until `stopped`."""
        yield from self._continue()
        self.team.wait()  # nobody writes while another still reads the checkpoint
        if not self.team.leads:
            while self.step < self.total and self._one_step()["halt"] == 0:
                pass
            return
        if goes_on(self.config, self.name):
            clear_after(self.folder, self.step)
        else:
            clear_stage(self.folder)
        watch = Watch(self.config, self.name, self.data, self.method, self._forward, self.average)
        with watch.opened(self.step, self.exact is True):
            yield from self._steps(watch, stopped)
            yield from self._notices(watch)
            if stopped.is_set():
                raise Interrupted(
                    f"stopped at step {self.step} of {self.total}, checkpoint saved",
                    "continue with --resume latest",
                )
            watch.sample(self.step)
            watch.memorisation(self.step)
            made = self._export(watch)
            watch.result(made)
            yield from self._notices(watch)
            if self.step >= self.total:
                mark_done(self.folder, self.step, self.exact)
            else:
                limit = f"--max-train-time {self.config.max_train_time:g} minutes"
                told = (
                    f"stopped by {limit} at step {self.step} of {self.total}; train on with --resume latest"
                )
                yield self.tell(told)
            yield self.tell(f"saved in {made.path}{f'; try: {made.hint}' if made.hint else ''}")
            yield from self._notices(watch)
            watch.show(self.step, self.total)

    def _steps(self, watch: Watch, stopped: threading.Event) -> Iterator[Progress]:
        """The steps, with what is looked at between them, and a checkpoint at the end."""
        config = self.config
        if self.step == 0 and self.total > 0:
            watch.log(0, watch.validate(0))
            watch.sample(0)
        yield from self._notices(watch)
        halt = stopped.is_set()
        while self.step < self.total and not halt:
            lap = time.monotonic()
            with watch.journal.phase("training"):
                figures = self._one_step(stopped.is_set() or self.team.time_is_up())
            halt = figures.pop("halt") > 0
            figures["images_per_s"] = pictures_per_step(config) / (time.monotonic() - lap)
            looked = self.step % watch.validation_steps == 0 or self.step == self.total
            found = watch.validate(self.step) if looked else {}
            figures |= found
            if self.step % config.log_steps == 0 or found or self.step == self.total:
                watch.log(self.step, figures)
            if self.step % config.checkpointing_steps == 0:
                self._save(watch)
            if self.step % config.sample_steps == 0:
                figures |= watch.sample(self.step)
            yield from self._notices(watch)
            yield Progress(self.name, self.step, self.total, figures=figures)
            if self.team.size == 1:  # nobody else has to hear of it in the next step
                halt = stopped.is_set() or self.team.time_is_up()
        if self.step < self.total and not stopped.is_set():  # the time is up: what is exported is judged too
            watch.log(self.step, watch.validate(self.step))
        self._save(watch)

    def _notices(self, watch: Watch) -> Iterator[Progress]:
        """Tell what the watch has noticed, and have it keep what was told."""
        for text in watch.noticed:
            yield self.tell(text)
        watch.noticed.clear()
        for text in self.told:
            watch.journal.tell(self.step, text)
        self.told.clear()

    def _one_step(self, halt: bool = False) -> dict[str, float]:
        """One step of all processes; `halt` of any of them comes back as figure "halt" in all of them."""
        config = self.config
        rows = self.data.rows(self.step, pictures_per_step(config), config.seed)
        generator = torch.Generator().manual_seed((config.seed << 32) + self.step)
        # A loss that compares the pictures of a batch needs all of them, in every process and in one pass.
        shared = self.method.shares_batches
        draws = Draws(generator, self.team.rank, self.team.size) if shared else Draws(generator)
        peak = METHODS[self.name].default_learning_rate
        peak = config.learning_rate if config.learning_rate is not None else peak
        rate = learning_rate(config, peak, self.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        passes = config.gradient_accumulation_steps if shared else 1
        figures = {"loss": 0.0}
        # The first step may compile for minutes; whoever comes later finds the result in a cache.
        in_order = self.team.leader_first() if config.compile and not self.compiled else nullcontext()
        with in_order:
            for part in np.split(self.team.share(rows) if shared else rows, passes):
                loss, told = self._forward(part, draws)
                self.scale.backward(loss / passes if passes > 1 else loss)
                for name, value in {"loss": loss.item(), **told}.items():
                    figures[name] = figures.get(name, 0.0) + value / passes
        self.compiled = True
        gradients = [value.grad for value in self.parameters.values() if value.grad is not None]
        figures = self.team.average(gradients, {**figures, "halt": float(halt)})
        self.scale.unscale(self.optimizer)
        norm = nn.utils.get_total_norm(gradients)
        if norm.item() > config.max_grad_norm:  # else there is nothing to pass over
            nn.utils.clip_grads_with_norm_(self.parameters.values(), config.max_grad_norm, norm)
        overflows = self.scale.enabled and not math.isfinite(norm.item())  # the scale then falls
        if not math.isfinite(figures["loss"]) or not (math.isfinite(norm.item()) or overflows):
            raise ModelError(
                f"loss {figures['loss']}, gradient {norm.item()} at step {self.step}: no longer finite",
                "resume from the last checkpoint with a lower --learning-rate",
            )
        figures |= self.scale.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.follow(self.step)
        return {**figures, "learning_rate": rate, **({} if overflows else {"grad_norm": norm.item()})}

    def _forward(self, rows: np.ndarray, draws: Draws) -> tuple[Tensor, dict[str, float]]:
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32"):
            return self.method.loss(rows, draws)

    def _save(self, watch: Watch) -> None:
        with watch.journal.phase("saving"):
            self._save_checkpoint()
        watch.show(self.step, self.total)

    def _save_checkpoint(self) -> None:
        groups = {
            "weights": self.parameters,
            "average": self.average.values,
            "optimizer": optimizer_tensors(self.optimizer, self.parameters),
        }
        state: dict[str, Any] = {
            "step": self.step,
            "stage": self.name,
            "exact": self.exact,
            "config": self.config.to_dict(),
            "conditions": self.conditions,
        }
        if self.scale.enabled:
            state["loss_scale"] = self.scale.state()
        tensors = {
            name: {key: value.detach() for key, value in group.items()} for name, group in groups.items()
        }
        checkpoints.save_checkpoint(
            self.checkpoints, self.step, tensors, state, self.config.checkpoints_total_limit
        )
        if self.config.save_handoff is not None:
            settings = handoff_settings(self.config, self.name)
            handoff = checkpoints.Handoff(
                tensors["weights"], tensors["average"], self.step, self.name, settings
            )
            checkpoints.save_handoff(Path(self.config.save_handoff), handoff)

    def _export(self, watch: Watch) -> Made:
        """Write the averaged weights, and in OUTPUT/best those of the lowest validation loss."""
        with watch.journal.phase("exporting"):
            if watch.best is not None:
                beside = self.config.replace(output=str(Path(self.config.output) / BEST))
                with self.average.carried(load_best(self.folder)):
                    best = export(beside, self.method, self.data).path
                watch.noticed.append(
                    f"lowest validation loss {watch.best.loss:.5g} at step {watch.best.step}, saved in {best}"
                )
            with self.average.carried():
                return export(self.config, self.method, self.data)

    def _continue(self) -> Iterator[Progress]:
        """Take over a checkpoint or a handoff, as the config says."""
        config = self.config
        if config.resume is None:
            if config.handoff is not None:
                handoff = read_handoff(Path(config.handoff), config, self.name)
                put(self.parameters, handoff.weights)
                put(self.average.values, handoff.ema)
                self.step, self.exact = handoff.step, False
                yield self.tell(f"from handoff at step {self.step}; the optimizer starts anew, so not exact")
            return
        newest: Path | None = Path(config.resume)
        if config.resume == "latest":
            newest, torn = checkpoints.newest_checkpoint(self.checkpoints)
            for path in torn:
                yield self.tell(f"{path.name} is not whole, ignored")
        if newest is None:
            if config.method == "scratch" and not is_done(self.folder):
                return  # an earlier stage was stopped before this one began
            raise no_whole_checkpoint(self.checkpoints)
        groups, state = checkpoints.load_checkpoint(newest)
        changed = check_resumable(newest, state, config, self.name)
        other, unknown = changed_conditions(state.get("conditions", {}), self.conditions)
        changed += other
        put(self.parameters, groups["weights"])
        put(self.average.values, groups["average"])
        if "optimizer" not in changed:  # another one keeps other things, and starts anew
            restore_optimizer(self.optimizer, self.parameters, groups["optimizer"])
        self.scale.restore(state.get("loss_scale", {}))
        self.step, self.exact = state["step"], state["exact"]
        notice = f"resumed at step {self.step}"
        if unknown:
            self.exact = self.exact and None
            notice += f"; unknown, for the checkpoint is older: {', '.join(unknown)}"
        if changed:
            self.exact = False
            notice += f"; changed: {', '.join(changed)}"
        yield self.tell(notice)


def pictures_per_step(config: TrainConfig) -> int:
    """Pictures whose gradients make one step, of all passes and processes."""
    return config.batch_size * config.gradient_accumulation_steps


def planned_steps(config: TrainConfig, name: str, data: TrainingData) -> int:
    """Optimizer steps of a stage."""
    return steps_for(config, name, data.pass_length(), any(data.captions))


def steps_for(config: TrainConfig, name: str, pictures: int, captioned: bool) -> int:
    """Optimizer steps of a stage.

    Args:
        config: The run.
        name: The stage.
        pictures: Those of one pass, each as often as it is repeated.
        captioned: Whether any of them has a caption.
    """
    if name == "clip" and not captioned:
        return 0  # an unconditional model needs a text encoder to be a whole one, not a trained one
    if config.epochs is not None:
        return math.ceil(config.epochs * pictures / pictures_per_step(config))
    return METHODS[name].default_steps if config.max_train_steps is None else config.max_train_steps
