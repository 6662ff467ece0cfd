"""Muon on the matrices inside a network, AdamW on the rest: each as torch's own, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from t2i.training.muon import MuonWithAdamW, as_matrix, is_hidden

RATE, DECAY, BETAS = 1e-2, 0.1, (0.9, 0.99)


class Small(nn.Module):
    """A word table, a first and a last layer, and two layers between them."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embedding = nn.Embedding(7, 6)
        self.conv_in = nn.Conv2d(2, 6, 3)
        self.middle = nn.Conv2d(6, 8, 3, padding=1)
        self.linear = nn.Linear(8, 4)
        self.conv_out = nn.Conv2d(4, 2, 1)

    def forward(self, pixels: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        features = self.conv_in(pixels) + self.word_embedding(words)[:, :, None, None]
        features = self.linear(torch.relu(self.middle(features)).movedim(1, -1)).movedim(-1, 1)
        return self.conv_out(features)


def make(layout: torch.memory_format = torch.channels_last) -> tuple[Small, MuonWithAdamW]:
    torch.manual_seed(0)
    model = Small().to(memory_format=layout)  # type: ignore[call-overload]
    return model, MuonWithAdamW(dict(model.named_parameters()), DECAY, BETAS)


def train(model: Small, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        random = torch.Generator().manual_seed(step)
        pixels = torch.randn(5, 2, 6, 6, generator=random)
        words = torch.randint(7, (5,), generator=random)
        for group in optimizer.param_groups:
            group["lr"] = RATE
        optimizer.zero_grad(set_to_none=True)
        model(pixels, words).pow(2).mean().backward()
        optimizer.step()


def test_only_matrices_between_layers_are_hidden() -> None:
    model, _ = make()
    hidden = {name for name, value in model.named_parameters() if is_hidden(name, value)}
    assert hidden == {"middle.weight", "linear.weight"}


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_it_is_torchs_muon_on_matrices_and_torchs_adamw_on_the_rest(layout: torch.memory_format) -> None:
    model, optimizer = make(layout)
    matrices = [
        nn.Parameter(w.detach().flatten(1).clone()) for w in (model.middle.weight, model.linear.weight)
    ]
    muon = torch.optim.Muon(
        matrices, lr=RATE, weight_decay=DECAY, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    table, bias = (nn.Parameter(w.detach().clone()) for w in (model.word_embedding.weight, model.linear.bias))
    adamw = torch.optim.AdamW(
        [{"params": [table], "weight_decay": DECAY}, {"params": [bias], "weight_decay": 0.0}],
        lr=RATE, betas=BETAS,
    )  # fmt: skip
    for step in range(3):
        train(model, optimizer, range(step, step + 1))
        for matrix, weight in zip(matrices, (model.middle.weight, model.linear.weight), strict=True):
            matrix.grad = weight.grad.flatten(1).clone()  # type: ignore[union-attr]
        table.grad, bias.grad = model.word_embedding.weight.grad, model.linear.bias.grad
        muon.step()
        adamw.step()
    # The order of a matrix's columns changes roundings (bfloat16) and nothing else.
    torch.testing.assert_close(model.middle.weight.flatten(1), matrices[0], rtol=0, atol=2e-3 * RATE * 10)
    torch.testing.assert_close(model.linear.weight, matrices[1], rtol=0, atol=2e-3 * RATE * 10)
    torch.testing.assert_close(model.word_embedding.weight, table)
    torch.testing.assert_close(model.linear.bias, bias)


def test_a_step_moves_a_matrix_in_all_directions_alike() -> None:
    model, optimizer = make()
    before = as_matrix(model.middle.weight.detach()).clone()
    train(model, optimizer, range(1))
    moved = as_matrix(model.middle.weight.detach()) - before * (1 - RATE * DECAY)
    lengths = torch.linalg.svdvals(moved) / (RATE * 0.2 * max(moved.shape) ** 0.5)  # arXiv:2502.16982, (4)
    assert lengths.min() > 0.5 and lengths.max() < 1.4  # Newton-Schulz stops near 1, on purpose


def test_its_state_is_kept_and_put_back_to_the_bit() -> None:
    from t2i.training.optimising import optimizer_tensors, restore_optimizer

    model, optimizer = make()
    train(model, optimizer, range(2))
    kept = {
        name: value.clone()
        for name, value in optimizer_tensors(optimizer, dict(model.named_parameters())).items()
    }
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    assert {name.split(".")[0] for name in kept} == {"momentum_buffer", "step", "exp_avg", "exp_avg_sq"}
    train(model, optimizer, range(2, 4))
    again, other = make()
    again.load_state_dict(weights)
    restore_optimizer(other, dict(again.named_parameters()), kept)
    train(again, other, range(2, 4))
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_state_of_another_optimizer_is_dropped() -> None:
    model, optimizer = make()
    weight = model.middle.weight
    optimizer.state[weight] = {"exp_avg": torch.ones_like(weight), "step": torch.tensor(3.0)}
    train(model, optimizer, range(1))
    assert set(optimizer.state[weight]) == {"momentum_buffer"}


def test_a_weight_that_is_no_matrix_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="no matrix"):
        MuonWithAdamW({"weight": nn.Parameter(torch.zeros(2, 3, 4, 5).movedim(1, 0))}, DECAY, BETAS)
