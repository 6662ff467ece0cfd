"""Our loop and Diffusers' own pipeline, given the same scheduler object, draw the same latents.

Networks are tiny and random; scheduler configurations are those of the real SD 1.5, SD 2.1 (v) and SDXL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import pytest
import torch
from tiny_models import SCHEDULER_CONFIGS, make_unet
from torch import Tensor

from t2i.conditioning import Conditioning
from t2i.families import FAMILIES, Family, Parts
from t2i.latents import initial_noise
from t2i.sampling import denoise, initial_latents
from t2i.schedulers import SCHEDULERS, make_scheduler, set_timesteps

PROMPTS = ["a red dog playing the trumpet", "a corgi on a blue background"]
NEGATIVE = ["green drum", "green drum"]
GUIDANCE, SEEDS = 7.5, (7, 8)
HEIGHT, WIDTH = 64, 40

# One level, one cross-attention: the loop is compared here, not the network, and it runs 3,000 times.
ONE_LEVEL: dict[str, Any] = {
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "mid_block_type": None,
    "up_block_types": ("UpBlock2D",),
    "attention_head_dim": 2,
}
SDXL_INPUTS: dict[str, Any] = {
    "cross_attention_dim": 64,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 32,
}


pytestmark = pytest.mark.usefixtures("one_thread")


def pipeline_for(name: str, folder: Path) -> Any:
    kind = diffusers.StableDiffusionXLPipeline if name == "sdxl" else diffusers.StableDiffusionPipeline
    pipeline = kind.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet = make_unet(5, **ONE_LEVEL, **(SDXL_INPUTS if name == "sdxl" else {}))
    return pipeline


class Model(NamedTuple):
    name: str
    pipeline: Any
    family: Family
    cond: Conditioning
    uncond: Conditioning


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def model(request: pytest.FixtureRequest) -> Model:
    """Diffusers' pipeline of a tiny model, and our family around the same networks."""
    name = request.param
    pipeline = pipeline_for(name, request.getfixturevalue(f"tiny_{name}"))
    encoders, tokenizers = (pipeline.text_encoder,), (pipeline.tokenizer,)
    if name == "sdxl":
        encoders, tokenizers = (*encoders, pipeline.text_encoder_2), (*tokenizers, pipeline.tokenizer_2)
    family = FAMILIES[name](Parts(pipeline.unet, encoders, tokenizers))
    return Model(name, pipeline, family, family.encode_prompts(PROMPTS), family.encode_prompts(NEGATIVE))


def ours(
    family: Family, scheduler: Any, steps: int, cond: Conditioning, uncond: Conditioning | None
) -> Tensor:
    """Final latents of our loop."""
    set_timesteps(scheduler, steps)
    noise, generators = initial_noise(SEEDS, 4, HEIGHT // 8, WIDTH // 8)
    denoiser = family.denoiser(cond, uncond, GUIDANCE if uncond else 1.0, WIDTH, HEIGHT)
    *_, last = denoise(denoiser, scheduler, initial_latents(noise, scheduler), generators)
    return last.latents


def theirs(pipeline: Any, scheduler: Any, steps: int, guidance: float, **prompts: Any) -> Tensor:
    """Final latents of Diffusers' pipeline."""
    pipeline.scheduler = scheduler
    return pipeline(
        **prompts,
        height=HEIGHT,
        width=WIDTH,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="latent",
    ).images


def embeddings(cond: Conditioning, uncond: Conditioning) -> dict[str, Tensor]:
    """Our conditioning as Diffusers' arguments."""
    given = {"prompt_embeds": cond.prompt_embeds, "negative_prompt_embeds": uncond.prompt_embeds}
    if cond.pooled_prompt_embeds is not None and uncond.pooled_prompt_embeds is not None:
        given["pooled_prompt_embeds"] = cond.pooled_prompt_embeds
        given["negative_pooled_prompt_embeds"] = uncond.pooled_prompt_embeds
    return given


@pytest.mark.parametrize("steps", [13, 25])
@pytest.mark.parametrize("row", SCHEDULERS.values(), ids=lambda row: row.name)
def test_our_loop_equals_diffusers(model: Model, row: Any, steps: int) -> None:
    name, pipeline, family, cond, uncond = model
    if row.needs:
        pytest.importorskip(row.needs)
    scheduler = make_scheduler(row.name, SCHEDULER_CONFIGS[name])
    expected = theirs(pipeline, scheduler, steps, GUIDANCE, **embeddings(cond, uncond))
    found = ours(family, scheduler, steps, cond, uncond)
    assert found.shape == (2, 4, HEIGHT // 8, WIDTH // 8) and torch.isfinite(found).all()
    if row.stochastic:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    else:
        assert torch.equal(found, expected)


def test_prompts_in_words_and_no_guidance_equal_diffusers(model: Model) -> None:
    """The checkpoint's own scheduler, the encoders included; and guidance 1, which is one side alone."""
    name, pipeline, family, cond, uncond = model
    scheduler = make_scheduler(None, SCHEDULER_CONFIGS[name])
    words: dict[str, Sequence[str]] = {"prompt": PROMPTS, "negative_prompt": NEGATIVE}
    for sides, guidance in ((uncond, GUIDANCE), (None, 1.0)):
        expected = theirs(pipeline, scheduler, 5, guidance, **words)
        found = ours(family, scheduler, 5, cond, sides)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_parity_would_notice_a_wrong_guidance(model: Model) -> None:
    name, pipeline, family, cond, uncond = model
    scheduler = make_scheduler("ddim", SCHEDULER_CONFIGS[name])
    expected = theirs(pipeline, scheduler, 5, GUIDANCE * 1.001, **embeddings(cond, uncond))
    assert (ours(family, scheduler, 5, cond, uncond) - expected).abs().max() > 1e-5
