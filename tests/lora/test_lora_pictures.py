"""A picture with a LoRA is the one that plain Diffusers draws; and afterwards the model is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_loras import load, make_lora, networks_with_adapters
from safetensors.torch import load_file, save_file

from t2i import pipeline, weights
from t2i.config import GenerateConfig
from t2i.errors import ModelError

PROMPT = "a corgi playing a trumpet"
NEAR = 0.5 / 255 + 1e-3  # t2i rounds to 255 steps, Diffusers' numbers are not rounded
STEPS, GUIDANCE = 2, 3.0


def config(model: Path, *lora: str, **changes: Any) -> GenerateConfig:
    values = {"steps": STEPS, "guidance_scale": GUIDANCE, "scheduler": "ddim", "width": 32, "height": 32}
    return GenerateConfig(prompts=(PROMPT,), seed=1, model=str(model), lora=lora, **(values | changes))


def draw(settings: GenerateConfig, model: Any, **more: Any) -> Any:
    return next(iter(pipeline.generate(settings, model, **more)))


def diffusers_picture(folder: Path, files: dict[str, tuple[Path, float]]) -> np.ndarray:
    """The same by Diffusers' pipeline, float, (32, 32, 3) in 0 … 1."""
    from diffusers import DiffusionPipeline

    from t2i.schedulers import make_scheduler

    pipe = DiffusionPipeline.from_pretrained(str(folder))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_scheduler("ddim", dict(pipe.scheduler.config))
    for name, (path, _) in files.items():
        pipe.load_lora_weights(str(path), adapter_name=name)
    pipe.set_adapters(list(files), [scale for _, scale in files.values()])
    generator = torch.Generator().manual_seed(1)
    return pipe(
        PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE, width=32, height=32, generator=generator,
        output_type="np",
    ).images[0]  # fmt: skip


def distance(picture: Any, other: np.ndarray) -> float:
    return float(np.abs(picture.pixels / 255 - other).max())


@pytest.fixture
def lines() -> list[str]:
    return []


def test_sd1_with_two_loras_is_what_diffusers_draws(tiny_sd1: Path, loras: Path, lines: list[str]) -> None:
    first = make_lora(loras / "one.safetensors", tiny_sd1)
    second = make_lora(loras / "two.safetensors", tiny_sd1, "kohya", seed=1, unet_only=True)
    model = load(tiny_sd1)
    with_both = config(tiny_sd1, f"{first}:0.7", f"{second}:-0.4")
    picture = draw(with_both, model, tell=lines.append)
    expected = diffusers_picture(tiny_sd1, {"one": (first, 0.7), "two": (second, -0.4)})
    assert distance(picture, expected) < NEAR
    assert "lora one.safetensors x0.7: 60 of 60 layers" in lines
    assert "lora two.safetensors x-0.4: 48 of 48 layers" in lines
    assert distance(draw(config(tiny_sd1, f"{first}:0.7"), model), expected) > 0.02, (
        "the second does something"
    )


def test_the_formats_of_one_adapter_draw_one_picture(tiny_sd1: Path, loras: Path) -> None:
    """PEFT, kohya, the attention processors of old Diffusers, and PEFT's own without any prefix."""
    networks = networks_with_adapters(tiny_sd1, seed=3, unet_only=True, target_modules=["to_q", "to_out.0"],
                                      rank_pattern={})  # fmt: skip
    peft, kohya = loras / "p.safetensors", loras / "k.safetensors"
    weights.save_lora(peft, networks)
    weights.save_lora(kohya, networks, file_format="kohya")
    tensors = load_file(str(peft))
    doubled = {key: value * 2 if "lora_B" in key else value for key, value in tensors.items()}  # alpha / rank
    parts = {"to_out.0.lora_A": "processor.to_out_lora.down", "to_out.0.lora_B": "processor.to_out_lora.up",
             "to_q.lora_A": "processor.to_q_lora.down", "to_q.lora_B": "processor.to_q_lora.up"}  # fmt: skip

    def old(key: str) -> str:
        for now, before in parts.items():
            key = key.replace(now, before)
        return key

    save_file({old(key): value for key, value in doubled.items()}, str(loras / "old.safetensors"))
    bare = {key.replace("unet.", "base_model.model."): value for key, value in doubled.items()}
    save_file(bare, str(loras / "bare.safetensors"))
    model = load(tiny_sd1)
    pictures = [
        draw(config(tiny_sd1, str(loras / name)), model).pixels
        for name in ("p.safetensors", "k.safetensors", "old.safetensors", "bare.safetensors")
    ]
    plain = draw(config(tiny_sd1), model).pixels
    for other in pictures[1:]:
        assert np.abs(pictures[0].astype(int) - other).max() <= 1
    assert np.abs(pictures[0].astype(int) - plain).max() > 5


def sdxl_names(key: str) -> str:
    """A Diffusers name of an attention as kohya's SDXL scripts call it, for one layer a block."""
    return key.replace("unet_up_blocks_1_attentions_0", "unet_output_blocks_2_1").replace(
        "unet_up_blocks_1_attentions_1", "unet_output_blocks_3_1"
    ).replace("unet_down_blocks_0_attentions_0", "unet_input_blocks_1_1").replace(
        "unet_mid_block_attentions_0", "unet_middle_block_1"
    )  # fmt: skip


def test_sdxl_with_the_names_of_kohya_is_what_diffusers_draws(tiny_sdxl: Path, loras: Path) -> None:
    targets = ["to_q", "to_v", "q_proj", "out_proj", "fc1"]  # without out_proj Diffusers 0.42 loses q_proj
    made = make_lora(loras / "xl.safetensors", tiny_sdxl, "kohya", target_modules=targets, rank_pattern={})
    tensors = load_file(str(made))
    renamed = {sdxl_names(key): value for key, value in tensors.items()}
    assert not any("_attentions_" in key for key in renamed)
    path = loras / "xl-original.safetensors"
    save_file(renamed, str(path))
    assert weights.inspect_lora(path).layers.keys() == {"text_encoder", "text_encoder_2", "unet"}
    picture = draw(config(tiny_sdxl, f"{path}:0.8"), load(tiny_sdxl))
    assert distance(picture, diffusers_picture(tiny_sdxl, {"x": (path, 0.8)})) < NEAR
    again = draw(config(tiny_sdxl, f"{made}:0.8"), load(tiny_sdxl))
    assert (again.pixels == picture.pixels).all()


def test_dora_is_what_peft_and_diffusers_draw(tiny_pocket: Path, loras: Path) -> None:
    """Diffusers 0.42 loses the magnitudes of text encoders on the way, so they are compared on the UNet."""
    dora = {"use_dora": True, "rank_pattern": {}, "target_modules": ["conv_in", "to_q", "q_proj"]}
    path = make_lora(loras / "dora.safetensors", tiny_pocket, unet_only=True, **dora)
    kohya = make_lora(loras / "dora-k.safetensors", tiny_pocket, "kohya", unet_only=True, **dora)
    assert weights.inspect_lora(path).is_dora and weights.inspect_lora(kohya).is_dora
    model = load(tiny_pocket)
    picture = draw(config(tiny_pocket, f"{path}:0.7"), model)
    assert distance(picture, diffusers_picture(tiny_pocket, {"x": (path, 0.7)})) < NEAR
    assert (draw(config(tiny_pocket, f"{kohya}:0.7"), model).pixels == picture.pixels).all()
    networks, whole = networks_with_adapters(tiny_pocket, **dora), loras / "dora-whole.safetensors"
    weights.save_lora(whole, networks)
    weights.use_adapters(model, weights.find_adapters(config(tiny_pocket, str(whole)), ""), lambda line: None)
    ids = torch.tensor([[1, 2, 3]])
    (encoder,) = model.family.parts.text_encoders
    with torch.no_grad():
        assert torch.allclose(encoder(ids)[0], networks["text_encoder"].eval()(ids)[0], atol=1e-5)


def test_nothing_of_a_lora_stays_behind(tiny_pocket: Path, pocket_lora: Path) -> None:
    model = load(tiny_pocket)
    networks = (model.unet, *model.family.parts.text_encoders)
    before = [dict(network.named_modules()) for network in networks]
    state = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    plain = draw(config(tiny_pocket), model)
    changed = draw(config(tiny_pocket, str(pocket_lora)), model)
    assert (changed.pixels != plain.pixels).any()
    assert (draw(config(tiny_pocket), model).pixels == plain.pixels).all()
    for network, modules, tensors in zip(networks, before, state, strict=True):
        assert dict(network.named_modules()) == modules  # the very objects
        assert all((network.state_dict()[name] == value).all() for name, value in tensors.items())
        assert not hasattr(network, "peft_config")


def test_the_same_loras_again_read_nothing(
    tiny_pocket: Path, pocket_lora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from t2i.weights import lora_applying

    model, reads = load(tiny_pocket), []
    read = lora_applying.read_lora
    monkeypatch.setattr(lora_applying, "read_lora", lambda *given: reads.append(given) or read(*given))
    for scale in (1, 1, 0.5, 0, 1):
        weights.use_adapters(
            model, weights.find_adapters(config(tiny_pocket, f"{pocket_lora}:{scale}"), ""), lambda line: None
        )
    assert len(reads) == 1


def test_scale_zero_is_the_picture_without_and_scales_multiply(tiny_pocket: Path, pocket_lora: Path) -> None:
    model = load(tiny_pocket)
    plain = draw(config(tiny_pocket), model).pixels
    assert (draw(config(tiny_pocket, f"{pocket_lora}:0"), model).pixels == plain).all()
    half = draw(config(tiny_pocket, f"{pocket_lora}:0.5"), model)
    assert (half.pixels != plain).any()
    product = draw(config(tiny_pocket, f"{pocket_lora}:2", lora_scale=0.25), model)
    assert (product.pixels == half.pixels).all()
    assert product.recipe["loras"][0]["scale"] == 0.5


def test_a_tag_is_a_lora_and_no_text(tiny_pocket: Path, pocket_lora: Path) -> None:
    """Prompts with other tags do not share a batch, and each is the picture that it is alone."""
    model = load(tiny_pocket)
    by_option = draw(config(tiny_pocket, f"{pocket_lora}:0.5"), model)
    tagged = f"{PROMPT}<lora:corgi:0.5>"
    settings = config(tiny_pocket, str(pocket_lora)).replace(prompts=(tagged, f"<lora:corgi:0>{PROMPT}"))
    drawn = sorted(pipeline.generate(settings, model), key=lambda picture: picture.index)
    assert (drawn[0].pixels == by_option.pixels).all()
    assert (drawn[1].pixels == draw(config(tiny_pocket), model).pixels).all()
    assert drawn[0].prompt == tagged and drawn[0].recipe["config"]["prompts"] == [tagged]
    assert [picture.recipe["image"]["batch_shape"][0] for picture in drawn] == [1, 1]


def test_another_model_refuses_a_lora_that_partly_fits_it_is_told(
    tiny_pocket: Path, tiny_sdxl: Path, loras: Path, pocket_lora: Path, lines: list[str]
) -> None:
    tensors = load_file(str(pocket_lora))
    some = {key: value for key, value in tensors.items() if "unet.mid_block.attentions" in key}
    moved = {key.replace("mid_block", "down_blocks.7"): value.clone() for key, value in some.items()}
    partly, never = loras / "partly.safetensors", loras / "never.safetensors"
    save_file(some | moved, str(partly))
    save_file(moved, str(never))
    model = load(tiny_pocket)
    draw(config(tiny_pocket, str(partly)), model, tell=lines.append)
    layers = len(some) // 2
    assert any(f"{layers} of {2 * layers} layers; tiny-pocket has no place for" in line for line in lines)
    with pytest.raises(
        ModelError, match=r"none of its .* layers is one of tiny-pocket, a model of the family"
    ):
        draw(config(tiny_pocket, str(never)), model)
    assert (
        draw(config(tiny_pocket), model).pixels == draw(config(tiny_pocket), load(tiny_pocket)).pixels
    ).all()
    with pytest.raises(ModelError, match=r"proj_in.*has the shape \[4, 16, 1, 1\]"):
        draw(config(tiny_sdxl, str(pocket_lora)), load(tiny_sdxl))
