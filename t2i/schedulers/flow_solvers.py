"""Diffusers' schedulers on the straight paths of rectified flow, kept on even noise levels.

As in `solvers`, each class has the name of the Diffusers class that it stands for, and torch is needed.

What is repaired, all found in Diffusers 0.42.1:

- The flow-matching classes list s = 1 … 0.001 evenly and then 0: the last network call moves the picture by a
  thousandth. Here they list s = 1, 1 − 1/n, …, 1/n, and then 0.
- With a shift other than 1 they shift the last level twice.
- The DPM-Solver family and UniPC tell the network the integer part of 1000 s.
- The flow-matching classes lack `init_noise_sigma` and `scale_model_input`, which pipelines of UNets ask for.
"""
# Needs torch, as `solvers`: nothing imports it at module level.
# ruff: noqa: TID253

from __future__ import annotations

from functools import cache
from typing import Any

import diffusers
from torch import Tensor

from t2i.schedulers.solvers import Listed


class Straight(Listed):
    """Mixin before a Diffusers scheduler: timesteps are 1000 s of the listed levels s, not rounded."""

    init_noise_sigma = 1.0
    sigmas: Tensor
    config: Any

    def set_timesteps(self, num_inference_steps: int | None = None, *args: Any, **kwargs: Any) -> None:
        """As in Diffusers, and the network is told the listed levels themselves."""
        super().set_timesteps(num_inference_steps, *args, **kwargs)
        device = self.timesteps.device
        self.timesteps = (self.sigmas[:-1] * self.config.num_train_timesteps).to(device)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The latents as they are: (1−s) x_0 + s ε is what the network knows."""
        return sample


class Even(Straight):
    """Mixin before a flow-matching class: n even steps from s = 1, before the shift."""

    sigma_max: float
    sigma_min: float

    def set_timesteps(self, num_inference_steps: int | None = None, *args: Any, **kwargs: Any) -> None:
        """As in Diffusers, between 1 and 1/n."""
        if num_inference_steps is not None:
            self.sigma_max, self.sigma_min = 1.0, 1 / num_inference_steps
        super().set_timesteps(num_inference_steps, *args, **kwargs)


class FlowMatchEulerDiscreteScheduler(Even, diffusers.FlowMatchEulerDiscreteScheduler):
    """Euler's method on a straight path, which is also DDIM's step there.

    DDIM mixes x̂_0 = x − s v and ε̂ = x + (1−s) v anew: (1−s') x̂_0 + s' ε̂ = x + (s'−s) v.
    """


class FlowMatchHeunDiscreteScheduler(Even, diffusers.FlowMatchHeunDiscreteScheduler):
    """Heun: two network calls per step, one for the last."""

    def calls(self, steps: int) -> int:
        return 2 * steps - 1


@cache
def flow_solver(class_name: str) -> type:
    """The class here for a Diffusers class, made on the spot where `Straight` is all it needs."""
    here = globals().get(class_name)
    if here is not None:
        return here
    return type(class_name, (Straight, getattr(diffusers, class_name)), {"__module__": __name__})
