"""The perceptual and the adversarial loss of the autoencoder: what they measure, and whom they move."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from small_run import small_config
from transformers import CLIPVisionConfig, CLIPVisionModel

from t2i.errors import ModelError, UsageError
from t2i.methods.sharpness import PatchDiscriminator, PerceptualDistance, adversarial_losses
from t2i.training import train


@pytest.fixture
def clip() -> Any:
    torch.manual_seed(0)
    vision = CLIPVisionModel(CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32,
        patch_size=8,
    ))  # fmt: skip
    tower = getattr(vision, "vision_model", vision)
    return SimpleNamespace(
        model=SimpleNamespace(vision_model=tower), side=32, mean=torch.zeros(3, 1, 1), std=torch.ones(3, 1, 1)
    )


def test_the_perceptual_distance_grows_with_blur_and_moves_only_the_picture(clip: Any) -> None:
    distance = PerceptualDistance(clip)
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    assert distance(pixels, pixels) < 1e-10
    blurred = [torch.nn.functional.avg_pool2d(pixels, side, 1, side // 2) for side in (3, 5, 9)]
    found = [distance(one, pixels).item() for one in blurred]
    assert 0 < found[0] < found[1] < found[2] < 4
    wanted = blurred[0].clone().requires_grad_(True)
    distance(wanted, pixels).backward()
    assert wanted.grad is not None and wanted.grad.abs().max() > 0
    assert all(value.grad is None for value in distance.parameters())


def test_neither_side_of_the_adversarial_loss_moves_the_other() -> None:
    torch.manual_seed(0)
    judge, pixels = PatchDiscriminator(), torch.rand(2, 3, 32, 32) * 2 - 1
    rebuilt = (pixels * 0.5).requires_grad_(True)
    fooling, judging = adversarial_losses(judge, rebuilt, pixels)
    fooling.backward(retain_graph=True)
    assert rebuilt.grad is not None and all(value.grad is None for value in judge.parameters())
    rebuilt.grad = None
    judging.backward()
    assert rebuilt.grad is None and all(value.grad is not None for value in judge.parameters())


def test_the_discriminator_learns_to_tell_and_an_undecided_one_costs_one() -> None:
    torch.manual_seed(0)
    judge = PatchDiscriminator()
    sharp, soft = torch.rand(8, 3, 32, 32) * 2 - 1, torch.zeros(8, 3, 32, 32)
    torch.nn.init.zeros_(judge.layers[-1].weight)
    torch.nn.init.zeros_(judge.layers[-1].bias)
    assert adversarial_losses(judge, soft, sharp)[1].item() == pytest.approx(1.0)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-3)
    for _ in range(40):
        optimizer.zero_grad()
        adversarial_losses(judge, soft, sharp)[1].backward()
        optimizer.step()
    assert adversarial_losses(judge, soft, sharp)[1] < 0.1


def test_a_run_with_a_discriminator_resumes_and_leaves_the_autoencoder(shapes: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"method": "vae", "adversarial_weight": 0.1}
    figures = [progress.figures for progress in train(small_config(shapes, tmp_path / "whole", **given))]
    assert any("judging" in row and "fooling" in row for row in figures)
    with safe_open(tmp_path / "whole/vae/checkpoints/checkpoint-00000006/weights.safetensors", "pt") as file:
        assert any(name.startswith("discriminator.") for name in file.keys())
    AutoencoderKL.from_pretrained(tmp_path / "whole" / "parts" / "vae")
    assert [path.name for path in (tmp_path / "whole" / "parts").iterdir()] == ["vae"]
    stopped = train(small_config(shapes, tmp_path / "parted", **given))
    for progress in stopped:
        if progress.step == 4 and not progress.notice:
            break
    stopped.close()
    list(train(small_config(shapes, tmp_path / "parted", resume="latest", **given)))
    made = "parts/vae/diffusion_pytorch_model.safetensors"
    whole, parted = ((tmp_path / name / made).read_bytes() for name in ("whole", "parted"))
    assert whole == parted


def test_what_does_not_go_together_is_refused(shapes: Path, tmp_path: Path) -> None:
    for changes, told in (
        ({"perceptual_weight": 1.0}, "go together"),
        ({"perceptual_model": "clip"}, "go together"),
        ({"adversarial_weight": 1.0, "vae_crop": 8}, "at least 16 px"),
    ):
        with pytest.raises(UsageError, match=told):
            small_config(shapes, tmp_path, method="vae", **changes)
    missing = small_config(
        shapes, tmp_path / "run", method="vae", perceptual_weight=1.0, perceptual_model=str(tmp_path / "none")
    )
    with pytest.raises(ModelError, match="--perceptual-model"):
        list(train(missing))
