"""Diffusers' schedulers with their steps kept on the noise levels that they list.

Each class here has the name of the Diffusers class that it stands for, so that a saved configuration
names something that Diffusers can load. This module needs torch and is imported only by
`make_scheduler`.

What is repaired, all found in Diffusers 0.42.1:

- DDIM and PNDM compute the next timestep as `timestep - 1000 // steps` instead of reading their own
  list: wrong levels with `linspace`, and with `trailing` unless the steps divide 1000.
- PNDM mixes velocities of different timesteps, which do not mean the same: wrong levels again.
- `trailing` lists one timestep too many, −1, for some step counts (61, 103, …): rounding in `arange`.
- The position in the list is looked up by value: wrong where a timestep is listed twice (Karras levels
  on a zero-terminal-SNR model).
- DPMSolverSinglestep knows no `timestep_spacing`.
- On a zero-terminal-SNR model, where the first σ is 4096, Heun averages over a step two hundred times
  its end, and Karras' ramp spends half its steps above every σ that can be told from pure noise.
"""
# The one file of the foundation that needs torch: nothing imports it at module level.
# ruff: noqa: TID253

from __future__ import annotations

from functools import cache
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

PURE_NOISE_SIGMA = 1000.0  # above any σ of a schedule that is not zero-terminal-SNR; that one has 4096
KARRAS_SIGMA_MAX = 14.62  # where the scaled-linear schedule of latent diffusion ends without the rescale


class Listed:
    """Mixin before a Diffusers scheduler: the list has the length asked for, and steps start at its head."""

    stochastic = False
    timesteps: Tensor

    def calls(self, steps: int) -> int:
        """Network calls, which is the length of `timesteps`, for this many steps."""
        return steps

    def set_timesteps(self, num_inference_steps: int | None = None, *args: Any, **kwargs: Any) -> None:
        """As in Diffusers, then drop a surplus timestep below 0 and begin at position 0."""
        super().set_timesteps(num_inference_steps, *args, **kwargs)  # type: ignore[misc]
        if num_inference_steps is not None:
            count = self.calls(num_inference_steps)
            if len(self.timesteps) > count and bool((self.timesteps[count:] < 0).all()):
                self.timesteps = self.timesteps[:count]
                self.num_inference_steps = num_inference_steps
                sigmas = getattr(self, "sigmas", None)
                if sigmas is not None:
                    self.sigmas = torch.cat([sigmas[:count], sigmas[-1:]])
        if hasattr(self, "set_begin_index"):
            self.set_begin_index(0)


def split(model_output: Tensor, sample: Tensor, alpha_bar: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """x̂_0 and ε̂ that an output at x_t stands for, each (B, C, h, w).

    Source: Song et al. 2020, arXiv:2010.02502, eq. (12); Salimans & Ho 2022, arXiv:2202.00512, appendix D.
    """
    signal, spread = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    if kind == "epsilon":
        return (sample - spread * model_output) / signal, model_output
    if kind == "v_prediction":
        return signal * sample - spread * model_output, signal * model_output + spread * sample
    return model_output, (sample - signal * model_output) / spread


class DDIMScheduler(Listed, diffusers.DDIMScheduler):
    """DDIM whose step goes to the next timestep of its own list."""

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | int,
        sample: Tensor,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> DDIMSchedulerOutput | tuple[Tensor, Tensor]:
        """One step from x_t to the next listed noise level.

        Args:
            model_output: Network output at x_t, (B, C, h, w).
            timestep: An entry of `timesteps`.
            sample: x_t, same shape.
            eta: η in the source: 0 is deterministic, 1 is ancestral.
            generator: Noise for η > 0: one for the batch, or a list with one per image.
            return_dict: Return an object instead of a tuple.

        Returns:
            The latents at the next level, and x̂_0.

        Source: Song et al. 2020, arXiv:2010.02502, eq. (12) and (16).
        """
        after = int((self.timesteps == timestep).nonzero()[0]) + 1
        last = after == len(self.timesteps)
        here = self.alphas_cumprod[timestep]
        there = self.final_alpha_cumprod if last else self.alphas_cumprod[self.timesteps[after]]
        original, noise = split(model_output, sample, here, self.config.prediction_type)
        if self.config.thresholding:
            original = self._threshold_sample(original)
        sigma = eta * ((1 - there) / (1 - here) * (1 - here / there)) ** 0.5
        moved = there**0.5 * original + (1 - there - sigma**2) ** 0.5 * noise
        if eta > 0:
            drawn = randn_tensor(model_output.shape, generator, model_output.device, model_output.dtype)
            moved = moved + sigma * drawn
        if not return_dict:
            return moved, original
        return DDIMSchedulerOutput(prev_sample=moved, pred_original_sample=original)


class PNDMScheduler(Listed, diffusers.PNDMScheduler):
    """PLMS (PNDM without the Runge-Kutta start) on its own list, from any position of it.

    The list has its second timestep twice: the first step is made, looked at from its end, and made
    again with the mean of both directions.
    """

    counter: int
    cur_sample: Tensor

    def calls(self, steps: int) -> int:
        return steps + 1 if steps > 1 else 1

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at this position of `timesteps`."""
        self.begin_index = self.counter = begin_index
        self.history: list[Tensor] = []

    def step(
        self, model_output: Tensor, timestep: Tensor | int, sample: Tensor, return_dict: bool = True
    ) -> SchedulerOutput | tuple[Tensor]:
        """One step to the next listed noise level.

        Args:
            model_output: Network output at x_t, (B, C, h, w).
            timestep: The entry of `timesteps` that is due.
            sample: x_t, same shape.
            return_dict: Return an object instead of a tuple.

        Source: Liu et al. 2022, arXiv:2202.09778, eq. (11) and (12). For a velocity model the history
        is kept as x̂_0 and ε̂ and read as a velocity at the present level, which has no division by √ᾱ.
        """
        kind = self.config.prediction_type
        seen = torch.stack(
            split(model_output, sample, self.alphas_cumprod[self.timesteps[self.counter]], kind)
        )
        here = self.counter
        if here == 1 and self.begin_index == 0:
            here, sample = 0, self.cur_sample
            original, noise = (seen + self.history[-1]) / 2
        else:
            self.cur_sample = sample
            self.history = [*self.history[-3:], seen]
            original, noise = adams_bashforth(self.history)
        alpha_bar = self.alphas_cumprod[self.timesteps[here]]
        if kind == "epsilon":
            original, noise = split(noise, sample, alpha_bar, kind)
        else:
            velocity = alpha_bar**0.5 * noise - (1 - alpha_bar) ** 0.5 * original
            original, noise = split(velocity, sample, alpha_bar, "v_prediction")
        last = here + 1 >= len(self.timesteps)
        there = self.final_alpha_cumprod if last else self.alphas_cumprod[self.timesteps[here + 1]]
        moved = there**0.5 * original + (1 - there) ** 0.5 * noise
        self.counter += 1
        return SchedulerOutput(prev_sample=moved) if return_dict else (moved,)


def adams_bashforth(history: list[Tensor]) -> Tensor:
    """The direction that the last one to four outputs point to, newest last, (B, C, h, w)."""
    if len(history) == 1:
        return history[-1]
    if len(history) == 2:
        return (3 * history[-1] - history[-2]) / 2
    if len(history) == 3:
        return (23 * history[-1] - 16 * history[-2] + 5 * history[-3]) / 12
    return (1 / 24) * (55 * history[-1] - 59 * history[-2] + 37 * history[-3] - 9 * history[-4])


class HeunDiscreteScheduler(Listed, diffusers.HeunDiscreteScheduler):
    """Heun: two network calls per step, one for the last, and one for a first step from pure noise."""

    from_pure_noise = False

    def calls(self, steps: int) -> int:
        return 2 * steps - 1 - self.from_pure_noise

    def set_timesteps(self, num_inference_steps: int | None = None, *args: Any, **kwargs: Any) -> None:
        """As in Diffusers, without the second look at a first step from pure noise."""
        self.from_pure_noise = False
        super().set_timesteps(num_inference_steps, *args, **kwargs)
        if len(self.timesteps) > 1 and bool(self.sigmas[0] > PURE_NOISE_SIGMA):
            self.from_pure_noise = True
            self.timesteps = torch.cat([self.timesteps[:1], self.timesteps[2:]])
            self.sigmas = torch.cat([self.sigmas[:1], self.sigmas[2:]])

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """As in Diffusers; a first step from pure noise is Euler's."""
        moved = super().step(*args, **kwargs)
        if self.step_index == 1 and self.from_pure_noise:
            self.dt = None
        return moved


class LMSDiscreteScheduler(Listed, diffusers.LMSDiscreteScheduler):
    """Linear multistep, of no higher order than the steps done: Diffusers counts those before the start."""

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, order: int = 4, **kwargs: Any) -> Any:
        """As in Diffusers."""
        return super().step(model_output, timestep, sample, min(order, len(self.derivatives) + 1), **kwargs)


class DPMSolverMultistepScheduler(Listed, diffusers.DPMSolverMultistepScheduler):
    """DPM-Solver++(2M), whose Karras levels on a zero-terminal-SNR model start below pure noise."""

    def _convert_to_karras(self, in_sigmas: np.ndarray, num_inference_steps: int) -> np.ndarray:
        """σ of Karras et al. 2022, eq. (5), (steps,); pure noise first where the schedule has it."""
        if in_sigmas[0] <= PURE_NOISE_SIGMA or num_inference_steps == 1:
            return super()._convert_to_karras(in_sigmas, num_inference_steps)
        below = super()._convert_to_karras(in_sigmas[in_sigmas <= KARRAS_SIGMA_MAX], num_inference_steps - 1)
        return np.concatenate([in_sigmas[:1], below])


class DPMSolverSinglestepScheduler(Listed, diffusers.DPMSolverSinglestepScheduler):
    """Single-step DPM-Solver++ with the checkpoint's `timestep_spacing`."""

    timestep_spacing = "linspace"
    steps_offset = 0

    def set_timesteps(self, num_inference_steps: int | None = None, *args: Any, **kwargs: Any) -> None:
        """As in Diffusers, with the timesteps that its multistep sibling lists for the same spacing."""
        if num_inference_steps is None or self.timestep_spacing == "linspace":
            return super().set_timesteps(num_inference_steps, *args, **kwargs)
        total = self.config.num_train_timesteps
        if self.timestep_spacing == "leading":
            ratio = total // (num_inference_steps + 1)
            timesteps = np.arange(num_inference_steps, 0, -1) * ratio + self.steps_offset
        else:
            timesteps = np.linspace(total, 0, num_inference_steps, endpoint=False).round().astype(int) - 1
        super().set_timesteps(None, *args, timesteps=timesteps.tolist(), **kwargs)
        return None


@cache
def solver_class(class_name: str) -> type:
    """The class here for a Diffusers class, made on the spot where `Listed` is all it needs."""
    here = globals().get(class_name)
    if here is not None:
        return here
    return type(class_name, (Listed, getattr(diffusers, class_name)), {"__module__": __name__})


def terminal_betas(betas: Tensor) -> list[float]:
    """Betas of a zero-terminal-SNR schedule whose last ᾱ is 2⁻²⁴ instead of 0.

    At ᾱ = 0 the noise level σ = √((1−ᾱ)/ᾱ) is infinite; 2⁻²⁴ is what Diffusers puts there in the
    schedulers that know `rescale_betas_zero_snr`. Given as `trained_betas`, all schedulers have it alike.

    Args:
        betas: Rescaled β, (T,), the last one 1 (Lin et al. 2023, arXiv:2305.08891, algorithm 1).
    """
    before_last = (1 - betas[:-1]).cumprod(0)[-1]
    last = 1 - 2.0**-24 / before_last
    return [*betas[:-1].tolist(), float(last)]
