"""Rates, accumulation, the scale of an fp16 loss, optimizers: against torch's own, and through a real run."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_run import small_config
from torch.optim import lr_scheduler

from t2i.config import TrainConfig
from t2i.config.train import LR_SCHEDULERS
from t2i.errors import ModelError, UsageError
from t2i.training import train
from t2i.training.optimising import (
    LR_SCHEDULES,
    LossScale,
    check_optimizer,
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
)
from t2i.training.stage import steps_for

STEPS = 40


def config(**changes: Any) -> TrainConfig:
    return small_config(Path("unused"), Path("unused"), method="vae", **changes)


def rates(name: str, **changes: Any) -> list[float]:
    settings = config(lr_scheduler=name, **{"lr_warmup_steps": 0, **changes})
    return [learning_rate(settings, 0.5, step, STEPS) for step in range(STEPS)]


def test_the_table_holds_what_the_config_offers() -> None:
    assert tuple(LR_SCHEDULES) == LR_SCHEDULERS


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("constant", lambda optimizer: lr_scheduler.ConstantLR(optimizer, factor=1.0)),
        ("cosine", lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, STEPS)),
        ("linear", lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)),
        ("polynomial", lambda optimizer: lr_scheduler.PolynomialLR(optimizer, STEPS, power=2.0)),
        ("cosine-tail", lambda optimizer: lr_scheduler.SequentialLR(
            optimizer, [lr_scheduler.ConstantLR(optimizer, factor=1.0),
                        lr_scheduler.CosineAnnealingLR(optimizer, 12)], [28])),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rates_are_those_of_torch(name: str, theirs: Any) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    schedule, wanted = theirs(optimizer), []
    for _ in range(STEPS):
        wanted.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    assert rates(name) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("name", LR_SCHEDULERS)
def test_every_rate_rises_first_and_reaches_its_peak(name: str) -> None:
    found = rates(name, lr_warmup_steps=10)
    assert found[:10] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert max(found) == pytest.approx(0.5) and min(found) > 0
    assert found[10:] == sorted(found[10:], reverse=True)
    assert rates(name, lr_warmup_steps=1000)[-1] <= 0.5 * STEPS / 1000 + 1e-9, "a warm-up longer than the run"


def test_epochs_are_passes_over_the_pictures() -> None:
    assert steps_for(config(epochs=3, max_train_steps=None), "vae", 24, True) == 18
    assert steps_for(config(epochs=3, max_train_steps=None, batch_size=5), "vae", 24, True) == 15
    twice = config(epochs=1, max_train_steps=None, gradient_accumulation_steps=2)
    assert steps_for(twice, "vae", 24, True) == 3
    assert steps_for(config(epochs=1, max_train_steps=None), "clip", 24, False) == 0
    with pytest.raises(UsageError, match="--epochs and --steps both say"):
        config(epochs=3)


def logged(dataset: Path, output: Path, **changes: Any) -> list[dict[str, float]]:
    list(train(small_config(dataset, output, method="vae", max_train_steps=3, **changes)))
    return [json.loads(line) for line in (output / "vae" / "metrics.jsonl").read_text().splitlines()]


def test_two_passes_are_one_step_of_twice_the_batch(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the latents' noise, whose order in the stream depends on the shape of a batch."""
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.zeros(*shape))
    whole = logged(shapes, tmp_path / "whole", batch_size=8)
    parts = logged(shapes, tmp_path / "parts", gradient_accumulation_steps=2)
    for one, other in zip(whole, parts, strict=True):
        for name in ("loss", "l1", "edges", "kl", "grad_norm"):
            # The first two steps differ by 2e-7; by the third Adam has turned gradients of nearly nothing
            # into whole steps of either sign, as below: 1.7e-5 was measured on a CPU with AMX.
            bound = 1e-4 if (name, one["step"]) == ("grad_norm", 3) else 1e-5
            assert other[name] == pytest.approx(one[name], rel=bound), (name, one["step"])
    values = (
        load_file(tmp_path / name / "vae/checkpoints/checkpoint-00000003/weights.safetensors")
        for name in ("whole", "parts")
    )
    first, second = values
    for name in first:  # Adam turns gradients of nearly nothing into whole steps of either sign
        assert (first[name] - second[name]).abs().mean() < 1e-5, name


def test_fp16_scales_the_loss_and_resumes_to_the_same_bits(shapes: Path, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    list(train(small_config(shapes, whole, method="clip", mixed_precision="fp16")))
    lines = [json.loads(line) for line in (whole / "clip" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.log2(line["loss_scale"]) % 1 == 0 for line in lines)
    states = [
        json.loads((whole / f"clip/checkpoints/checkpoint-0000000{step}/state.json").read_text())
        for step in (3, 6)
    ]
    assert [state["conditions"]["precision"] for state in states] == ["fp16", "fp16"]
    trackers = [state["loss_scale"]["_growth_tracker"] for state in states]
    assert trackers[1] == trackers[0] + 3, "no step overflowed in these"
    name = "checkpoint-00000003"
    shutil.copytree(whole / "clip/checkpoints" / name, resumed / "clip/checkpoints" / name)
    list(train(small_config(shapes, resumed, method="clip", mixed_precision="fp16", resume="latest")))
    state = json.loads((resumed / "clip/checkpoints/checkpoint-00000006/state.json").read_text())
    assert state["loss_scale"] == states[1]["loss_scale"] and state["exact"] is True
    for file in ("weights", "average", "optimizer"):
        wanted, found = (
            load_file(folder / f"clip/checkpoints/checkpoint-00000006/{file}.safetensors")
            for folder in (whole, resumed)
        )
        assert all(torch.equal(wanted[key], found[key]) for key in wanted)


def test_a_step_that_overflows_is_left_out_and_the_scale_falls() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    scale = LossScale(torch.device("cpu"), enabled=True)

    def step(factor: float) -> dict[str, float]:
        scale.backward((weight * factor).sum())
        scale.unscale(optimizer)
        figures = scale.step(optimizer)
        optimizer.zero_grad()
        return figures

    assert step(math.inf) == {"loss_scale": 2.0**15} and weight.tolist() == [1, 1, 1]
    assert step(1.0) == {"loss_scale": 2.0**15} and weight[0] < 1
    other = LossScale(torch.device("cpu"), enabled=True)
    other.restore(scale.state())
    assert other.state() == scale.state()
    with pytest.raises(ModelError, match="no longer finite, at any scale"):
        for _ in range(60):
            step(math.nan)
    assert LossScale(torch.device("cpu"), enabled=False).state() == {}


def test_the_state_of_any_optimizer_survives_a_file() -> None:
    """Also numbers and bytes, which 8-bit optimizers keep."""
    weights = {"a.weight": torch.nn.Parameter(torch.randn(4, 3)), "weight": torch.nn.Parameter(torch.ones(2))}
    kept = {
        weights["a.weight"]: {"step": 3, "state1": torch.arange(12, dtype=torch.uint8).view(4, 3),
                              "absmax1": torch.ones(1)},
        weights["weight"]: {"step": torch.tensor(5.0), "exp_avg": torch.ones(2)},
    }  # fmt: skip
    tensors = optimizer_tensors(SimpleNamespace(state=kept), weights)  # type: ignore[arg-type]
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    found: Any = SimpleNamespace(state={})
    restore_optimizer(found, weights, tensors)
    for value, state in kept.items():
        assert found.state[value].keys() == state.keys()
        for kind, one in state.items():
            other = found.state[value][kind]
            assert type(other) is type(one) and torch.equal(torch.as_tensor(other), torch.as_tensor(one))


def test_eight_bits_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UsageError, match="--optimizer adamw8bit needs the package bitsandbytes") as caught:
        check_optimizer(config(optimizer="adamw8bit"))
    assert "t2i[adamw8bit]" in caught.value.hint
    made: list[Any] = []
    fake = SimpleNamespace(AdamW8bit=lambda groups, **settings: made.append((groups, settings)) or "theirs")
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(optim=fake))
    parameters = {"m": torch.nn.Parameter(torch.ones(2, 2)), "v": torch.nn.Parameter(torch.ones(2))}
    assert make_optimizer(config(optimizer="adamw8bit", weight_decay=0.3), parameters) == "theirs"
    groups, settings = made[0]
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0] and settings["betas"] == (0.9, 0.99)
