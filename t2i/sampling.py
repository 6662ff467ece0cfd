"""The denoising loop: noise in, one `Step` out per network call.

It never sees a prompt, a file or a UNet: the network is a `Denoiser`, the method a scheduler of
`t2i.schedulers`, the randomness one generator per image. Progress, previews, films and tests are all a
`for` over it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from t2i.diffusion import flow_alpha_bar, flow_alphas_cumprod, original_from
from t2i.schedulers import is_flow, make_scheduler

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""(latents (B, C, h, w) at unit variance, timestep ()) -> model output (B, C, h, w), guidance included."""


@dataclass(frozen=True)
class Step:
    """What one network call gave.

    Attributes:
        index: Position in `scheduler.timesteps`, from 0. A method of two calls per step counts both.
        timestep: The training timestep the network was told; for some methods not an integer.
        latents: Latents after the call, (B, C, h, w), in the scheduler's own scale.
        model_output: Raw network output, (B, C, h, w); its meaning is the checkpoint's prediction type.
        model_input: Latents that the network was given, (B, C, h, w).
        alpha_bar: ᾱ of `model_input`, ().
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
    """

    index: int
    timestep: Tensor
    latents: Tensor
    model_output: Tensor
    model_input: Tensor = field(repr=False)
    alpha_bar: Tensor = field(repr=False)
    prediction_type: str = field(repr=False)

    @property
    def pred_original_sample(self) -> Tensor:
        """x̂_0 implied by the output, (B, C, h, w). Computed when asked for: most steps nobody looks."""
        return original_from(self.model_output, self.model_input, self.alpha_bar, self.prediction_type)


def initial_latents(noise: Tensor, scheduler: Any) -> Tensor:
    """Start latents in the scheduler's own scale, (B, C, h, w), from noise of unit variance.

    Args:
        noise: (B, C, h, w).
        scheduler: After `set_timesteps`: the Euler family's scale depends on its list.
    """
    return noise * scheduler.init_noise_sigma


def noise_levels(scheduler: Any) -> Tensor:
    """ᾱ that a scheduler lists, (len(timesteps) + 1,), float64 on the CPU.

    Entry i is the level of the latents that network call i sees; entry i + 1 the level where that call
    leaves them. Methods that look at one step twice have entries twice: Heun all but the first, PNDM
    its second.
    """
    if is_flow(scheduler.config):
        return flow_alpha_bar(scheduler.sigmas.double().cpu())
    if hasattr(scheduler, "sigmas"):
        return 1 / (scheduler.sigmas.double().cpu() ** 2 + 1)
    last = getattr(scheduler, "final_alpha_cumprod", torch.tensor(1.0))
    if type(scheduler).__name__ == "LCMScheduler":
        last = torch.tensor(1.0)  # its last step returns x̂_0 whatever `final_alpha_cumprod` says
    table = scheduler.alphas_cumprod.double().cpu()
    return torch.cat([table[scheduler.timesteps.long().cpu()], last.double().cpu().reshape(1)])


def training_levels(scheduler_config: Mapping[str, Any]) -> Tensor:
    """ᾱ at every timestep that a checkpoint's network was trained for, (T,), on the CPU.

    Entry t is the level of timestep t: 1000 of a schedule of betas, float32; 1001 of rectified flow, float64.

    Args:
        scheduler_config: The checkpoint's scheduler_config.json.

    Raises:
        ModelError: The checkpoint's noise process is another one.
    """
    if is_flow(scheduler_config):
        return flow_alphas_cumprod(int(scheduler_config.get("num_train_timesteps", 1000)))
    return make_scheduler("ddim", scheduler_config).alphas_cumprod.float()


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
    scheduler: Any,
    latents: Tensor,
    generators: Sequence[Generator] | None = None,
    start: int = 0,
) -> Iterator[Step]:
    """Walk a scheduler's list of timesteps; see `Step` for what comes out.

    Args:
        denoiser: The network, conditioned and guided.
        scheduler: From `schedulers.make_scheduler`, after `schedulers.set_timesteps` and not yet used
            since.
        latents: Start latents in the scheduler's own scale, (B, C, h, w); see `initial_latents`.
        generators: One per image, for schedulers that draw noise: image k's noise depends on
            generator k alone. CPU generators work for latents on any device.
        start: First position of `scheduler.timesteps` to do, for latents that are already half-way.

    Raises:
        ValueError: Called wrongly: a used scheduler, or not one generator per image where noise is drawn.
    """
    if getattr(scheduler, "step_index", None) is not None:
        raise ValueError("this scheduler has been used: call set_timesteps before each run")
    if scheduler.stochastic and generators is None:
        raise ValueError(f"{type(scheduler).__name__} draws noise: give one generator per image")
    if generators is not None and len(generators) != len(latents):
        raise ValueError(f"{len(generators)} generators for {len(latents)} images")

    noise: dict[str, Any] = {}
    if generators is not None and "generator" in inspect.signature(scheduler.step).parameters:
        noise["generator"] = list(generators)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    levels, kind = noise_levels(scheduler).float(), scheduler.config.prediction_type
    for index, timestep in enumerate(scheduler.timesteps[start:], start):
        model_input = scheduler.scale_model_input(latents, timestep)
        model_output = denoiser(model_input, timestep)
        latents = scheduler.step(model_output, timestep, latents, return_dict=False, **noise)[0]
        yield Step(index, timestep, latents, model_output, model_input, levels[index], kind)
