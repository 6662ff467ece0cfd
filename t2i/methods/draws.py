"""The random numbers of a training step, the same however many processes share its batch."""

from __future__ import annotations

import torch
from torch import Tensor

from t2i import diffusion
from t2i.config import TrainConfig


class Draws:
    """Numbers for the rows of a batch, of which this process has every `size`-th, from the `rank`-th on.

    What is drawn is always meant for the whole batch, and each process keeps the numbers of its own rows. So
    two processes learn to rounding what one learns from the same batch.

    Args:
        generator: On the CPU, equal in all processes.
        rank: Of this process.
        size: Processes that share the batch.
    """

    def __init__(self, generator: torch.Generator, rank: int = 0, size: int = 1) -> None:
        self.generator, self.rank, self.size = generator, rank, size

    @classmethod
    def seeded(cls, seed: int) -> Draws:
        """Those of one process that has the batch for itself."""
        return cls(torch.Generator().manual_seed(seed))

    def normal(self, count: int, *shape: int) -> Tensor:
        """From N(0, 1), (count, *shape); `count` is of this process's rows, here and below."""
        return self._own(torch.randn(count * self.size, *shape, generator=self.generator))

    def uniform(self, count: int) -> Tensor:
        """From 0 up to 1, (count,)."""
        return self._own(torch.rand(count * self.size, generator=self.generator))

    def integers(self, high: int, count: int) -> Tensor:
        """From 0 up to but not `high`, int64 (count,)."""
        return self._own(torch.randint(high, (count * self.size,), generator=self.generator))

    def timesteps(self, config: TrainConfig, alphas_cumprod: Tensor, count: int) -> Tensor:
        """Of the noise of `count` pictures, int64 (count,), as --timestep-sampling says."""
        if config.timestep_sampling == "uniform":
            return self.integers(len(alphas_cumprod), count)
        return self._own(diffusion.logit_normal_timesteps(
            count * self.size, alphas_cumprod, config.logit_mean, config.logit_std, self.generator
        ))  # fmt: skip

    def seed(self) -> int:
        """For a stream of its own inside a network: another one in each process."""
        return int(torch.randint(2**31 - 1, (), generator=self.generator)) + self.rank

    def _own(self, values: Tensor) -> Tensor:
        return values[self.rank :: self.size]
