"""Each method learns what it names and nothing else, and its parts do what the next stage relies on."""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from small_run import COLOURS, SHAPES, small_config

from t2i import weights
from t2i.dataset import dataset_key, load_pixels, read_folder, to_pixels
from t2i.errors import ModelError, StorageError
from t2i.methods import METHODS, TrainingData
from t2i.methods.clip import build_tokenizer, cut_captions, tokenize, words_of
from t2i.methods.compilation import compiled, double
from t2i.methods.draws import Draws
from t2i.methods.unet import build_unet, cached_latents
from t2i.methods.vae import standardise_latents
from t2i.weights.clip_model import Clip

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    folder, cache = read_folder(shapes), tmp_path_factory.mktemp("cache")
    key = dataset_key(folder, 32, cache)
    return TrainingData(load_pixels(folder, 32, cache, key), folder.captions(), cache, key)


def make(name: str, data: TrainingData, start: dict[str, Any] | None = None, **changes: Any) -> Any:
    torch.manual_seed(0)
    return METHODS[name](small_config(Path("unused"), Path("unused"), **changes), data, start or {}, CPU)


@pytest.fixture(scope="module")
def start(data: TrainingData) -> dict[str, Any]:
    return make("vae", data).parts() | make("clip", data).parts()


def one_step(method: Any, rate: float = 1e-2) -> float:
    optimizer = torch.optim.AdamW(method.trainable().parameters(), lr=rate)
    loss, _ = method.loss(np.arange(4), Draws.seeded(1))
    loss.backward()
    optimizer.step()
    return loss.item()


def snapshot(modules: dict[str, torch.nn.Module]) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{key}": value.clone()
        for part, module in modules.items()
        for key, value in module.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "changes", "learns"),
    [
        ("vae", {}, ("vae",)),
        ("clip", {}, ("clip",)),
        ("unet", {}, ("unet",)),
        ("unet", {"train_text_encoder": True}, ("unet", "text_encoder")),
    ],
)
def test_one_step_changes_exactly_the_named_parts(
    name: str, changes: dict[str, Any], learns: tuple[str, ...], data: TrainingData, start: dict[str, Any]
) -> None:
    method = make(name, data, dict(start) if name == "unet" else {}, **changes)
    known = ("vae", "clip", "text_encoder", "unet")
    modules = {part: getattr(method, part) for part in known if hasattr(method, part)}
    before = snapshot(modules)
    one_step(method)
    after = snapshot(modules)
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == set(learns)
    assert set(dict(method.trainable())) == set(learns)


def test_a_frozen_encoder_keeps_the_latents(data: TrainingData, start: dict[str, Any]) -> None:
    method = make("vae", data, {"vae": copy.deepcopy(start["vae"])}, freeze_encoder=True)
    before = snapshot({"vae": method.vae})
    one_step(method)
    after = snapshot({"vae": method.parts()["vae"]})
    changed = {key.split(".")[1] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"decoder", "post_quant_conv"}


def test_random_choices_come_from_the_generator_alone(data: TrainingData, start: dict[str, Any]) -> None:
    method = make("unet", data, dict(start))

    def loss(seed: int) -> float:
        return method.loss(np.arange(4), Draws.seeded(seed))[0].item()

    first = loss(5)
    torch.randn(3)  # the global stream moves on
    assert loss(5) == first != loss(6)


def test_standardised_latents_have_mean_0_and_deviation_1_and_the_same_pictures(data: TrainingData) -> None:
    vae = make("vae", data).vae.eval()
    pixels = to_pixels(data.pixels, range(24))

    @torch.no_grad()
    def rebuild() -> torch.Tensor:
        return vae.decode(vae.encode(pixels).latent_dist.mode()).sample

    with torch.no_grad():
        logvar = vae.encode(pixels).latent_dist.logvar
        mean = vae.encode(pixels).latent_dist.mean
    before = rebuild()
    standardise_latents(vae, data.pixels, CPU)
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
    torch.testing.assert_close(posterior.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    spread = posterior.mean.var((0, 2, 3)) + posterior.var.mean((0, 2, 3))  # of what is drawn from it
    torch.testing.assert_close(spread, torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(rebuild(), before, atol=1e-4, rtol=0)
    was = mean.var((0, 2, 3), keepdim=True) + logvar.exp().mean((0, 2, 3), keepdim=True)
    torch.testing.assert_close(posterior.logvar, logvar - was.log(), atol=1e-4, rtol=1e-4)
    assert vae.config.scaling_factor == 1.0


def test_a_channel_that_says_nothing_is_not_made_loud(data: TrainingData) -> None:
    vae = make("vae", data).vae
    with torch.no_grad():  # as the KL term leaves it: a mean near 0, a deviation near 1
        vae.quant_conv.weight[3] *= 1e-3
        vae.quant_conv.weight[7], vae.quant_conv.bias[7] = 0, 0
        standardise_latents(vae, data.pixels, CPU)
        posterior = vae.encode(to_pixels(data.pixels, np.arange(24))).latent_dist
    assert posterior.mean[:, 3].std() < 0.01 and posterior.std[:, 3].max() < 1.01


def test_every_training_word_is_one_token_and_marks_are_in_place(data: TrainingData) -> None:
    tokenizer = build_tokenizer(data.captions, 4096, 12)
    for word in words_of(data.captions):
        ids = tokenizer(word).input_ids
        assert len(ids) == 3 and (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert len(tokenizer("zzyzx").input_ids) > 3  # an unknown word falls into letters, losing nothing
    assert "zzyzx" in tokenizer.decode(tokenizer("zzyzx").input_ids)
    ids = tokenize(tokenizer, ["a red circle", ""])
    assert ids.shape == (2, 12) and ids[1, 1:].unique().tolist() == [tokenizer.eos_token_id]
    assert words_of(["A red, red circle."]) == ["a", "circle", "red"]


def test_same_captions_are_no_wrong_answers(data: TrainingData) -> None:
    """With every caption the same, nothing can be told apart and nothing is punished."""
    same = TrainingData(data.pixels, ["a thing"] * 24, data.cache, data.key)
    loss, _ = make("clip", same).loss(np.arange(4), Draws.seeded(0))
    assert loss.item() == 0


def learn(method: Any, steps: int, rate: float, batch: int = 12) -> list[float]:
    optimizer = torch.optim.AdamW(method.trainable().parameters(), lr=rate)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        rows = np.random.default_rng(step).permutation(24)[:batch]
        loss, _ = method.loss(rows, Draws.seeded(step))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_autoencoder_learns_to_rebuild(data: TrainingData) -> None:
    losses = learn(make("vae", data), 40, 3e-3)
    assert np.mean(losses[-5:]) < 0.4 * losses[0]


def test_a_trained_clip_can_be_measured_with(data: TrainingData, tmp_path: Path) -> None:
    method = make("clip", data)
    weights.save_parts(tmp_path, method.parts())
    clip = Clip(tmp_path / "clip", "mine", torch.device("cpu"))
    assert clip.side == 32
    rows = np.arange(4)
    seen = clip(torch.from_numpy(np.array(data.pixels[rows])))
    read = clip.embed_texts([data.captions[row] for row in rows])
    scale = method.clip.logit_scale.exp().detach()
    with torch.no_grad():
        torch.testing.assert_close(scale * seen @ read.T, method.similarity(rows), atol=1e-3, rtol=1e-3)


def test_clip_finds_the_picture_of_a_caption(data: TrainingData) -> None:
    method = make("clip", data)
    learn(method, 60, 3e-3)
    with torch.no_grad():
        logits = method.similarity(np.arange(12))  # the twelve different captions
    assert (logits.argmax(1) == torch.arange(12)).float().mean() >= 0.75


def test_the_unet_overfits_one_picture(data: TrainingData, start: dict[str, Any]) -> None:
    one = TrainingData(np.repeat(data.pixels[:1], 24, axis=0), [data.captions[0]] * 24, data.cache, "one")
    losses = learn(make("unet", one, dict(start), unet_channels=(16, 32)), 80, 5e-3)
    assert np.mean(losses[-10:]) < 0.35 * np.mean(losses[:3])


def test_latents_are_cached_by_pictures_and_weights(data: TrainingData, start: dict[str, Any]) -> None:
    first = cached_latents(start["vae"], data, CPU)
    assert first.shape == (24, 4, 16, 16) and first.dtype == np.float16
    files = set(data.cache.glob("latents-*"))
    polished = copy.deepcopy(start["vae"])
    torch.nn.init.zeros_(polished.decoder.conv_out.weight)  # what decodes changes no latents
    cached_latents(polished, data, CPU)
    assert set(data.cache.glob("latents-*")) == files
    cached_latents(make("vae", data, seed=1).parts()["vae"], TrainingData(
        data.pixels, data.captions, data.cache, "other"), CPU)  # fmt: skip
    assert len(set(data.cache.glob("latents-*"))) == len(files) + 1


def test_cached_latents_are_the_vae_s(data: TrainingData, start: dict[str, Any]) -> None:
    with torch.no_grad():
        wanted = start["vae"].encode(to_pixels(data.pixels, range(24))).latent_dist.mode().half()
    assert np.array_equal(cached_latents(start["vae"], data, CPU), wanted.numpy())


def test_latents_encoded_in_bf16_are_nearly_the_same_and_kept_apart(
    data: TrainingData, start: dict[str, Any]
) -> None:
    exact = cached_latents(start["vae"], data, CPU).astype(np.float32)
    files = set(data.cache.glob("latents-*"))
    rounded = cached_latents(copy.deepcopy(start["vae"]), data, CPU, bf16=True).astype(np.float32)
    assert len(set(data.cache.glob("latents-*")) - files) == 1
    assert 0 < np.abs(rounded - exact).mean() < 0.02 * exact.std()


def test_latents_that_do_not_fit_the_disk_are_refused(
    data: TrainingData, start: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    new = TrainingData(data.pixels, data.captions, data.cache, "not cached")
    with pytest.raises(StorageError, match=f"needs {128 + 24 * 4 * 16 * 16 * 2:,} bytes"):
        cached_latents(start["vae"], new, CPU)


def test_captions_that_are_cut_are_counted(data: TrainingData) -> None:
    captions = ["a red circle", "a red red red circle", "a red red circle", "", "a " * 9, "a " * 9]
    tokenizer = build_tokenizer([*data.captions] * 2, 4096, 6)
    lengths = [len(tokenizer(caption, truncation=False).input_ids) for caption in captions]
    assert lengths == [5, 7, 6, 2, 11, 11]
    tokens = tokenize(tokenizer, captions)
    told = cut_captions(tokenizer, captions, tokens)
    assert len(told) == 1 and told[0].startswith("3 of 6 captions are longer than 6 tokens and were cut")
    assert "the longest has 11" in told[0] and "--max-tokens 11" in told[0]
    assert cut_captions(tokenizer, captions[:1], tokens[:1]) == []
    assert torch.equal(tokenize(tokenizer, captions), tokens), "counting leaves the tokenizer as it was"


@pytest.mark.parametrize("missing", ["vae", "text_encoder", "tokenizer"])
def test_the_unet_stage_says_what_it_lacks(data: TrainingData, start: dict[str, Any], missing: str) -> None:
    with pytest.raises(ModelError, match=f"needs a trained {missing}"):
        make("unet", data, {part: value for part, value in start.items() if part != missing})


def test_dataset_is_what_the_captions_say(shapes: Path) -> None:
    captions: Callable[[], list[str]] = read_folder(shapes).captions
    assert sorted(set(captions())) == sorted(f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES)


def test_doubling_is_nearest_neighbour_interpolation() -> None:
    values = torch.randn(2, 3, 5, 4)
    assert torch.equal(
        double(values), torch.nn.functional.interpolate(values, scale_factor=2, mode="nearest")
    )


def assert_compiled_has_the_same_gradients(network: torch.nn.Module, *inputs: torch.Tensor) -> None:
    """In bfloat16, where a backward of all zeros went unnoticed: the loss is right and nothing learns."""

    def gradients(call: Callable[..., Any]) -> dict[str, torch.Tensor]:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            output = call(*inputs)
        getattr(output, "sample", output).float().square().mean().backward()
        return {name: value.grad.clone() for name, value in network.named_parameters()}

    plain = gradients(network)
    fast = gradients(compiled(network))
    largest = max(value.norm() for value in plain.values())
    for name, value in plain.items():
        assert (fast[name] - value).norm() < 0.1 * value.norm() + 0.01 * largest, name


@pytest.mark.slow
def test_a_compiled_unet_has_the_gradients_of_the_plain_one() -> None:
    torch.manual_seed(0)
    config = small_config(Path("unused"), Path("unused"), unet_channels=(16, 32))
    unet = build_unet(config, 4, 8, 16).train()
    inputs = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.randn(2, 6, 16)
    assert_compiled_has_the_same_gradients(unet, *inputs)


@pytest.mark.slow
def test_a_compiled_decoder_has_the_gradients_of_the_plain_one() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, norm_num_groups=4,
        mid_block_add_attention=False,
    )  # fmt: skip
    assert_compiled_has_the_same_gradients(vae.decoder.train(), torch.randn(2, 4, 8, 8))
