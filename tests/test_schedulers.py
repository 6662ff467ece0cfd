"""Scheduler names, and what of a checkpoint's configuration reaches the scheduler."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import diffusers
import pytest
import torch
from tiny_models import SCHEDULER_CONFIGS

from t2i.cli import run
from t2i.errors import ModelError, UsageError
from t2i.sampling import noise_levels
from t2i.schedulers import SCHEDULERS, Row, find_row, make_scheduler, row_for_class, rows, set_timesteps

EVERY_ROW = pytest.mark.parametrize("row", SCHEDULERS.values(), ids=lambda row: row.name)
EVERY_CONFIG = pytest.mark.parametrize("config", SCHEDULER_CONFIGS.values(), ids=SCHEDULER_CONFIGS)
POCKET, SD1 = SCHEDULER_CONFIGS["pocket"], SCHEDULER_CONFIGS["sd1"]


@EVERY_ROW
def test_every_spelling_finds_its_row(row: Row) -> None:
    for name in (row.name, *row.aliases):
        for spelling in (name, name.upper(), name.replace(" ", "_"), name.replace("-", " ")):
            assert find_row(spelling) is row
    assert find_row(row.class_name).class_name == row.class_name


@pytest.mark.parametrize(
    ("foreign", "name"),
    [("DPM++ 2M Karras", "dpm++2m-karras"), ("dpmpp_2m", "dpm++2m"), ("PLMS", "pndm"), ("Euler a", "euler-a"),
     ("euler_ancestral", "euler-a"), ("DPM++ SDE", "dpm++sde"), ("DPMSolverMultistepScheduler", "dpm++2m")],
)  # fmt: skip
def test_names_from_elsewhere(foreign: str, name: str) -> None:
    assert find_row(foreign).name == name


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'eulr'") as caught:
        find_row("eulr")
    assert "euler" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        find_row("qqq")
    assert all(name in caught.value.hint for name in SCHEDULERS)


def test_the_command_prints_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schedulers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for row in SCHEDULERS.values():
        line = next(line for line in lines if line.split()[:1] == [row.name])
        assert row.class_name in line and f" {'yes' if row.stochastic else 'no'} " in line
    assert run(["schedulers", "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == rows()
    assert [row["order"] for row in printed] == [row.order for row in SCHEDULERS.values()]


def test_a_missing_package_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scipy" else find(name))
    with pytest.raises(UsageError, match="lms needs the package scipy") as caught:
        make_scheduler("lms", SD1)
    assert "t2i[lms]" in caught.value.hint
    assert [row["name"] for row in rows() if not row["available"]] == ["lms"]


@pytest.mark.parametrize(
    ("class_name", "config", "name"),
    [("PNDMScheduler", {}, "pndm"), ("EulerDiscreteScheduler", {}, "euler"), ("LCMScheduler", {}, "lcm"),
     ("DPMSolverMultistepScheduler", {}, "dpm++2m"),
     ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, "dpm++2m-karras"),
     ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "dpm++sde")],
)  # fmt: skip
def test_a_checkpoints_own_scheduler(class_name: str, config: dict[str, Any], name: str) -> None:
    assert row_for_class(class_name, config) == name
    scheduler = make_scheduler(None, {"_class_name": class_name, **config})
    assert type(scheduler).__name__ == class_name
    assert isinstance(scheduler, getattr(diffusers, class_name))
    assert scheduler.stochastic == SCHEDULERS[name].stochastic


def test_own_schedulers_without_a_row_are_refused() -> None:
    for name in (None, "euler"):
        with pytest.raises(ModelError, match="another noise process"):
            make_scheduler(name, {"_class_name": "EDMEulerScheduler"})
    for own in (
        {"_class_name": "DEISMultistepScheduler"},
        {"_class_name": "DPMSolverSinglestepScheduler"},
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"},
    ):
        with pytest.raises(UsageError, match="no row") as caught:
            make_scheduler(None, own)
        assert "--scheduler" in caught.value.hint
        assert not make_scheduler("dpm++2m", own).stochastic


@EVERY_CONFIG
@EVERY_ROW
def test_the_checkpoints_noise_schedule_is_respected(row: Row, config: dict[str, Any]) -> None:
    scheduler = make_scheduler(row.name, config)
    own = getattr(diffusers, config["_class_name"]).from_config(config).alphas_cumprod
    rescaled = config.get("rescale_betas_zero_snr", False)
    torch.testing.assert_close(scheduler.alphas_cumprod[:-1], own[:-1], rtol=1e-6, atol=0)
    assert float(scheduler.alphas_cumprod[-1]) == pytest.approx(
        2**-24 if rescaled else float(own[-1]), rel=1e-5
    )
    assert scheduler.config.prediction_type == config.get("prediction_type", "epsilon")
    assert not getattr(scheduler.config, "clip_sample", False)
    if "timestep_spacing" in config and "timestep_spacing" in scheduler.config:
        assert scheduler.config.timestep_spacing == config["timestep_spacing"]


def test_latents_are_never_clipped() -> None:
    for name in ("ddpm", "ddim", "heun", "lcm"):
        assert not make_scheduler(name, {**SD1, "clip_sample": True}).config.clip_sample


def test_betas_that_a_checkpoint_does_not_write_are_its_own_classes() -> None:
    """LCM's and Heun's default betas differ from those of the others."""
    bare = {"_class_name": "DDPMScheduler"}
    for name in ("lcm", "heun", "euler"):
        scheduler = make_scheduler(name, bare)
        assert torch.equal(scheduler.alphas_cumprod, diffusers.DDPMScheduler().alphas_cumprod)


def test_solver_options_stay_with_their_solver() -> None:
    own = {"_class_name": "DDPMScheduler", "variance_type": "fixed_large"}
    assert make_scheduler("ddpm", own).config.variance_type == "fixed_large"
    assert make_scheduler("ddpm", SD1).config.variance_type == "fixed_small"
    karras = {**SD1, "_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    assert not make_scheduler("euler", karras).config.use_karras_sigmas
    assert not make_scheduler("dpm++2m", karras).config.use_karras_sigmas
    assert make_scheduler("dpm++2m-karras", SD1).config.use_karras_sigmas


def test_a_prediction_type_that_a_row_cannot_run_is_refused() -> None:
    sample = {**SD1, "prediction_type": "sample"}
    for name in ("pndm", "euler-a"):
        with pytest.raises(UsageError, match="predicts the sample"):
            make_scheduler(name, sample)
    make_scheduler("ddim", sample)


@EVERY_ROW
def test_trailing_lists_the_steps_asked_for(row: Row) -> None:
    """`arange` rounds to one timestep too many for these and sixty other numbers of steps."""
    for steps in (61, 103) if row.name != "lcm" else (1, 7):
        scheduler = make_scheduler(row.name, POCKET)
        set_timesteps(scheduler, steps)
        levels = noise_levels(scheduler)
        assert len(scheduler.timesteps) == scheduler.calls(steps) == len(levels) - 1
        assert len(levels.unique()) == steps + 1
        assert int(scheduler.timesteps[0]) == 999 and float(levels[0]) == pytest.approx(2**-24, rel=1e-5)
        assert float(scheduler.timesteps.min()) >= 0 and float(levels[-1]) == 1
        assert (levels.diff() >= 0).all()


def test_every_trailing_count_below_train_timesteps_is_right() -> None:
    scheduler = make_scheduler("ddim", POCKET)
    surplus = 0
    for steps in range(1, 1001):
        set_timesteps(scheduler, steps)
        assert len(scheduler.timesteps) == steps
        surplus += len(torch.arange(1000, 0, -1000 / steps, dtype=torch.float64)) != steps
    assert surplus > 0  # the trap is there: without the repair some of these lists are longer


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_dpm_sde_has_the_spacing_of_its_multistep_sibling(spacing: str) -> None:
    config = {**SD1, "timestep_spacing": spacing}
    for steps in (7, 13, 25):
        listed = []
        for name in ("dpm++sde", "dpm++2m"):
            scheduler = make_scheduler(name, config)
            set_timesteps(scheduler, steps)
            listed.append((scheduler.timesteps.tolist(), scheduler.sigmas.tolist()))
        assert listed[0] == listed[1]


def test_step_counts_that_cannot_be_walked_are_refused() -> None:
    for name, config, steps in [
        ("lcm", SD1, 51), ("ddim", SD1, 1001), ("ddpm", SD1, 1000),
        ("dpm++2m", {**SD1, "timestep_spacing": "leading"}, 1000),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=f"--steps {steps}"):
            set_timesteps(make_scheduler(name, config), steps)


def test_karras_on_zero_terminal_snr_spends_its_steps_below_pure_noise() -> None:
    scheduler = make_scheduler("dpm++2m-karras", POCKET)
    set_timesteps(scheduler, 25)
    assert float(scheduler.sigmas[0]) == pytest.approx(4096, rel=1e-3)
    assert float(scheduler.sigmas[1]) < 15
