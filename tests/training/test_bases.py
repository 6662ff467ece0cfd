"""Methods on a pretrained base: each learns what it names and nothing else, from the base's own noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import CPU, NEEDS, base_config, make, shapes_data
from test_methods import learn, one_step, snapshot

from t2i.errors import T2IError
from t2i.latents import decode
from t2i.methods import METHODS, SCRATCH, TrainingData, denoising
from t2i.methods.draws import Draws
from t2i.training.start import start_parts

STEPS_BY_HEART = 400


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return shapes_data(shapes, tmp_path_factory.mktemp("cache"), 32)


def networks_of(method: Any) -> dict[str, torch.nn.Module]:
    """Every network that a method holds."""
    if method.name == "classifier":
        return {"vae": method.vae, "classifier": method.classifier}
    found = {"unet": method.unet, "vae": method.vae, **method.text_encoders}
    return found | ({"controlnet": method.controlnet} if method.name == "controlnet" else {})


LEARNS: list[tuple[str, dict[str, Any], set[str], str]] = [
    ("lora", {}, {"unet"}, "lora_"),
    ("lora", {"train_text_encoder": True, "lora_dropout": 0.2}, {"unet", "text_encoder"}, "lora_"),
    ("lora", {"dora": True, "target_modules": ("conv1", "to_k")}, {"unet"}, "lora_"),
    ("full", {}, {"unet"}, ""),
    ("full", {"train_text_encoder": True, "gradient_checkpointing": True}, {"unet", "text_encoder"}, ""),
    ("dreambooth", {}, {"unet"}, ""),
    ("textual-inversion", {"num_vectors": 2}, {"text_encoder"}, "new"),
    ("controlnet", {}, {"controlnet"}, ""),
    ("classifier", {}, {"classifier"}, ""),
]


def test_the_table_below_has_every_method_on_a_base() -> None:
    assert {row[0] for row in LEARNS} == set(METHODS) - set(SCRATCH) == set(NEEDS)


@pytest.mark.parametrize(("name", "changes", "learns", "only"), LEARNS)
def test_one_step_changes_exactly_the_named_parts(
    name: str, changes: dict[str, Any], learns: set[str], only: str, data: TrainingData, tiny_pocket: Path
) -> None:
    method = make(name, tiny_pocket, data, resolution=32, **changes)
    modules = networks_of(method)
    before = snapshot(modules)
    for _ in range(2):  # an adapter whose second factor is zero gives the first no gradient
        one_step(method)
    after = snapshot(modules)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert {key.split(".")[0] for key in changed} == learns
    assert all(only in key for key in changed)


def test_a_random_choice_of_a_step_is_decided_by_its_generator(data: TrainingData, tiny_pocket: Path) -> None:
    """Dropout inside the adapters too, whatever was drawn before."""
    method = make("lora", tiny_pocket, data, resolution=32, lora_dropout=0.5, noise_offset=0.1)
    one_step(method)

    def loss(seed: int) -> float:
        return method.loss(np.arange(4), Draws.seeded(seed))[0].item()

    first = loss(5)
    torch.randn(3)
    assert loss(5) == first != loss(6)


def test_what_makes_learning_easier_is_no_part_of_the_validation_loss(
    data: TrainingData, tiny_pocket: Path
) -> None:
    plain = make("full", tiny_pocket, data, resolution=32)
    helped = make("dreambooth", tiny_pocket, data, resolution=32, noise_offset=0.5, input_perturbation=0.5)
    assert "prior_mse" in helped.loss(np.arange(4), Draws.seeded(1))[1]
    losses = []
    for method in (plain, helped):
        method.unet.eval()
        loss, figures = method.loss(np.arange(4), Draws.seeded(1))
        losses.append(loss.item())
    assert losses[0] == losses[1] and "prior_mse" not in figures


def test_only_steps_run_the_compiled_network(
    data: TrainingData, tiny_pocket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def counted(module: torch.nn.Module) -> Any:
        return lambda *values, **named: calls.append(len(values[0])) or module(*values, **named)

    monkeypatch.setattr(denoising, "compiled", counted)
    method = make("lora", tiny_pocket, data, resolution=32, compile=True)
    plain = make("lora", tiny_pocket, data, resolution=32)
    assert calls == [], "the base's sheet has shapes of its own"
    assert one_step(method) == one_step(plain) and calls == [4]
    assert torch.equal(method.draw(["a red circle"], [1]), plain.draw(["a red circle"], [1]))
    assert calls == [4]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes"), [("lora", {}), ("full", {"gradient_checkpointing": True})])
def test_a_compiled_step_learns_what_the_plain_one_learns(
    name: str, changes: dict[str, Any], data: TrainingData, tiny_pocket: Path
) -> None:
    """In bfloat16, where a backward of all zeros went unnoticed once."""

    def learned(**more: Any) -> dict[str, torch.Tensor]:
        method = make(name, tiny_pocket, data, resolution=32, **changes, **more)
        with torch.autocast("cpu", torch.bfloat16):
            method.loss(np.arange(4), Draws.seeded(1))[0].backward()
        learning = method.trainable().named_parameters()
        return {key: value.grad for key, value in learning if value.grad is not None}

    plain, fast = learned(), learned(compile=True)
    largest = max(value.norm() for value in plain.values())
    assert plain.keys() == fast.keys() and largest > 0
    for key, value in plain.items():
        assert (fast[key] - value).norm() < 0.1 * value.norm() + 0.01 * largest, key


@pytest.mark.parametrize("base", ["tiny_sd1", "tiny_sd2", "tiny_sdxl", "tiny_pocket"])
@pytest.mark.parametrize("learns", [False, True])
def test_captions_are_read_as_prompts_are(
    base: str, learns: bool, data: TrainingData, request: pytest.FixtureRequest
) -> None:
    method = make("full", request.getfixturevalue(base), data, resolution=32, train_text_encoder=learns)
    rows = np.array([method.kinds[0], method.nothing, method.kinds[1], method.kinds[0]])
    found = method.conditioning(rows)
    prompts = [data.captions[0], "", data.captions[1], data.captions[0]]
    wanted = method.family.encode_negative_prompts(prompts)
    torch.testing.assert_close(found.prompt_embeds, wanted.prompt_embeds, atol=2e-3, rtol=1e-3)
    assert found.prompt_embeds.requires_grad is learns
    if base == "tiny_sdxl":
        torch.testing.assert_close(
            found.pooled_prompt_embeds, wanted.pooled_prompt_embeds, atol=2e-3, rtol=1e-3
        )
        assert not found.prompt_embeds[1].any(), "SDXL was trained with zeros for no prompt"


@pytest.mark.parametrize(("base", "predicts"), [("tiny_sd1", "noise"), ("tiny_sd2", "velocity")])
def test_the_loss_of_a_right_answer_is_zero_and_others_are_weighted(
    base: str, predicts: str, data: TrainingData, request: pytest.FixtureRequest
) -> None:
    """The right answer is worked out here from x_t, x_0 and the betas of the base."""
    method = make("full", request.getfixturevalue(base), data, resolution=32)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha_bars = (1 - betas).cumprod(0)
    original = torch.from_numpy(method.bucket_latents[0][:4]).double()
    seen: dict[str, torch.Tensor] = {}

    def answer(noisy: torch.Tensor, timesteps: torch.Tensor, *_: Any) -> torch.Tensor:
        alpha_bar = alpha_bars[timesteps][:, None, None, None]
        signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        noise = (noisy.double() - signal * original) / spread
        right = noise if predicts == "noise" else signal * noise - spread * original
        seen["snr"] = (alpha_bar / (1 - alpha_bar)).flatten()
        return (right + off).float()

    method.predict = answer
    off = 0.0
    assert method.loss(np.arange(4), Draws.seeded(1))[0].item() < 1e-6
    off = 1.0
    loss, figures = method.loss(np.arange(4), Draws.seeded(1))
    least = seen["snr"].clamp(max=5)
    weight = least / seen["snr"] if predicts == "noise" else least / (seen["snr"] + 1)
    assert figures["mse"] == pytest.approx(1, abs=1e-3)
    assert loss.item() == pytest.approx(weight.mean().item(), rel=1e-3)


def test_prior_pictures_count_as_much_as_they_are_told_to(data: TrainingData, tiny_pocket: Path) -> None:
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        method = make("lora", tiny_pocket, data, resolution=32, class_prompt="a cat", prior_weight=weight)
        losses[weight] = method.loss(np.arange(4), Draws.seeded(1))[0].item()
    assert losses[0.0] < losses[1.0]
    assert losses[3.0] - losses[0.0] == pytest.approx(3 * (losses[1.0] - losses[0.0]), rel=1e-4)


def test_a_new_controlnet_changes_nothing_yet(data: TrainingData, tiny_sdxl: Path) -> None:
    method = make("controlnet", tiny_sdxl, data, resolution=32)
    cond = method.conditioning(method.kinds[:2])
    noisy = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        steered = method.predict(noisy, torch.tensor([10, 900]), cond, np.arange(2))
        plain = super(type(method), method).predict(noisy, torch.tensor([10, 900]), cond)
        assert torch.equal(steered, plain)
        torch.nn.init.normal_(method.controlnet.controlnet_mid_block.weight)
        assert not torch.equal(method.predict(noisy, torch.tensor([10, 900]), cond, np.arange(2)), plain)


@pytest.mark.slow
def test_full_fine_tuning_learns_eight_pictures_by_heart(data: TrainingData, tiny_pocket: Path) -> None:
    """Drawn with its caption, each comes out most like its own training picture.

    The latents are the pictures made small, because those of an untrained autoencoder hardly differ.
    """
    rows = np.arange(8)
    eight = TrainingData(np.asarray(data.pixels)[rows], data.captions[:8], data.cache, "eight")
    method = make("full", tiny_pocket, eight, resolution=32, guidance_scale=1.0, sampling_steps=10,
                  snr_gamma=0.0, caption_dropout=0.0, train_text_encoder=True)  # fmt: skip
    small = torch.nn.functional.avg_pool2d(torch.from_numpy(eight.pixels) / 127.5 - 1, 4)
    latents = 2 * torch.cat([small, small.mean(1, keepdim=True)], dim=1)  # (8, 4, 8, 8)
    method.bucket_latents = [latents.half().numpy()]
    optimizer = torch.optim.AdamW(method.trainable().parameters(), lr=0.0, weight_decay=0.0)
    losses = []
    for step in range(STEPS_BY_HEART):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, 2 * (1 - step / STEPS_BY_HEART))
        optimizer.zero_grad()
        loss, _ = method.loss(rows, Draws.seeded(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(method.trainable().parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-20:]) < 0.2 * np.mean(losses[:5])
    known = decode(method.vae, latents)
    for module in method.learning().values():
        module.eval()
    drawn, usual = method.draw(eight.captions, range(8)), known.mean(0)
    alike = torch.corrcoef(torch.cat([drawn - usual, known - usual]).flatten(1))[:8, 8:]
    assert alike.argmax(1).tolist() == list(range(8))
    assert alike.diag().mean() > 0.5


def test_a_classifier_learns_classes_until_noise_hides_them(
    data: TrainingData, tiny_pocket: Path, tmp_path: Path
) -> None:
    labels = [caption.split()[-1] for caption in data.captions]
    method = make(
        "classifier", tiny_pocket, replace(data, labels=labels), resolution=32, classifier_channels=(16, 32)
    )
    bright = 2 * torch.nn.functional.one_hot(method.answers, 4)[:, :, None, None]  # a channel for each class
    method.latents = bright.expand(-1, -1, 8, 8).half().numpy()
    learn(method, 80, 3e-3)
    figures = method.sample(tmp_path / "sheet.png", ())
    assert figures["accuracy_t50"] > 0.9
    assert figures["accuracy_t950"] < 0.9, "nobody can tell classes in nearly pure noise"


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("lora", {"target_modules": ("nothing_of_the_kind",)}, "--target-modules nothing_of_the_kind: no"),
        ("textual-inversion", {"placeholder_token": "dog"}, "--placeholder-token dog: the model knows"),
    ],
)
def test_what_a_base_cannot_do_is_refused(
    name: str, changes: dict[str, Any], told: str, data: TrainingData, tiny_pocket: Path
) -> None:
    with pytest.raises(T2IError) as caught:
        make(name, tiny_pocket, data, resolution=32, **changes)
    assert caught.value.message.startswith(told)


def test_a_size_that_the_vae_cannot_shrink_is_refused(data: TrainingData, tiny_pocket: Path) -> None:
    config = base_config("lora", tiny_pocket, Path("unused"), Path("unused"), resolution=24)
    start = start_parts(config, "lora")
    start["base"].vae.register_to_config(block_out_channels=(8,) * 5)
    with pytest.raises(T2IError, match="--resolution 24: this VAE shrinks pictures by 16"):
        METHODS["lora"](config, data, start, CPU)
