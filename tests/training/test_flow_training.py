"""What is learned of rectified flow: the loss against its formula, on new models and on bases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import CPU, make, shapes_data
from small_run import small_config
from torch import Tensor

from t2i.config import TrainConfig
from t2i.errors import UsageError
from t2i.evaluation.validation import LEVELS, fixed_noise, validation_losses
from t2i.methods import METHODS, TrainingData
from t2i.methods.draws import Draws
from t2i.methods.unet import build_unet
from t2i.training.export import export
from t2i.training.resuming import changed_settings

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return shapes_data(shapes, tmp_path_factory.mktemp("cache"), 32)


@pytest.fixture
def flow_base(tiny_pocket: Path, copy_model: Callable[[Path], Path]) -> Path:
    folder = copy_model(tiny_pocket)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(FLOW))
    settings = json.loads((folder / "t2i.json").read_text())
    (folder / "t2i.json").write_text(json.dumps(settings | {"scheduler": "euler"}))
    return folder


def squares(output: Tensor, original: Tensor, noise: Tensor) -> np.ndarray:
    """‖v̂ − (ε − x_0)‖² of each row, its mean over the numbers of a picture."""
    wanted = noise.double().numpy() - original.double().numpy()
    return ((output.detach().double().numpy() - wanted) ** 2).mean((1, 2, 3))


def mixed(original: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    s = (timesteps.double() / 1000)[:, None, None, None]
    return ((1 - s) * original + s * noise).float()


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_the_loss_of_a_new_unet_is_the_formula(data: TrainingData, tiny_pocket: Path, gamma: Any) -> None:
    from t2i.weights import load_parts

    start = load_parts(tiny_pocket, only=("vae", "text_encoder", "tokenizer"))
    config = small_config(
        Path("unused"), Path("unused"), method="unet", prediction_type="flow_prediction", caption_dropout=0.0,
        **({} if gamma is None else {"snr_gamma": gamma}),
    )  # fmt: skip
    torch.manual_seed(0)
    small = build_unet(config, 4, 8, start["text_encoder"].config.hidden_size)
    method: Any = METHODS["unet"](config, data, start | {"unet": small}, CPU)
    rows = np.arange(6)
    loss, figures = method.loss(rows, Draws.seeded(5))

    again = torch.Generator().manual_seed(5)
    original = torch.from_numpy(method.latents[rows]).float()
    noise = torch.randn(original.shape, generator=again)
    timesteps = torch.randint(1001, (6,), generator=again)
    words = method.text_encoder(method.tokens[:6]).last_hidden_state
    output = method.unet(mixed(original, noise, timesteps), timesteps, words).sample
    error, s = squares(output, original, noise), timesteps.double().numpy() / 1000
    assert figures["mse"] == pytest.approx(error.mean(), rel=1e-4)
    with np.errstate(divide="ignore"):
        weight = 1.0 if gamma is None else np.minimum(((1 - s) / s) ** 2, gamma) * s**2
    assert loss.item() == pytest.approx((error * weight).mean(), rel=1e-4)


@pytest.mark.parametrize("name", ["full", "lora"])
def test_the_loss_on_a_base_of_rectified_flow_is_the_formula(
    name: str, data: TrainingData, flow_base: Path
) -> None:
    method = make(name, flow_base, data, resolution=32, caption_dropout=0.0)
    assert method.config.snr_gamma == 0 and method.prediction_type == "flow_prediction"
    rows = np.arange(4)
    loss, _ = method.loss(rows, Draws.seeded(2))
    again = torch.Generator().manual_seed(2)
    original = torch.from_numpy(np.array(method.bucket_latents[0][rows])).float()
    noise = torch.randn(original.shape, generator=again)
    timesteps = torch.randint(1001, (4,), generator=again)
    cond = method.conditioning(method.kinds[rows])
    with torch.no_grad():
        output = method.predict(mixed(original, noise, timesteps), timesteps, cond)
    assert loss.item() == pytest.approx(squares(output, original, noise).mean(), rel=1e-4)
    assert torch.isfinite(method.draw(["a red circle"], [1])).all()


def test_the_classifier_sees_the_bases_own_noise(data: TrainingData, flow_base: Path) -> None:
    method = make("classifier", flow_base, data, resolution=32)
    seen: list[Tensor] = []
    method.classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    rows, noise, timesteps = (
        np.arange(2),
        torch.randn(2, *method.latents.shape[1:]),
        torch.tensor([100, 1000]),
    )
    method.logits(rows, timesteps, noise)
    original = torch.from_numpy(np.array(method.latents[rows])).float()
    torch.testing.assert_close(seen[0], mixed(original, noise, timesteps))


def test_a_tuned_model_stays_one_of_rectified_flow(
    data: TrainingData, flow_base: Path, tmp_path: Path
) -> None:
    method = make("full", flow_base, data, resolution=32)
    export(method.config.replace(output=str(tmp_path)), method, data)
    saved = json.loads((tmp_path / "model" / "scheduler" / "scheduler_config.json").read_text())
    assert saved == FLOW
    assert json.loads((tmp_path / "model" / "t2i.json").read_text())["scheduler"] == "euler"


def test_the_validation_loss_of_a_model_is_the_formula(shapes: Path, flow_base: Path) -> None:
    from t2i import latents, pipeline
    from t2i.config import GenerateConfig
    from t2i.dataset import decode, read_folder, to_pixels

    model = pipeline.load(GenerateConfig(model=str(flow_base), dtype="fp32"))
    example = read_folder(shapes).examples[0]
    (found,) = validation_losses(model, [example])
    original = latents.encode(model.vae, to_pixels(decode(example.file, 64)[None], [0])).float()
    noise, timesteps = fixed_noise(0, original.shape[1:], 1001)
    words = model.family.encode_prompts([example.caption]).prompt_embeds.expand(LEVELS, -1, -1)
    with torch.no_grad():
        output = model.unet(mixed(original, noise, timesteps), timesteps, words).sample
    assert found == pytest.approx(squares(output, original.expand_as(noise), noise).mean(), rel=1e-3)


def test_what_does_not_fit_rectified_flow_is_refused() -> None:
    def config(**changes: Any) -> TrainConfig:
        return TrainConfig(
            **{"dataset": "d", "method": "unet", "prediction_type": "flow_prediction"} | changes
        )

    with pytest.raises(UsageError, match="--no-zero-terminal-snr is for a schedule of betas"):
        config(zero_terminal_snr=False)
    for method in ("vae", "full"):  # a base says itself what it predicts
        with pytest.raises(UsageError, match=f"--prediction-type is not for --method {method}"):
            config(method=method)


def test_the_loss_is_weighted_by_default_where_it_always_was() -> None:
    def gamma(**changes: Any) -> float:
        return TrainConfig(**{"dataset": "d", "method": "scratch"} | changes).snr_gamma

    assert gamma() == 5 and gamma(prediction_type="epsilon") == 5 and gamma(snr_gamma=0.0) == 0
    assert gamma(prediction_type="flow_prediction") == 0
    assert gamma(prediction_type="flow_prediction", snr_gamma=5.0) == 5
    before = TrainConfig(dataset="d", method="unet").to_dict() | {"snr_gamma": 5.0}  # as checkpoints have it
    assert changed_settings(before, TrainConfig(dataset="d", method="unet").to_dict(), "unet") == []


def test_epsilon_does_not_begin_at_pure_noise() -> None:
    def config(**changes: Any) -> TrainConfig:
        return TrainConfig(dataset="d", method="unet", **changes)

    assert config().zero_terminal_snr and config(prediction_type="sample").zero_terminal_snr
    assert not config(prediction_type="epsilon").zero_terminal_snr
    with pytest.raises(UsageError, match="of pure noise the noise says nothing"):
        config(prediction_type="epsilon", zero_terminal_snr=True)


@pytest.mark.parametrize(
    ("idle", "needs"),
    [
        ({"logit_mean": 1.0}, "--timestep-sampling logit_normal"),
        ({"logit_std": 2.0}, "--timestep-sampling logit_normal"),
        ({"lr_power": 3.0}, "--lr-scheduler polynomial"),
        ({"lr_decay": 0.5, "lr_scheduler": "cosine"}, "--lr-scheduler cosine-tail"),
    ],
)
def test_an_option_that_another_one_makes_idle_is_refused(idle: dict[str, Any], needs: str) -> None:
    with pytest.raises(UsageError, match=f"says something of {needs}"):
        TrainConfig(dataset="d", method="unet", **idle)
