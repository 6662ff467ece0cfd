"""Models of rectified flow: sampling against Diffusers' own classes and a known answer; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from command_line import Run
from tiny_models import make_unet
from torch import Generator, Tensor

from t2i import diffusion
from t2i.errors import ModelError, UsageError
from t2i.methods.unet import scheduler_config
from t2i.sampling import denoise, initial_latents, noise_levels, training_levels
from t2i.schedulers import SCHEDULERS, find_row, is_flow, make_scheduler, row_for_class, set_timesteps

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}
ROWS = [row for row in SCHEDULERS.values() if row.flow_class is not None]
NAMES = [row.name for row in ROWS]
MEAN, SPREAD = 1.5, 0.5
SMALL = {"block_out_channels": (8,), "down_block_types": ("CrossAttnDownBlock2D",), "mid_block_type": None,
         "up_block_types": ("UpBlock2D",)}  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def flow_model(tiny_pocket: Path, copy_model: Callable[[Path], Path]) -> Path:
    """The miniature pocket, said to be what `t2i train --prediction-type flow_prediction` writes."""
    return as_flow(copy_model(tiny_pocket), scheduler_of_training(), "dpm++2m")


def as_flow(folder: Path, config: dict[str, Any], scheduler: str | None) -> Path:
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
    index = {"scheduler": ["diffusers", config["_class_name"]]}
    for name, change in (("t2i.json", {"scheduler": scheduler}), ("model_index.json", index)):
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return folder


def scheduler_of_training() -> dict[str, Any]:
    from t2i.config import TrainConfig

    config = TrainConfig(dataset="d", method="unet", prediction_type="flow_prediction")
    return scheduler_config(config)


def normal(seed: int, shape: tuple[int, ...] = (2, 4, 8, 6)) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def ready(name: str, steps: int, **config: Any) -> Any:
    scheduler = make_scheduler(name, FLOW | config)
    set_timesteps(scheduler, steps)
    return scheduler


def run_through(name: str, steps: int, network: Any, start: Tensor, **config: Any) -> Tensor:
    scheduler = ready(name, steps, **config)
    generators = [Generator().manual_seed(seed) for seed in (3, 4)]
    *_, last = denoise(network, scheduler, initial_latents(start, scheduler), generators)
    return last.latents


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("name", NAMES)
def test_a_row_draws_what_diffusers_own_class_draws(name: str, shift: float) -> None:
    """A tiny UNet, in a loop over Diffusers' class, which is told the levels that ours lists."""
    unet, words, steps = make_unet(7, **SMALL), normal(8, (2, 5, 32)), 6

    @torch.no_grad()
    def network(latents: Tensor, timestep: Tensor) -> Tensor:
        return unet(latents, timestep, words).sample

    found = run_through(name, steps, network, normal(1), shift=shift)
    row = find_row(name)
    theirs: Any = getattr(diffusers, str(row.flow_class))
    even = np.linspace(1, 1 / steps, steps)
    if name in ("ddim", "euler"):
        reference = theirs(shift=shift)
        reference.set_timesteps(sigmas=even.tolist())
    elif name == "heun":
        reference = theirs()  # its own list has the last level at 0.001
        reference.set_timesteps(steps)
        levels = torch.from_numpy(shift * even / (1 + (shift - 1) * even)).float()
        reference.sigmas = torch.cat([levels[:1], levels[1:].repeat_interleave(2), torch.zeros(1)])
        reference.timesteps = 1000 * reference.sigmas[:-1]
    else:
        options = {key: value for key, value in row.arguments.items() if key != "use_lu_lambdas"}
        reference = theirs(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, **options
        )
        reference.set_timesteps(steps)
    reference.set_begin_index(0)
    told = (1000 * reference.sigmas[:-1]).tolist()
    drawn, expected = [Generator().manual_seed(seed) for seed in (3, 4)], normal(1)
    noise = {"generator": drawn} if row.stochastic else {}
    for level, timestep in zip(told, reference.timesteps, strict=True):
        output = network(expected, torch.tensor(level))
        expected = reference.step(output, timestep, expected, **noise).prev_sample
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def gaussian() -> Callable[[Tensor, Tensor], Tensor]:
    """The exact velocity E[ε − x_0 | x] for data N(MEAN, SPREAD²), at the timestep that it is told."""

    def network(latents: Tensor, timestep: Tensor) -> Tensor:
        s = float(timestep) / 1000
        share = (1 - s) * SPREAD**2 / ((1 - s) ** 2 * SPREAD**2 + s**2)
        original = MEAN + share * (latents - (1 - s) * MEAN)
        return (latents - (1 - s) * original) / s - original

    return network


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_exact_velocity_of_a_gaussian_leads_to_the_data(row: Any) -> None:
    """The path is x_0 = m + s ε; methods of second order are nearer, and a stochastic one has the spread."""
    noise, errors = normal(1, (2, 4, 32, 32)).double(), {}
    for steps in (6, 15, 40):
        end = run_through(row.name, steps, gaussian(), noise)
        errors[steps] = float((end - (MEAN + SPREAD * noise)).square().mean().sqrt())
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(end.std()) == pytest.approx(SPREAD, abs=0.07)
    if not row.stochastic:
        assert errors[40] < errors[15] < errors[6]
        assert errors[40] < (0.004 if row.order == 2 else 0.02)


def test_the_levels_are_even_and_the_timestep_is_the_level() -> None:
    scheduler = ready("euler", 4)
    assert scheduler.timesteps.tolist() == [1000.0, 750.0, 500.0, 250.0]
    levels = diffusion.flow_time(noise_levels(scheduler))
    torch.testing.assert_close(levels, torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]).double())
    for row in ROWS:
        for steps in (1, 2, 25):
            scheduler = ready(row.name, steps, shift=2.0)
            levels = diffusion.flow_time(noise_levels(scheduler))
            assert (
                len(scheduler.timesteps)
                == len(levels) - 1
                == row.calls_per_step * steps - (row.calls_per_step - 1)
            )
            torch.testing.assert_close(scheduler.timesteps.double(), 1000 * levels[:-1], rtol=1e-6, atol=1e-4)
            assert levels[0] >= 0.998 and levels[-1] == 0 and (levels.diff() <= 0).all()


def test_ddim_and_euler_are_one_step_and_a_run_says_x_0() -> None:
    network = gaussian()
    ends = [run_through(name, 5, network, normal(2)) for name in ("ddim", "euler")]
    assert torch.equal(*ends)
    scheduler = ready("euler", 5)
    for step in denoise(network, scheduler, normal(2)):
        s = float(step.timestep) / 1000
        expected = step.model_input - s * step.model_output
        torch.testing.assert_close(step.pred_original_sample, expected)


def test_a_straight_path_is_the_curved_one_in_another_scale() -> None:
    original, noise, times = normal(1), normal(2), torch.tensor([0.2, 0.9])
    level = diffusion.flow_alpha_bar(times)
    torch.testing.assert_close(diffusion.flow_time(level), times)
    straight = diffusion.interpolate(original, noise, times)
    expected = torch.stack([0.8 * original[0] + 0.2 * noise[0], 0.1 * original[1] + 0.9 * noise[1]])
    torch.testing.assert_close(straight, expected)
    scale = diffusion.broadcast(((1 - times) ** 2 + times**2).sqrt(), straight)
    torch.testing.assert_close(straight, scale * diffusion.add_noise(original, noise, level))
    levels = training_levels(FLOW)
    assert len(levels) == 1001 and levels[0] == 1 and levels[-1] == 0
    assert float(diffusion.flow_time(levels[250])) == pytest.approx(0.25)


def test_logit_normal_timesteps_of_a_straight_path_have_a_normal_logit() -> None:
    drawn = diffusion.logit_normal_timesteps(
        60_000, training_levels(FLOW), 0.5, 1.2, Generator().manual_seed(0)
    )
    s = drawn.double() / 1000
    assert s.min() >= 0 and s.max() == 1  # one in sixteen is uniform, so that pure noise is seen
    low, middle, high = torch.quantile(
        torch.logit(s.clamp(1e-4, 1 - 1e-4)), torch.tensor([0.16, 0.5, 0.84]).double()
    )
    assert float(middle) == pytest.approx(0.5, abs=0.06)
    assert [float(low), float(high)] == pytest.approx([0.5 - 1.2, 0.5 + 1.2], abs=0.12)


@pytest.mark.parametrize("name", [row.name for row in SCHEDULERS.values() if row not in ROWS])
def test_a_row_without_a_form_for_flow_is_refused(name: str) -> None:
    with pytest.raises(
        UsageError, match=f"scheduler {name.replace('+', '.')} cannot run .* rectified flow"
    ) as caught:
        make_scheduler(name, FLOW)
    assert all(row in caught.value.hint for row in NAMES)


def test_a_class_of_flow_matching_is_no_scheduler_for_other_models() -> None:
    """The row has the name of the method; the model says which process it runs."""
    for name in ("FlowMatchEulerDiscreteScheduler", "flow-euler"):
        with pytest.raises(UsageError, match="unknown scheduler") as caught:
            find_row(name)
        assert "euler" in caught.value.hint


@pytest.mark.parametrize(
    ("config", "name"),
    [({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "euler"),
     ({"_class_name": "FlowMatchHeunDiscreteScheduler"}, "heun"),
     ({"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"}, "unipc"),
     ({"_class_name": "EulerDiscreteScheduler"}, "euler"), ({"_class_name": "DDIMScheduler"}, "ddim")],
)  # fmt: skip
def test_a_checkpoints_own_scheduler(config: dict[str, Any], name: str) -> None:
    assert row_for_class(config["_class_name"], config) == name
    assert is_flow(make_scheduler(None, config).config) == is_flow(config)
    assert row_for_class("DPMSolverMultistepScheduler", scheduler_of_training()) == "dpm++2m"


def test_levels_that_are_not_listed_here_are_refused() -> None:
    for change in ({"use_dynamic_shifting": True}, {"shift_terminal": 0.1}, {"invert_sigmas": True},
                   {"stochastic_sampling": True}, {"use_karras_sigmas": True}, {"shift": 0}, {"shift": "x"},
                   {"shift": True}, {"shift": float("nan")}):  # fmt: skip
        with pytest.raises(ModelError, match=f"{next(iter(change))} = .*fixed shift"):
            make_scheduler("euler", FLOW | change)
    with pytest.raises(UsageError, match="no row here"):
        make_scheduler(None, {"_class_name": "FlowMatchLCMScheduler"})


def test_t2i_and_diffusers_draw_the_same(flow_model: Path, run: Run) -> None:
    """The folder as training writes it, in `StableDiffusionPipeline`; then the picture is verified."""
    from PIL import Image

    made = run("generate", "a red dog", "-m", flow_model, "-s", 3, "-o", "ours.png", "--dtype", "fp32")
    assert made.code == 0, made.err
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(flow_model, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        "a red dog", num_inference_steps=5, guidance_scale=4.0, width=64, height=64,
        generator=torch.Generator().manual_seed(3), output_type="np",
    ).images[0]  # fmt: skip
    ours = np.asarray(Image.open("ours.png")).astype(float)
    # Diffusers tells the network the integer part of the timestep.
    assert np.abs(ours - theirs * 255).max() <= 4 and np.abs(ours - theirs * 255).mean() < 0.5
    assert run("verify", "ours.png").code == 0
    again = run("replay", "ours.png", "--scheduler", "heun", "-o", "heun.png")
    assert again.code == 0, again.err
    assert not np.array_equal(np.asarray(Image.open("heun.png")), np.asarray(Image.open("ours.png")))


def test_a_scheduler_that_cannot_run_it_is_one_line_before_drawing(flow_model: Path, run: Run) -> None:
    for dry in ((), ("--dry-run",)):
        asked = run("generate", "a dog", "-m", flow_model, "--scheduler", "lms", "-o", "x.png", *dry)
        assert asked.code == 2 and not asked.out
        assert "scheduler lms cannot run a model of rectified flow" in asked.err and "dpm++2m" in asked.err
    assert not Path("x.png").exists()


def test_schedulers_are_compared_with_eulers_solution(flow_model: Path) -> None:
    from t2i.comparison import compare
    from t2i.config.compare import CompareConfig

    names = "euler,heun,ddpm"
    asked = CompareConfig(compare="a dog", model=str(flow_model), seed=1, steps="2,4", scheduler=names)
    config = json.loads((flow_model / "scheduler" / "scheduler_config.json").read_text())
    short = config | {"num_train_timesteps": 8}  # the reference has as many steps
    as_flow(flow_model, short, "euler")
    compared = compare(asked)
    assert compared.reference.steps == 8
    (few, many), heun = compared.row("euler"), compared.row("heun")
    assert many.distance < few.distance and heun[0].network_calls == 3
    assert not compared.row("ddpm") and any("left out: ddpm" in note for note in compared.notes())
