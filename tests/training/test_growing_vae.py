"""A deeper VAE begins with what a trained one knows, and cuttings are pieces of the pictures."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from small_run import small_config

from t2i.errors import UsageError
from t2i.methods import METHODS, TrainingData
from t2i.methods.draws import Draws
from t2i.methods.vae import build_vae, random_crops, take_over

CPU = torch.device("cpu")
NOWHERE = Path("unused")


def vae(channels: tuple[int, ...], seed: int, latents: int = 4) -> AutoencoderKL:
    torch.manual_seed(seed)
    return build_vae(small_config(NOWHERE, NOWHERE, vae_channels=channels, latent_channels=latents))


def test_the_levels_next_to_the_pixels_are_taken_over_on_both_sides() -> None:
    given, grown = vae((4, 8, 16), 1), vae((4, 8, 16, 20), 2)
    fresh = copy.deepcopy(grown)
    taken, all_of_them = take_over(grown, given)
    same = {
        name for name, value in grown.state_dict().items() if torch.equal(value, fresh.state_dict()[name])
    }
    assert taken < all_of_them
    pixels = torch.rand(2, 3, 16, 16)
    # Level by level the encoders agree, up to where the shallow one ends.
    ours, theirs = grown.encoder.conv_in(pixels), given.encoder.conv_in(pixels)
    for level in range(2):
        ours, theirs = grown.encoder.down_blocks[level](ours), given.encoder.down_blocks[level](theirs)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    # The decoder's last two levels and what follows them agree as well, though their numbers do not.
    inner = torch.rand(2, 16, 4, 4)
    ours, theirs = grown.decoder.up_blocks[1].upsamplers[0](inner), inner
    theirs = given.decoder.up_blocks[0].upsamplers[0](inner)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    for level in (1, 2):
        ours, theirs = grown.decoder.up_blocks[level + 1](ours), given.decoder.up_blocks[level](theirs)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert {"encoder.down_blocks.3.resnets.0.conv1.weight", "encoder.conv_out.weight"} <= same


def test_growing_is_for_a_vae_that_is_there(data_of: TrainingData) -> None:
    small = vae((4, 8), 3)
    config = small_config(
        NOWHERE, NOWHERE, model="somewhere", grow_vae=True, vae_channels=(4, 8, 16), latent_channels=6
    )
    method = METHODS["vae"](config, data_of, {"vae": small}, CPU)
    assert method.vae.config["block_out_channels"] == (4, 8, 16)
    assert method.vae.config["latent_channels"] == 6
    assert torch.equal(method.vae.encoder.conv_in.weight, small.encoder.conv_in.weight)
    (notice,) = method.notices()
    assert "taken over" in notice
    for changes in ({"model": None}, {"model": "m", "freeze_encoder": True}):
        with pytest.raises(UsageError, match="grow-vae"):
            small_config(NOWHERE, NOWHERE, grow_vae=True, **changes)


def test_cuttings_are_pieces_of_their_own_pictures_and_reach_every_place() -> None:
    pixels = torch.arange(3 * 3 * 6 * 5, dtype=torch.float32).view(3, 3, 6, 5)
    draws = Draws.seeded(0)
    places = set()
    for _ in range(200):
        cut = random_crops(pixels, 4, draws)
        assert cut.shape == (3, 3, 4, 4)
        for picture, whole in zip(cut, pixels, strict=True):
            top, left = divmod(int(picture[0, 0, 0] - whole[0, 0, 0]), 5)
            assert torch.equal(picture, whole[:, top : top + 4, left : left + 4])
            places.add((top, left))
    assert places == {(top, left) for top in range(3) for left in range(2)}


def test_the_loss_sees_cuttings_only(data_of: TrainingData) -> None:
    config = small_config(NOWHERE, NOWHERE, vae_crop=16)
    method = METHODS["vae"](config, data_of, {}, CPU)
    seen = []
    method.vae.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape))
    method.loss(np.arange(2), Draws.seeded(0))
    assert [tuple(shape) for shape in seen] == [(2, 3, 16, 16)]
    for side in (12, 40):  # the small run halves three times, pictures have 32 pixels
        with pytest.raises(UsageError, match="vae-crop"):
            small_config(NOWHERE, NOWHERE, vae_crop=side, vae_channels=(4, 4, 4, 4))


@pytest.fixture(scope="module")
def data_of(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    return TrainingData(pixels, ["a"] * 4, tmp_path_factory.mktemp("cache"), "key")
