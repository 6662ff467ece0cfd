"""Muon for the matrices inside a network, AdamW for everything else.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks": the momentum of a weight
matrix is replaced by the nearest orthogonal matrix, so that no direction of it learns much faster than
another. How long such a step should be beside one of AdamW is from Liu et al. 2025, arXiv:2502.16982,
section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
AT_THE_EDGE = ("embedding", "conv_in", "conv_out")
"""Parts of the names of matrices that are not inside: tables of words, first and last layers."""


class MuonWithAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` on hidden weights, `torch.optim.AdamW` on all others, with one learning rate.

    A convolution's weight (out, in, height, width) is the matrix (out, in · height · width). A step of Muon
    is scaled to the mean size of one of AdamW, so that rate and weight decay mean the same for both.

    Args:
        parameters: Name → weight. Each keeps its memory layout while the optimizer lives.
        weight_decay: Of all that are not vectors.
        betas: Of AdamW.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], weight_decay: float, betas: tuple[float, float]
    ) -> None:
        hidden = [value for name, value in parameters.items() if is_hidden(name, value)]
        outer = [value for name, value in parameters.items() if not is_hidden(name, value)]
        groups = [
            {"params": hidden, "weight_decay": weight_decay},
            {"params": [value for value in outer if value.ndim > 1], "weight_decay": weight_decay},
            {"params": [value for value in outer if value.ndim <= 1], "weight_decay": 0.0},
        ]
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})
        self.hidden = hidden
        self.matrices = [nn.Parameter(as_matrix(value.detach())) for value in hidden]
        for weight, matrix in zip(hidden, self.matrices, strict=True):
            if weight.data_ptr() != matrix.data_ptr():
                raise ValueError(f"a weight of shape {tuple(weight.shape)} is no matrix in memory")
        self.muon = torch.optim.Muon(
            self.matrices, weight_decay=weight_decay, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"
        )
        self.adamw = torch.optim.AdamW(groups[1:], betas=betas, fused=True)
        self.adamw.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:
        """One step of both; weights without a gradient stay."""
        muon, *adamw = self.param_groups
        self.muon.param_groups[0]["lr"] = muon["lr"]
        for group, mine in zip(self.adamw.param_groups, adamw, strict=True):
            group["lr"] = mine["lr"]
        for weight, matrix in zip(self.hidden, self.matrices, strict=True):
            matrix.grad = None if weight.grad is None else as_matrix(weight.grad, like=weight)
            state = self.state[weight]
            if "momentum_buffer" not in state:
                state.clear()  # what another optimizer has kept
            self.muon.state[matrix] = state  # one and the same, whoever saves or restores it
        self.muon.step()
        self.adamw.step()
        for matrix in self.matrices:
            matrix.grad = None


def is_hidden(name: str, value: Tensor) -> bool:
    """Whether Muon is for this weight: a matrix between two layers of features."""
    return value.ndim > 1 and not any(part in name for part in AT_THE_EDGE)


def as_matrix(value: Tensor, like: Tensor | None = None) -> Tensor:
    """A weight (out, in, …) as (out, everything else), in the order of its memory: a view of it.

    Args:
        value: The weight, or its gradient.
        like: The weight whose memory order decides; default: `value`. What is in another order is copied.
    """
    like = value if like is None else like
    order = sorted(range(1, value.ndim), key=lambda axis: -like.stride(axis))
    return value.permute(0, *order).reshape(len(value), -1)
