"""One stage of training: steps, averaging, checkpoints, resume, samples.

Every random choice of a step comes from `seed` and the step's number, so a resumed run needs only
weights, average, optimizer and step to end in the same bits as one that was never stopped.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2i import checkpoints, durable, weights
from t2i.config import TrainConfig
from t2i.dataset import batch_rows
from t2i.devices import DTYPES, pick_device, trains_in_bf16
from t2i.errors import Interrupted, ModelError
from t2i.methods import METHODS, Method, TrainingData
from t2i.training.folder import (
    CHECKPOINTS,
    PARTS,
    SETTINGS,
    clear_after,
    clear_stage,
    goes_on,
    is_done,
    mark_done,
)
from t2i.training.metrics import open_log
from t2i.training.processes import Team
from t2i.training.resuming import (
    changed_conditions,
    check_resumable,
    conditions_of,
    handoff_settings,
    read_handoff,
)
from t2i.training.start import no_whole_checkpoint, start_parts


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
        self.config, self.name, self.data, self.team = config, name, data, team
        self.folder = Path(config.output) / name
        self.checkpoints = self.folder / CHECKPOINTS
        self.parts_folder = Path(config.output) / PARTS
        self.model_folder = Path(config.output) / "model"
        self.total = planned_steps(config, name, data)
        self.device = pick_device(config.device)
        self.bf16 = trains_in_bf16(config.mixed_precision, self.device)
        if self.bf16:
            torch.set_float32_matmul_precision("medium")
        torch.manual_seed(config.seed)  # decides the weights of new parts
        start = start_parts(config, name)
        with team.leader_first():  # latents are computed once
            self.method: Method = METHODS[name](config, data, start, self.device)
        self.modules: nn.ModuleDict = self.method.trainable()
        learning = ((key, value) for key, value in self.modules.named_parameters() if value.requires_grad)
        self.parameters = dict(learning)
        self.average = {key: value.detach().clone() for key, value in self.parameters.items()}
        self.optimizer = self._optimizer()
        self.step = 0
        self.exact: bool | None = True  # the bits of a run that was never stopped; None = not known
        self.conditions = conditions_of(self.method, data, "bf16" if self.bf16 else "fp32", self.device.type)
        self.compiled = False

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
        durable.write_json(self.folder / SETTINGS, self.config.to_dict())
        log = open_log(self.folder, self.step)
        began = lap = time.monotonic()
        prompts = self.config.sample_prompts
        halt = stopped.is_set()
        with log:
            while self.step < self.total and not halt:
                figures = self._one_step(stopped.is_set() or self._time_is_up(began))
                halt = figures.pop("halt") > 0
                now = time.monotonic()
                figures["images_per_s"], lap = self.config.batch_size / (now - lap), now
                if self.step % self.config.log_steps == 0:
                    log.write(json.dumps({"step": self.step, **figures}) + "\n")
                    log.flush()
                if self.step % self.config.checkpointing_steps == 0:
                    self._save()
                if self.step % self.config.sample_steps == 0:
                    figures |= self._sample(prompts)
                yield Progress(self.name, self.step, self.total, figures=figures)
                if self.team.size == 1:  # nobody else has to hear of it in the next step
                    halt = stopped.is_set() or self._time_is_up(began)
            self._save()
        if stopped.is_set():
            raise Interrupted(
                f"stopped at step {self.step} of {self.total}, checkpoint saved",
                "continue with --resume latest",
            )
        self._sample(prompts)
        self._export()
        if self.step >= self.total:
            mark_done(self.folder, self.step, self.exact)
        else:
            limit = f"--max-train-time {self.config.max_train_time:g} minutes"
            told = f"stopped by {limit} at step {self.step} of {self.total}; train on with --resume latest"
            yield Progress(self.name, self.step, self.total, notice=told)
        yield Progress(
            self.name,
            self.step,
            self.total,
            notice=f"saved in {self.model_folder if self.name == 'unet' else self.parts_folder}",
        )

    def _one_step(self, halt: bool = False) -> dict[str, float]:
        """One step of all processes; `halt` of any of them comes back as figure "halt" in all of them."""
        config = self.config
        rows = batch_rows(len(self.data.pixels), config.batch_size, self.step, config.seed)
        generator = torch.Generator().manual_seed(self.team.seed(config.seed, self.step))
        rate = self.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # The first step may compile for minutes; whoever comes later finds the result in a cache.
        in_order = self.team.leader_first() if config.compile and not self.compiled else nullcontext()
        with in_order:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss, figures = self.method.loss(self.team.share(rows), generator)
            loss.backward()
        self.compiled = True
        gradients = [value.grad for value in self.parameters.values() if value.grad is not None]
        figures = self.team.average(gradients, {"loss": loss.item(), "halt": float(halt), **figures})
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), config.max_grad_norm)
        if not math.isfinite(figures["loss"]) or not math.isfinite(norm.item()):
            raise ModelError(
                f"loss {figures['loss']}, gradient {norm.item()} at step {self.step}: no longer finite",
                "resume from the last checkpoint with a lower --learning-rate",
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._follow()
        return {**figures, "learning_rate": rate, "grad_norm": norm.item()}

    def learning_rate(self, step: int) -> float:
        """Linear rise, flat, then a cosine to zero over the last `lr_decay` of the steps."""
        config = self.config
        peak = config.learning_rate
        if peak is None:
            peak = METHODS[self.name].default_learning_rate
        rise = min(1.0, (step + 1) / max(1, config.lr_warmup_steps))
        tail = config.lr_decay * self.total
        into = 0.0 if tail == 0 else max(0.0, (step - (self.total - tail)) / tail)
        return peak * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, into)))

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; faster in the first steps, when the weights are all new."""
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        if self.config.ema_decay == 0:
            decay = 0.0
        torch._foreach_lerp_(list(self.average.values()), list(self.parameters.values()), 1 - decay)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The modules carry the averaged weights inside this block."""
        kept = {key: value.detach().clone() for key, value in self.parameters.items()}
        self._put(self.parameters, self.average)
        self.modules.eval()
        try:
            yield
        finally:
            self._put(self.parameters, kept)
            self.modules.train()

    @staticmethod
    @torch.no_grad()
    def _put(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        if set(targets) != set(values):
            odd = sorted(set(targets) ^ set(values))[0]
            raise ModelError(f"what to go on from is of another model: {odd} is on one side only")
        for key, target in targets.items():
            there, here = tuple(values[key].shape), tuple(target.shape)
            if there != here:
                raise ModelError(
                    f"what to go on from is of another model: {key} has shape {there} there and {here} here"
                )
            target.copy_(values[key])  # keeps the memory layout, on which the last bits depend

    def _optimizer(self) -> torch.optim.AdamW:
        matrices = [value for value in self.parameters.values() if value.ndim > 1]
        vectors = [value for value in self.parameters.values() if value.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},  # decaying biases and norms only shrinks the output
        ]
        return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), fused=True)

    def _save(self) -> None:
        groups = {"weights": self.parameters, "average": self.average, "optimizer": self._optimizer_tensors()}
        state = {
            "step": self.step,
            "stage": self.name,
            "exact": self.exact,
            "config": self.config.to_dict(),
            "conditions": self.conditions,
        }
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

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        return {
            f"{kind}.{key}": state[value][kind]
            for key, value in self.parameters.items()
            if value in state
            for kind in ("step", "exp_avg", "exp_avg_sq")
        }

    def _continue(self) -> Iterator[Progress]:
        """Take over a checkpoint or a handoff, as the config says."""
        config = self.config
        if config.resume is None:
            if config.handoff is not None:
                handoff = read_handoff(Path(config.handoff), config, self.name)
                self._put(self.parameters, handoff.weights)
                self._put(self.average, handoff.ema)
                self.step, self.exact = handoff.step, False
                notice = f"from handoff at step {self.step}; the optimizer starts anew, so not exact"
                yield Progress(self.name, self.step, self.total, notice=notice)
            return
        newest: Path | None = Path(config.resume)
        if config.resume == "latest":
            newest, torn = checkpoints.newest_checkpoint(self.checkpoints)
            for path in torn:
                yield Progress(self.name, 0, self.total, notice=f"{path.name} is not whole, ignored")
        if newest is None:
            if config.method == "scratch" and not is_done(self.folder):
                return  # an earlier stage was stopped before this one began
            raise no_whole_checkpoint(self.checkpoints)
        groups, state = checkpoints.load_checkpoint(newest)
        changed = check_resumable(newest, state, config, self.name)
        other, unknown = changed_conditions(state.get("conditions", {}), self.conditions)
        changed += other
        self._put(self.parameters, groups["weights"])
        self._put(self.average, groups["average"])
        self._restore_optimizer(groups["optimizer"])
        self.step, self.exact = state["step"], state["exact"]
        notice = f"resumed at step {self.step}"
        if unknown:
            self.exact = self.exact and None
            notice += f"; unknown, for the checkpoint is older: {', '.join(unknown)}"
        if changed:
            self.exact = False
            notice += f"; changed: {', '.join(changed)}"
        yield Progress(self.name, self.step, self.total, notice=notice)

    @torch.no_grad()
    def _restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        for key, value in self.parameters.items():
            if f"step.{key}" not in tensors:
                continue
            self.optimizer.state[value] = {
                "step": tensors[f"step.{key}"].clone(),
                "exp_avg": torch.empty_like(value).copy_(tensors[f"exp_avg.{key}"]),
                "exp_avg_sq": torch.empty_like(value).copy_(tensors[f"exp_avg_sq.{key}"]),
            }

    def _sample(self, prompts: tuple[str, ...]) -> dict[str, float]:
        with self._averaged():
            return self.method.sample(self.folder / "samples" / f"{self.step:08d}.png", prompts)

    def _export(self) -> None:
        """Write the averaged weights: parts for the next stage to OUTPUT/parts, a model to OUTPUT/model."""
        with self._averaged():
            parts = self.method.parts()
            if "unet" not in parts:
                weights.save_parts(self.parts_folder, parts)
                return
            weights.save_folder(
                self.model_folder,
                unet=parts["unet"],
                vae=parts["vae"],
                text_encoder=parts["text_encoder"],
                tokenizer=parts["tokenizer"],
                scheduler_config=parts["scheduler_config"],
                known_words=parts["words"],
                dtype=DTYPES[self.config.save_dtype],
                defaults=self._defaults(),
                overwrite=True,
            )

    def _defaults(self) -> dict[str, Any]:
        return {
            "family": "pocket",
            "steps": self.config.sampling_steps,
            "guidance_scale": self.config.guidance_scale,
            "scheduler": "ddim",
            "width": self.config.resolution,
            "height": self.config.resolution,
        }

    def _time_is_up(self, began: float) -> bool:
        limit = self.config.max_train_time
        return limit is not None and time.monotonic() - began > limit * 60


def planned_steps(config: TrainConfig, name: str, data: TrainingData) -> int:
    """Optimizer steps of a stage."""
    if name == "clip" and not any(data.captions):
        return 0  # an unconditional model needs a text encoder to be a whole one, not a trained one
    return METHODS[name].default_steps if config.max_train_steps is None else config.max_train_steps
