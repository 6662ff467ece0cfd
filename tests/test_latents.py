"""Noise from seeds, pixels and latents, and numbers that are not finite."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import make_vae

from t2i.errors import ModelError
from t2i.latents import (
    decode,
    decode_each,
    decode_finite,
    encode,
    initial_noise,
    is_flat,
    latent_size,
    spatial_factor,
    to_uint8,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_noise_equals_what_diffusers_draws_from_cpu_generators(dtype):
    from diffusers.utils.torch_utils import randn_tensor

    seeds = [0, 7, 2**62]
    noise, generators = initial_noise(seeds, 4, 8, 6, dtype)
    theirs = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    assert torch.equal(noise, randn_tensor((3, 4, 8, 6), generator=theirs, dtype=dtype))
    assert all(torch.equal(a.get_state(), b.get_state()) for a, b in zip(generators, theirs, strict=True))


def test_noise_of_a_seed_does_not_depend_on_the_batch():
    batch, _ = initial_noise([1, 2, 3], 4, 8, 8)
    alone, _ = initial_noise([2], 4, 8, 8)
    assert torch.equal(batch[1], alone[0])
    assert not torch.equal(batch[0], batch[1])


@pytest.mark.parametrize("levels", [3, 4])
def test_sizes(levels):
    vae = make_vae(1, levels=levels)
    assert spatial_factor(vae) == 2 ** (levels - 1)
    assert latent_size(vae, 64, 32) == (32 // 2 ** (levels - 1), 64 // 2 ** (levels - 1))


def test_decode_equals_diffusers():
    from diffusers.image_processor import VaeImageProcessor

    vae = make_vae(2, levels=3)
    latents = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        raw = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    assert torch.equal(decode(vae, latents), raw)
    theirs = VaeImageProcessor().postprocess(raw, output_type="pil")
    assert np.array_equal(to_uint8(raw), np.stack([np.asarray(image) for image in theirs]))


@pytest.mark.parametrize(
    "config",
    [
        {"scaling_factor": 0.5},
        {"scaling_factor": 1.5, "shift_factor": 0.3},
        {"scaling_factor": 0.5, "latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.0, 2.0, 0.5, 1.5]},
    ],
)
def test_encode_and_decode_undo_each_others_scale(config):
    vae = make_vae(3, levels=3, **config)
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        mean = vae.encode(pixels).latent_dist.mode()
        straight = vae.decode(mean, return_dict=False)[0]
    torch.testing.assert_close(decode(vae, encode(vae, pixels)), straight)
    sampled = encode(vae, pixels, torch.Generator().manual_seed(1))
    assert torch.equal(sampled, encode(vae, pixels, torch.Generator().manual_seed(1)))
    assert not torch.equal(sampled, encode(vae, pixels))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_never_become_a_picture(value):
    pixels = torch.zeros(2, 3, 4, 4)
    pixels[1, 2, 3, 0] = value
    with pytest.raises(ModelError, match="not finite"):
        to_uint8(pixels)
    latents = torch.zeros(1, 4, 4, 4)
    latents[0, 0, 0, 0] = value
    with pytest.raises(ModelError, match="not finite"):
        decode_finite(make_vae(4, levels=3), latents)


def test_bytes_are_clamped_and_rounded():
    pixels = torch.tensor([-5.0, -1.0, 0.0, 1.0, 5.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_uint8(pixels)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


class Decoding:
    """Stands in for `latents.decode`; `make` gets the number format and the latents."""

    def __init__(self, monkeypatch, make):
        self.make, self.seen = make, []
        monkeypatch.setattr("t2i.latents.decode", self)

    def __call__(self, vae, latents):
        self.seen.append((vae.dtype, len(latents)))
        return self.make(vae.dtype, latents).to(vae.dtype)


def picture(count=1):
    """Pixels that are not flat, (count, 3, 8, 8)."""
    return torch.linspace(-1, 1, 64).view(1, 1, 8, 8).expand(count, 3, 8, 8).clone()


def test_an_overflow_in_half_is_decoded_again_in_fp32(monkeypatch):
    vae = make_vae(5, levels=3).to(torch.float16)
    half, full = torch.float16, torch.float32
    decoding = Decoding(monkeypatch, lambda dtype, z: picture(len(z)) / (0 if dtype == half else 1))
    noise = torch.zeros(2, 4, 2, 2, dtype=half)
    both = decode_each(vae, noise)
    assert [(one.vae_dtype, one.retried, one.flat) for one in both] == [(full, "not finite", False)] * 2
    assert decoding.seen == [(half, 2), (full, 1), (full, 1)] and vae.dtype == half

    forced = make_vae(6, levels=3, force_upcast=True).to(half)
    decoding.seen.clear()
    assert decode_each(forced, noise)[0].retried == "" and decoding.seen == [(full, 2)]

    decoding.make = lambda dtype, z: torch.full((len(z), 3, 8, 8), float("nan"))
    assert all("even in fp32" in one.message for one in decode_each(vae, noise))
    with pytest.raises(ModelError, match="even in fp32"):
        decode_finite(vae, noise)
    assert vae.dtype == half


def test_one_picture_that_is_not_finite_leaves_the_others(monkeypatch):
    vae = make_vae(7, levels=3)
    latents = torch.randn(3, 4, 4, 4)
    whole = decode(vae, latents)
    latents[1, 2, 0, 0] = float("inf")
    first, lost, last = decode_each(vae, latents)
    assert isinstance(lost, ModelError) and "latents" in lost.message
    assert torch.equal(first.pixels, whole[0]) and torch.equal(last.pixels, whole[2])

    def torn(dtype, z):
        pixels = picture(len(z))
        pixels[-1, 0, 3, 3] = float("nan")
        return pixels

    decoding = Decoding(monkeypatch, torn)
    first, lost = decode_each(vae, torch.zeros(2, 4, 2, 2))
    assert torch.equal(first.pixels, picture()[0]) and "even in fp32" in lost.message
    assert decoding.seen == [(torch.float32, 2), (torch.float32, 1)]


def test_a_flat_picture_gets_one_more_try_where_fp32_is_another(monkeypatch):
    grey = torch.full((1, 3, 8, 8), 0.25)
    decoding = Decoding(monkeypatch, lambda dtype, z: grey if dtype != torch.float32 else picture())
    noise = torch.zeros(1, 4, 2, 2)
    vae = make_vae(8, levels=3)
    for dtype in (torch.float16, torch.bfloat16):
        (again,) = decode_each(vae.to(dtype), noise)
        assert (again.retried, again.flat, again.vae_dtype) == ("flat", False, torch.float32)
    decoding.make = lambda dtype, z: grey
    (again,) = decode_each(vae, noise)
    assert (again.retried, again.flat) == ("flat", True)
    decoding.seen.clear()
    (plain,) = decode_each(vae.to(torch.float32), noise)
    assert (plain.retried, plain.flat) == ("", True) and decoding.seen == [(torch.float32, 1)]


def test_what_is_flat():
    plain = torch.full((3, 64, 64), 0.3)
    noisy = plain + (torch.rand(3, 64, 64) - 0.5) / 255  # less than half a level up or down
    saturated = torch.randn(3, 64, 64).abs() * 1000 + 1  # all white once it is cut
    gradient = plain + torch.linspace(-0.05, 0.05, 64)
    thing = plain.clone()
    thing[2, 30:34, 30:34] = 1  # 16 pixels of another colour, in one channel alone
    shown = torch.stack([plain, noisy, saturated, gradient, thing])
    assert is_flat(shown).tolist() == [True, True, True, False, False]
    assert is_flat(shown.bfloat16()).tolist() == [True, True, True, False, False]
