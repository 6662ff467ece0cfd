"""Recipes as JSON and as A1111 text; no path, user or host in them."""

from __future__ import annotations

import json

import pytest
from test_images import make_recipe

from t2i import recipes
from t2i.config import GenerateConfig
from t2i.errors import StorageError


def test_json_comes_back_and_is_stable() -> None:
    recipe = make_recipe()
    assert recipes.loads(recipes.dumps(recipe)) == recipe
    assert recipes.dumps(recipe) == recipes.dumps(json.loads(json.dumps(recipe)))


def test_lone_surrogates_are_replaced() -> None:
    assert "?" in recipes.dumps(make_recipe() | {"model": {"id": "a \ud800 dog"}})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("pocket", "pocket"),
        ("stabilityai/sdxl-turbo", "stabilityai/sdxl-turbo"),
        ("/home/someone/models/mine", "mine"),
        ("./mine/", "mine"),
        ("~/mine.safetensors", "mine.safetensors"),
        ("a/b/c", "c"),
        ("runs/x.safetensors", "x.safetensors"),
        ("C:\\Users\\me\\mine", "mine"),
    ],
)
def test_a_path_leaves_only_its_last_part(given: str, kept: str) -> None:
    assert recipes.base_name(given) == kept


def test_config_comes_back() -> None:
    config = recipes.config_of(make_recipe())
    assert (config.seed, config.steps, config.scheduler, config.num_images) == (7, 25, "dpm++2m-karras", 1)
    with pytest.raises(StorageError, match="--steps"):
        recipes.config_of(make_recipe() | {"config": {"steps": 0}})
    with pytest.raises(StorageError):
        recipes.config_of(make_recipe() | {"config": {"steps": "many"}})


def test_parameters_text_is_a1111s() -> None:
    lines = recipes.to_parameters(make_recipe("a dog")).splitlines()
    assert lines[0] == "a dog"
    assert lines[1] == "Negative prompt: blurry"
    assert lines[2].startswith("Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 4.0, Seed: 7, Size: 24x16, ")
    assert "Model: pocket" in lines[2]


def test_parameters_text_comes_back() -> None:
    values = recipes.from_parameters(recipes.to_parameters(make_recipe("two\nlines, of: prompt")))
    config = GenerateConfig.from_dict(values)
    assert config.prompts == ("two\nlines, of: prompt",)
    assert (config.negative_prompt, config.steps, config.seed, config.width) == ("blurry", 25, 7, 24)


def test_parameters_of_another_program() -> None:
    text = (
        "masterpiece, (corgi:1.2)\nwith hat\nNegative prompt: blurry,\nugly\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x768, "
        'Model hash: abc, Lora hashes: "one: 1, two: 2", Version: v1.9'
    )
    assert recipes.from_parameters(text) == {
        "prompts": ("masterpiece, (corgi:1.2)\nwith hat",),
        "negative_prompt": "blurry,\nugly",
        "scheduler": "DPM++ 2M Karras",
        "steps": 20,
        "guidance_scale": 7.0,
        "seed": 42,
        "width": 512,
        "height": 768,
    }
    for damaged in ("", "just words", "a dog\nSteps: many, Seed: 1", "a dog\nSteps: 2, Size: big"):
        with pytest.raises(StorageError):
            recipes.from_parameters(damaged)


def test_the_model_hash_is_that_of_the_weights() -> None:
    unet = {"unet/config.json": "c" * 64, "unet/diffusion_pytorch_model.safetensors": "a" * 64}
    for files in (
        {**unet, "vae/diffusion_pytorch_model.safetensors": "d" * 64},
        {"mine.safetensors": "a" * 64, "configs/sd1/unet/config.json": "c" * 64},
    ):
        text = recipes.to_parameters(make_recipe() | {"model": {"id": "mine", "files": files}})
        assert "Model hash: aaaaaaaaaa, " in text


def test_lines_of_a_recipe_that_nobody_checked() -> None:
    recipe = make_recipe()
    for part in ("config", "image", "model", "runtime"):
        assert recipes.to_lines(recipe | {part: {}})
    odd = {"config": {"prompts": [1]}, "model": {"files": 3}, "runtime": {"versions": []}}
    assert recipes.to_lines(recipe | odd)[0].endswith(" 1")


def test_lines_for_a_person() -> None:
    lines = "\n".join(recipes.to_lines(make_recipe("a dog")))
    for expected in ("a dog", "blurry", "24 x 16", "dpm++2m-karras", "torch 2.13", "row 1 of [4, 4, 2, 3]"):
        assert expected in lines
