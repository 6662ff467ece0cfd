"""The denoising loop against networks whose right answer is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import diffusers
import pytest
import torch
from tiny_models import SCHEDULER_CONFIGS
from torch import Generator, Tensor

from t2i.diffusion import training_target
from t2i.errors import UsageError
from t2i.guidance import classifier_free_guidance, guidance_by_row
from t2i.sampling import Step, denoise, initial_latents, noise_levels
from t2i.schedulers import SCHEDULERS, Row, make_scheduler, set_timesteps

SHAPE = (2, 4, 64, 48)  # enough numbers to know a standard deviation to 0.5 %
SMALL = (2, 4, 8, 6)
STOCHASTIC = [row for row in SCHEDULERS.values() if row.stochastic]
DETERMINISTIC = [row for row in SCHEDULERS.values() if not row.stochastic]
EVERY_CONFIG = pytest.mark.parametrize("config", SCHEDULER_CONFIGS.values(), ids=SCHEDULER_CONFIGS)
STEPS = pytest.mark.parametrize("steps", [13, 25, 50])
POCKET, SD1, SD2 = (SCHEDULER_CONFIGS[name] for name in ("pocket", "sd1", "sd2"))


pytestmark = pytest.mark.usefixtures("one_thread")


def normal(seed: int, shape: tuple[int, ...] = SMALL) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def generators(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


def scheduler_for(name: str, config: dict[str, Any], steps: int) -> Any:
    scheduler = make_scheduler(name, config)
    set_timesteps(scheduler, steps)
    return scheduler


def scale(scheduler: Any, level: Tensor) -> Tensor:
    """Latents of the Euler family are larger by this than those of unit variance."""
    return (
        level**-0.5 if hasattr(scheduler, "is_scale_input_called") or scheduler.order == 2 else torch.ones(())
    )


def mixed(original: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    return level**0.5 * original + (1 - level) ** 0.5 * noise


class Oracle:
    """A network that knows x_0, and takes the rest of what it sees for the noise."""

    def __init__(self, scheduler: Any, original: Tensor, start: int = 0) -> None:
        self.levels, self.kind = noise_levels(scheduler), scheduler.config.prediction_type
        self.original, self.position, self.told = original, start, list[float]()

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        level = self.levels[self.position]
        self.noise = (latents - level**0.5 * self.original) / (1 - level) ** 0.5
        self.position += 1
        self.told.append(float(timestep))
        return training_target(self.original, self.noise, level, self.kind)


def bounded(scheduler: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """A network that is not linear, and whose x̂_0 = tanh(2 x_t) stays in range as a trained one's does."""

    def network(latents: Tensor, timestep: Tensor) -> Tensor:
        level = scheduler.alphas_cumprod[int(timestep)]
        original = torch.tanh(2 * latents)
        noise = (latents - level**0.5 * original) / (1 - level) ** 0.5
        return training_target(original, noise, level, scheduler.config.prediction_type)

    return network


def walk(
    row: Row, config: dict[str, Any], steps: int, shape: tuple[int, ...]
) -> Iterator[tuple[Step, Oracle, Any]]:
    scheduler = scheduler_for(row.name, config, steps)
    oracle = Oracle(scheduler, normal(1, shape).double())  # in double: formulas are compared, not roundings
    level = oracle.levels[0]
    start = mixed(oracle.original, normal(2, shape).double(), level) * scale(scheduler, level)
    for step in denoise(oracle, scheduler, start, generators(3, 4)):
        yield step, oracle, scheduler
    assert oracle.told == scheduler.timesteps.tolist()
    # The timestep that the network is told is the one of the listed level; Karras rounds it.
    if row.name != "dpm++2m-karras":
        told = torch.tensor(oracle.told)
        between = torch.lerp(
            scheduler.alphas_cumprod[told.long()],
            scheduler.alphas_cumprod[(told.long() + 1).clamp(max=999)],
            told - told.long(),
        )
        torch.testing.assert_close(between.double(), oracle.levels[:-1], rtol=2e-4, atol=1e-7)


@STEPS
@EVERY_CONFIG
@pytest.mark.parametrize("row", DETERMINISTIC, ids=lambda row: row.name)
def test_deterministic_rows_land_on_the_next_listed_level(
    row: Row, config: dict[str, Any], steps: int
) -> None:
    for step, oracle, scheduler in walk(row, config, steps, SMALL):
        here, there = oracle.levels[step.index], oracle.levels[step.index + 1]
        found = step.latents / scale(scheduler, there)
        expected = mixed(oracle.original, oracle.noise, there)
        # Euler and Heun take σ' − σ in float32: from 4096 to 20, one rounding is 1e-5 of what comes out.
        sigma, next_sigma = ((1 / level - 1) ** 0.5 for level in (here, there))
        rounding = 2**-23 * float(sigma / next_sigma) if row.name in ("euler", "heun") and there < 1 else 0
        assert torch.isfinite(found).all()
        assert (found - expected).abs().max() <= 1e-5 + rounding, step.index
        x0_error = (step.pred_original_sample - oracle.original).abs().max()
        assert x0_error <= 1e-5 / float(here) ** 0.5
    assert (found - oracle.original).abs().max() < (0.3 if float(oracle.levels[-1]) < 1 else 1e-3)


@STEPS
@EVERY_CONFIG
@pytest.mark.parametrize("row", STOCHASTIC, ids=lambda row: row.name)
def test_stochastic_rows_land_in_distribution(row: Row, config: dict[str, Any], steps: int) -> None:
    for step, oracle, scheduler in walk(row, config, steps, SHAPE):
        there = oracle.levels[step.index + 1]
        rest = step.latents / scale(scheduler, there) - there**0.5 * oracle.original
        assert torch.isfinite(rest).all()
        if there < 1:
            assert float(rest.std()) == pytest.approx(float((1 - there) ** 0.5), rel=0.02), step.index
            assert abs(float(rest.mean())) < 0.02
        else:
            assert rest.abs().max() < 1e-4


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("config", [SD1, SD2], ids=["epsilon", "v"])
def test_ddim_equals_euler(config: dict[str, Any], spacing: str) -> None:
    """Two solvers of one equation, of first order both."""

    for steps in (10, 13, 25, 30):
        ddim = scheduler_for("ddim", {**config, "timestep_spacing": spacing, "set_alpha_to_one": True}, steps)
        euler = make_scheduler("euler", config)
        euler.set_timesteps(timesteps=ddim.timesteps.tolist())
        noise, level = normal(5), noise_levels(ddim)[0]
        *_, first = denoise(bounded(ddim), ddim, noise)
        *_, second = denoise(bounded(euler), euler, noise * level**-0.5)
        torch.testing.assert_close(noise_levels(ddim), noise_levels(euler), rtol=1e-5, atol=0)
        assert (first.latents - second.latents).abs().max() <= 1e-5, steps


def test_ddim_and_pndm_equal_diffusers_where_diffusers_is_right() -> None:
    """`leading` spacing, and for PNDM a network that predicts the noise."""

    for name, theirs in (("ddim", diffusers.DDIMScheduler), ("pndm", diffusers.PNDMScheduler)):
        reference = theirs.from_config(SD1)
        reference.set_timesteps(25)
        expected = normal(6)
        for timestep in reference.timesteps:
            output = bounded(reference)(expected, timestep)
            expected = reference.step(output, timestep, expected).prev_sample
        scheduler = scheduler_for(name, SD1, 25)
        *_, last = denoise(bounded(scheduler), scheduler, normal(6))
        assert (last.latents - expected).abs().max() <= 1e-5


def test_ddim_with_eta_one_equals_ddpm() -> None:
    """Song et al. 2020, section 4.1: η = 1 is the ancestral process with the smaller variance."""
    config = {**SD2, "set_alpha_to_one": True}
    ddim, ddpm = (scheduler_for(name, config, 25) for name in ("ddim", "ddpm"))
    latents, output = normal(7), normal(8)
    for timestep in ddpm.timesteps:
        expected = ddpm.step(output, timestep, latents, generator=Generator().manual_seed(9)).prev_sample
        found = ddim.step(
            output, timestep, latents, eta=1.0, generator=Generator().manual_seed(9)
        ).prev_sample
        assert (found - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("row", STOCHASTIC, ids=lambda row: row.name)
def test_noise_of_an_image_depends_on_its_own_generator_alone(row: Row) -> None:
    def run(*seeds: int) -> Tensor:
        scheduler = scheduler_for(row.name, POCKET, 7)
        noise = torch.cat([normal(seed, (1, 4, 8, 6)) for seed in seeds])
        *_, last = denoise(
            lambda x, t: torch.tanh(x), scheduler, noise * scheduler.init_noise_sigma, generators(*seeds)
        )
        return last.latents

    together = run(11, 12, 13)
    assert torch.equal(together[1:2], run(12)) and torch.equal(together[[2, 0]], run(13, 11))
    assert not torch.equal(together[0], together[1])


def test_calling_the_loop_wrongly_is_an_error() -> None:
    scheduler, noise = scheduler_for("euler-a", SD1, 4), normal(1, (2, 4, 8, 8))
    with pytest.raises(ValueError, match="one generator per image"):
        next(denoise(lambda x, t: x, scheduler, noise))
    with pytest.raises(ValueError, match="1 generators for 2 images"):
        next(denoise(lambda x, t: x, scheduler, noise, generators(1)))
    list(denoise(lambda x, t: x, scheduler, noise, generators(1, 2)))
    with pytest.raises(ValueError, match="set_timesteps"):
        next(denoise(lambda x, t: x, scheduler, noise, generators(1, 2)))


@pytest.mark.parametrize("row", SCHEDULERS.values(), ids=lambda row: row.name)
def test_a_scheduler_can_run_again_after_set_timesteps(row: Row) -> None:
    scheduler = make_scheduler(row.name, POCKET)
    ends = []
    for _ in range(2):
        set_timesteps(scheduler, 6)
        start = initial_latents(normal(1, (1, 4, 8, 8)), scheduler)
        *_, last = denoise(lambda x, t: torch.tanh(x), scheduler, start, generators(2))
        ends.append(last.latents)
    assert torch.equal(*ends)


@pytest.mark.parametrize("name", ["ddim", "euler", "heun"])
def test_a_run_can_start_half_way(name: str) -> None:
    """Methods without memory of earlier steps go on as if they had done them."""
    scheduler = scheduler_for(name, SD2, 9)
    steps = list(denoise(lambda x, t: torch.tanh(x), scheduler, initial_latents(normal(1), scheduler)))
    start = 4  # for Heun the first call of a step
    set_timesteps(scheduler, 9)
    resumed = list(denoise(lambda x, t: torch.tanh(x), scheduler, steps[start - 1].latents, start=start))
    assert [step.index for step in resumed] == [step.index for step in steps[start:]]
    assert torch.equal(resumed[-1].latents, steps[-1].latents)


@pytest.mark.parametrize("row", SCHEDULERS.values(), ids=lambda row: row.name)
def test_every_row_lands_from_half_way(row: Row) -> None:
    scheduler = scheduler_for(row.name, SD2, 9)
    start = 4
    oracle = Oracle(scheduler, normal(1), start)
    level = oracle.levels[start]
    latents = mixed(oracle.original, normal(2), level) * scale(scheduler, level)
    *_, last = denoise(oracle, scheduler, latents, generators(3, 4), start)
    assert oracle.told == scheduler.timesteps[start:].tolist()
    assert (last.latents - oracle.original).abs().max() < (0.3 if float(oracle.levels[-1]) < 1 else 1e-3)


def gaussian(scheduler: Any, mean: float, spread: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The perfect network for data N(mean, spread²)."""
    levels, position = noise_levels(scheduler), iter(range(10_000))

    def network(latents: Tensor, timestep: Tensor) -> Tensor:
        level = levels[next(position)]
        share = level**0.5 * spread**2 / (level * spread**2 + 1 - level)
        original = mean + share * (latents - level**0.5 * mean)
        noise = (latents - level**0.5 * original) / (1 - level) ** 0.5
        return training_target(original, noise, level, scheduler.config.prediction_type)

    return network


@pytest.mark.parametrize("row", DETERMINISTIC, ids=lambda row: row.name)
def test_a_known_answer_is_approached_as_steps_grow(row: Row) -> None:
    """x_0 = m + s ε for Gaussian data, on pocket's schedule, whose first step is the long one."""
    errors, noise = {}, normal(1)
    for name in (row.name, "euler"):
        for steps in (7, 25, 50):
            scheduler = scheduler_for(name, POCKET, steps)
            *_, last = denoise(gaussian(scheduler, 1.5, 0.5), scheduler, initial_latents(noise, scheduler))
            errors[name, steps] = float((last.latents - (1.5 + 0.5 * noise)).square().mean().sqrt())
    assert errors[row.name, 50] < errors[row.name, 25] < errors[row.name, 7]
    assert all(errors[row.name, steps] < 1.01 * errors["euler", steps] for steps in (7, 25, 50))


def test_guidance_moves_every_channel_and_one_is_off() -> None:
    cond, uncond = normal(1), normal(2)
    assert classifier_free_guidance(cond, uncond, 1) is cond
    guided = classifier_free_guidance(cond, uncond, 7.5)
    torch.testing.assert_close(guided, -6.5 * uncond + 7.5 * cond, rtol=1e-5, atol=1e-5)
    assert ((guided - cond).abs().amax(dim=(0, 2, 3)) > 1).all()
    for scale_below in (0, 0.99, -1, float("nan")):
        with pytest.raises(UsageError, match="at least 1"):
            classifier_free_guidance(cond, uncond, scale_below)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_row_has_the_bits_of_its_own_guidance_scale(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    cond, uncond = (torch.randn(4, 4, 8, 8, generator=generator).to(dtype) for _ in range(2))
    scales = [1.1, 3.3, 7.7, 30.1]  # none of them is a number of bf16
    together = guidance_by_row(cond, uncond, scales)
    for row, scale in enumerate(scales):
        alone = classifier_free_guidance(cond[row : row + 1], uncond[row : row + 1], scale)
        assert torch.equal(together[row : row + 1], alone) and together.dtype == dtype
    with pytest.raises(UsageError, match="above 1"):
        guidance_by_row(cond, uncond, [1, 2, 3, 4])
