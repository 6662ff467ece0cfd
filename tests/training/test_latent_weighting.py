"""How latent channels count in the loss of a UNet: by what the decoder makes of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from bases import CPU, shapes_data
from small_run import small_config
from torch import Tensor, nn

from t2i import diffusion
from t2i.config import TrainConfig
from t2i.errors import UsageError
from t2i.methods import METHODS
from t2i.methods.draws import Draws
from t2i.methods.latent_weighting import channel_weights
from t2i.methods.unet import build_unet
from t2i.training.resuming import check_resumable
from t2i.weights import load_parts

GAINS = (4.0, 1.0, 0.25, 0.75)


class LinearDecoder(nn.Module):
    """Draws a grey picture: the sum of the channels, each times its gain."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.tensor(GAINS))
        self.config = SimpleNamespace(scaling_factor=factor)

    def decode(self, latents: Tensor) -> Any:
        grey = torch.einsum("bchw,c->bhw", latents, self.gains)[:, None]
        return SimpleNamespace(sample=grey.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("factor", [1.0, 0.18])
def test_a_channel_counts_as_much_as_it_moves_the_picture(factor: float) -> None:
    latents = np.random.default_rng(0).standard_normal((70, 4, 8, 8)).astype(np.float16)
    found = channel_weights(LinearDecoder(factor), latents)  # type: ignore[arg-type]
    wanted = np.array(GAINS) / np.mean(GAINS)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0.03)  # each has noise of its own
    assert found.mean().item() == pytest.approx(1, abs=1e-3)


def test_the_loss_is_the_weighted_formula(shapes: Path, tiny_pocket: Path, tmp_path: Path) -> None:
    data = shapes_data(shapes, tmp_path, 32)
    start = load_parts(tiny_pocket, only=("vae", "text_encoder", "tokenizer"))
    config = small_config(
        Path("unused"), Path("unused"), method="unet", caption_dropout=0.0, snr_gamma=0.0,
        latent_weighting="decoder",
    )  # fmt: skip
    torch.manual_seed(0)
    small = build_unet(config, 4, 8, start["text_encoder"].config.hidden_size)
    method: Any = METHODS["unet"](config, data, start | {"unet": small}, CPU)
    rows = np.arange(4)
    loss, figures = method.loss(rows, Draws.seeded(5))

    again = torch.Generator().manual_seed(5)
    original = torch.from_numpy(method.latents[rows]).float()
    noise = torch.randn(original.shape, generator=again)
    timesteps = torch.randint(1000, (4,), generator=again)
    alpha_bar = diffusion.alphas_cumprod(diffusion.scaled_linear_betas(), True)[timesteps][
        :, None, None, None
    ]
    words = method.text_encoder(method.tokens[:4]).last_hidden_state
    noisy = alpha_bar.sqrt() * original + (1 - alpha_bar).sqrt() * noise
    with torch.no_grad():
        output = method.unet(noisy, timesteps, words).sample
    squares = (output - (alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * original)) ** 2
    counts = channel_weights(method.vae, method.latents)
    assert counts.max() > 1.05 * counts.min()
    assert loss.item() == pytest.approx((squares.mean((0, 2, 3)) * counts).mean().item(), rel=1e-4)
    assert figures["mse"] == pytest.approx(squares.mean().item(), rel=1e-4)  # comparable with other runs
    assert "latent channels count" in method.notices()[-1]


def test_a_run_that_goes_on_with_other_weights_says_so() -> None:
    plain = TrainConfig(dataset="d", method="unet")
    weighted = plain.replace(latent_weighting="decoder")
    older = {name: value for name, value in plain.to_dict().items() if name != "latent_weighting"}

    def changed(before: dict[str, Any], now: TrainConfig) -> list[str]:
        return check_resumable(Path("c"), {"stage": "unet", "config": before}, now, "unet")

    assert changed(plain.to_dict(), weighted) == changed(older, weighted) == ["latent_weighting"]
    assert changed(older, plain) == changed(plain.to_dict(), plain) == []
    with pytest.raises(UsageError, match="--latent-weighting is not for --method vae"):
        TrainConfig(dataset="d", method="vae", latent_weighting="decoder")
