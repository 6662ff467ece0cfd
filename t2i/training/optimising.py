"""How weights follow gradients: optimizers, learning rates, the scale of an fp16 loss, the average."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from t2i.config import TrainConfig
from t2i.errors import ModelError, UsageError
from t2i.training.muon import MuonWithAdamW

Parameters = Mapping[str, nn.Parameter]
BETAS = (0.9, 0.99)
SMALLEST_SCALE = 1e-4  # below it, gradients overflow because of the loss and not because of its scale


def check_optimizer(config: TrainConfig) -> None:
    """Refuse an optimizer whose package is missing.

    Raises:
        UsageError: Then.
    """
    if config.optimizer == "adamw8bit":
        _bitsandbytes()


def make_optimizer(config: TrainConfig, parameters: Parameters) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101), also with 8-bit state (arXiv:2110.02861), or Muon.

    Raises:
        UsageError: bitsandbytes is missing.
    """
    matrices = [value for value in parameters.values() if value.ndim > 1]
    vectors = [value for value in parameters.values() if value.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},  # decaying biases and norms only shrinks the output
    ]
    if config.optimizer == "muon":
        return MuonWithAdamW(parameters, config.weight_decay, BETAS)
    if config.optimizer == "adamw8bit":
        eight: torch.optim.Optimizer = _bitsandbytes().optim.AdamW8bit(groups, lr=0.0, betas=BETAS)
        return eight
    return torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise UsageError(
            "--optimizer adamw8bit needs the package bitsandbytes", 'pip install "t2i[adamw8bit]"'
        ) from error
    return bitsandbytes


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: Parameters) -> dict[str, Tensor]:
    """The state of an optimizer as "kind.parameter" → tensor; numbers become tensors too."""
    state = optimizer.state
    return {
        f"{kind}.{key}": kept if isinstance(kept, Tensor) else torch.tensor(kept)
        for key, value in parameters.items()
        if value in state
        for kind, kept in state[value].items()
    }


@torch.no_grad()
def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Parameters, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave."""
    kept: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, key = name.partition(".")
        kept.setdefault(key, {})[kind] = tensor
    for key, value in parameters.items():
        if key in kept:
            optimizer.state[value] = {kind: _placed(tensor, value) for kind, tensor in kept[key].items()}


def _placed(kept: Tensor, value: nn.Parameter) -> Any:
    """A tensor of the state as the optimizer holds it beside its parameter."""
    if kept.ndim == 0 and not kept.is_floating_point():
        return int(kept)
    if kept.shape == value.shape and kept.dtype == value.dtype:
        return torch.empty_like(value).copy_(kept)  # keeps the memory layout, on which the last bits depend
    return kept.to(value.device, copy=True)


def cosine_tail(step: int, total: int, config: TrainConfig) -> float:
    """Flat, then a cosine to zero over the last `lr_decay` of the steps."""
    tail = config.lr_decay * total
    into = 0.0 if tail == 0 else max(0.0, (step - (total - tail)) / tail)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, into)))


def constant(step: int, total: int, config: TrainConfig) -> float:
    """The same all the time."""
    return 1.0


def cosine(step: int, total: int, config: TrainConfig) -> float:
    """Half a cosine from the end of the warm-up to zero (Loshchilov & Hutter 2016, arXiv:1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * _gone(step, total, config)))


def linear(step: int, total: int, config: TrainConfig) -> float:
    """A line from the end of the warm-up to zero."""
    return 1.0 - _gone(step, total, config)


def polynomial(step: int, total: int, config: TrainConfig) -> float:
    """That line to the power of `lr_power`."""
    return (1.0 - _gone(step, total, config)) ** config.lr_power


LR_SCHEDULES: dict[str, Callable[[int, int, TrainConfig], float]] = {
    "cosine-tail": cosine_tail,
    "constant": constant,
    "cosine": cosine,
    "linear": linear,
    "polynomial": polynomial,
}


def learning_rate(config: TrainConfig, peak: float, step: int, total: int) -> float:
    """The rate of a step: a linear rise over the warm-up, then one of `LR_SCHEDULES`.

    Args:
        config: The run.
        peak: The highest rate.
        step: From 0.
        total: Steps of the run.
    """
    rise = min(1.0, (step + 1) / max(1, config.lr_warmup_steps))
    return peak * rise * LR_SCHEDULES[config.lr_scheduler](step, total, config)


def _gone(step: int, total: int, config: TrainConfig) -> float:
    """The share of the steps after the warm-up that lies behind a step, 0…1."""
    rise = min(config.lr_warmup_steps, total)
    return min(1.0, max(0.0, (step - rise) / max(1, total - rise)))


class LossScale:
    """Keeps small fp16 gradients from becoming zero (Micikevicius et al. 2017, arXiv:1710.03740, 3.2).

    Args:
        device: Where the loss is.
        enabled: Else it does nothing.
    """

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self.scaler = torch.amp.GradScaler(device.type, enabled=enabled)
        self.enabled = enabled

    def backward(self, loss: Tensor) -> None:
        """Gradients of the scaled loss."""
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Give gradients their true size, once a step."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """The optimizer's step, left out where a gradient has overflowed; the next scale for the log.

        Raises:
            ModelError: Gradients overflow whatever the scale.
        """
        self.scaler.step(optimizer)
        if not self.enabled:
            return {}
        self.scaler.update()
        scale = self.scaler.get_scale()
        if scale < SMALLEST_SCALE:
            raise ModelError(
                "the gradients are no longer finite, at any scale of the loss",
                "resume from the last checkpoint with a lower --learning-rate, or train with "
                "--mixed-precision bf16",
            )
        return {"loss_scale": scale}

    def state(self) -> dict[str, Any]:
        """What resuming needs; empty if there is no scale."""
        return self.scaler.state_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        if self.enabled and state:
            self.scaler.load_state_dict(dict(state))


class Average:
    """The exponential moving average of the weights that learn.

    Args:
        modules: What learns.
        parameters: Name → weight in them.
        decay: How slowly it follows, 0…1; 0 is the weights themselves.
    """

    def __init__(self, modules: nn.Module, parameters: Parameters, decay: float) -> None:
        self.modules, self.parameters, self.decay = modules, parameters, decay
        averaged = decay > 0  # else they are the weights, and cost nothing
        self.values = {
            key: value.detach().clone() if averaged else value.detach() for key, value in parameters.items()
        }

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move towards the weights; faster in the first steps, when the weights are all new."""
        if self.decay == 0:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), list(self.parameters.values()), 1 - decay)

    @contextmanager
    def carried(self, values: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """The modules carry the average, or other values, inside this block and do not learn."""
        kept = {key: value.detach().clone() for key, value in self.parameters.items()}
        put(self.parameters, self.values if values is None else values)
        self.modules.eval()
        try:
            yield
        finally:
            put(self.parameters, kept)
            self.modules.train()


@torch.no_grad()
def put(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy values into tensors of the same names and shapes.

    Raises:
        ModelError: Names or shapes differ.
    """
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
