"""Prompt encoding and the UNet call of each family, against Diffusers' own pipelines."""

from __future__ import annotations

import pytest
import torch

from t2i.catalog import MODELS
from t2i.families import FAMILIES
from t2i.weights import load_model, resolve_model
from t2i.weights.layout import FAMILY_NAMES

LONG = " ".join(["a red dog and a blue cat on the pink trumpet"] * 9)
NAMES = ["sd1", "sd2", "sdxl", "pocket"]


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return load_model(resolve_model(str(request.getfixturevalue(f"tiny_{request.param}"))))


@pytest.fixture(scope="module")
def pipeline_of(request):
    from diffusers import DiffusionPipeline

    def load(name):
        return DiffusionPipeline.from_pretrained(
            request.getfixturevalue(f"tiny_{name}"), local_files_only=True
        )

    return load


def test_every_name_has_a_family():
    assert set(FAMILIES) == set(FAMILY_NAMES) == {family.name for family in FAMILIES.values()}
    assert {row.family for row in MODELS.values()} <= set(FAMILIES)


@pytest.mark.parametrize("negative", ["a cat", ""])
def test_prompts_are_encoded_as_diffusers_does(model, pipeline_of, negative):
    pipeline = pipeline_of(model.family.name)
    cond = model.family.encode_prompts(["a corgi riding a drum"])
    uncond = model.family.encode_negative_prompts([negative])
    told = {"negative_prompt": negative or None}
    with torch.no_grad():
        if model.family.name == "sdxl":
            theirs = pipeline.encode_prompt("a corgi riding a drum", None, "cpu", 1, True, **told)
            assert torch.equal(cond.pooled_prompt_embeds, theirs[2])
            assert torch.equal(uncond.pooled_prompt_embeds, theirs[3])
        else:
            theirs = pipeline.encode_prompt("a corgi riding a drum", "cpu", 1, True, **told)
            assert cond.pooled_prompt_embeds is None
    assert torch.equal(cond.prompt_embeds, theirs[0])
    assert torch.equal(uncond.prompt_embeds, theirs[1])


def test_a_prompt_does_not_depend_on_its_batch(model):
    prompts = ["a dog", "", "a red corgi playing a trumpet", "a dog"]
    together = model.family.encode_prompts(prompts)
    for row, prompt in enumerate(prompts):
        alone = model.family.encode_prompts([prompt])
        assert torch.equal(together.prompt_embeds[row], alone.prompt_embeds[0])


def test_long_prompts_become_chunks(model):
    family = model.family
    places = family.parts.tokenizers[0].model_max_length
    count = family.count_chunks(LONG)
    assert count == (4 if places == 32 else 2) and family.count_chunks("") == 1
    cond = family.encode_prompts([LONG])
    assert cond.prompt_embeds.shape[1] == count * places
    first = family.encode_prompts([" ".join(LONG.split()[: places - 2])])
    assert torch.equal(cond.prompt_embeds[:, :places], first.prompt_embeds)
    with pytest.raises(ValueError, match="cannot share a batch"):
        family.encode_prompts([LONG, "a dog"])
    padded = family.encode_prompts([LONG, "a dog"], chunks=count)
    assert torch.equal(padded.prompt_embeds[0], cond.prompt_embeds[0])


@pytest.mark.parametrize("count", [1, 2])
def test_the_denoiser_is_the_guided_unet(model, count):
    family = model.family
    latents, timestep = torch.randn(count, 4, 8, 6), torch.tensor(601)
    cond = family.encode_prompts(["a dog", "a cat"][:count])
    uncond = family.encode_negative_prompts(["a drum"] * count)
    calls = []
    handle = model.unet.register_forward_hook(lambda module, inputs, output: calls.append(inputs[0].shape[0]))
    try:
        alone = family.denoiser(cond, None, 7.5, 48, 64)(latents, timestep)
        against = family.denoiser(uncond, None, 1.0, 48, 64)(latents, timestep)
        off = family.denoiser(cond, uncond, 1.0, 48, 64)(latents, timestep)
        guided = family.denoiser(cond, uncond, 7.5, 48, 64)(latents, timestep)
    finally:
        handle.remove()
    assert calls == [count, count, count, 2 * count]
    assert torch.equal(alone, off) and alone.shape == latents.shape
    torch.testing.assert_close(guided, against + 7.5 * (alone - against), rtol=1e-4, atol=1e-4)


def test_sides_of_different_length_are_called_one_by_one(model):
    family = model.family
    latents, timestep = torch.randn(1, 4, 8, 8), torch.tensor(301)
    cond, uncond = family.encode_prompts([LONG]), family.encode_negative_prompts([""])
    assert cond.prompt_embeds.shape[1] > uncond.prompt_embeds.shape[1]
    guided = family.denoiser(cond, uncond, 3.0, 64, 64)(latents, timestep)
    alone = family.denoiser(cond, None, 1.0, 64, 64)(latents, timestep)
    against = family.denoiser(uncond, None, 1.0, 64, 64)(latents, timestep)
    assert torch.equal(guided, against + 3.0 * (alone - against))


def test_sdxl_is_told_its_size(tiny_sdxl):
    model = load_model(resolve_model(str(tiny_sdxl)))
    cond = model.family.encode_prompts(["a dog", "a cat"])
    arguments = model.family.unet_arguments(cond, 48, 64)
    assert arguments["added_cond_kwargs"]["time_ids"].tolist() == [[64, 48, 0, 0, 64, 48]] * 2
    latents, timestep = torch.randn(2, 4, 8, 6), torch.tensor(601)
    small = model.family.denoiser(cond, None, 1.0, 48, 64)(latents, timestep)
    large = model.family.denoiser(cond, None, 1.0, 480, 640)(latents, timestep)
    assert not torch.equal(small, large)


def test_empty_negative_prompts_are_zeros_only_where_trained_so(tiny_sdxl, tiny_sd1):
    sdxl = load_model(resolve_model(str(tiny_sdxl))).family
    mixed = sdxl.encode_negative_prompts(["", "a dog"])
    assert not mixed.prompt_embeds[0].any() and not mixed.pooled_prompt_embeds[0].any()
    assert torch.equal(mixed.prompt_embeds[1], sdxl.encode_prompts(["a dog"]).prompt_embeds[0])
    assert load_model(resolve_model(str(tiny_sd1))).family.encode_negative_prompts([""]).prompt_embeds.any()


def test_pocket_explains_words_it_has_never_seen(tiny_pocket):
    family = load_model(resolve_model(str(tiny_pocket))).family
    told = family.explain("a corgy riding a drum")
    assert told.unknown == {"corgy": ["corgi"]} and any("corgi" in line for line in told)
