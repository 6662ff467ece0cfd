"""Pictures depend on their own prompt and seed: not on batch mates, order, or what was drawn before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import t2i
from t2i import devices, pipeline, weights
from t2i.config import GenerateConfig
from t2i.errors import ModelError, OutOfMemory, UsageError
from t2i.jobs import plan_jobs, read_prompts
from t2i.weights import LoadedModel

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on cores that others use wait for each other

LONG = "a dog in the red background and " * 12  # several chunks for every tokenizer here
PROMPTS = ("a dog", LONG, "a cat on the drum", "red", LONG + "cat", "a corgi", "", "blue trumpet")


@pytest.fixture(scope="module")
def pocket(tiny_pocket: Path) -> LoadedModel:
    return pipeline.load(GenerateConfig(model=str(tiny_pocket)))


@pytest.fixture(scope="module")
def sd1(tiny_sd1: Path) -> LoadedModel:
    return pipeline.load(GenerateConfig(model=str(tiny_sd1), dtype="fp32"))


def draw(
    model: LoadedModel, prompts: Sequence[str] = ("a dog",), **config: Any
) -> dict[tuple[str, int], pipeline.Picture]:
    """(prompt, seed) → picture."""
    values = {"steps": 2, "seed": 5, "width": 64, "height": 64, **config}
    pictures = pipeline.generate(GenerateConfig(prompts=tuple(prompts), **values), model)
    return {(picture.prompt, picture.seed): picture for picture in pictures}


def assert_nearly_equal(first: np.ndarray, second: np.ndarray) -> None:
    """The promise for fp32 across batch shapes: at most 1/255, in at most 0.1 % of subpixels."""
    difference = np.abs(first.astype(int) - second.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.001


@pytest.mark.parametrize("scheduler", ["ddim", "euler-a"])
@pytest.mark.parametrize("name", ["pocket", "sd1"])
def test_a_picture_is_the_same_alone_and_in_any_batch(
    name: str, scheduler: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    together = draw(model, PROMPTS, scheduler=scheduler, batch_size=8)
    backwards = draw(model, PROMPTS[::-1], scheduler=scheduler, batch_size=3)
    assert set(together) == set(backwards) == {(prompt, 5) for prompt in PROMPTS}
    for prompt in PROMPTS:
        (alone,) = draw(model, [prompt], scheduler=scheduler).values()
        assert_nearly_equal(alone.pixels, together[prompt, 5].pixels)
        assert_nearly_equal(alone.pixels, backwards[prompt, 5].pixels)


def test_image_k_has_seed_plus_k(pocket: LoadedModel) -> None:
    batch = draw(pocket, ["a cat", "a dog"], num_images=8, batch_size=8)
    for seed in (5, 8, 12):
        (alone,) = draw(pocket, ["a dog"], seed=seed).values()
        assert_nearly_equal(alone.pixels, batch["a dog", seed].pixels)
    assert len({picture.recipe["pixels_sha256"] for picture in batch.values()}) == 16


def test_equal_bytes_at_the_same_batch_shape(pocket: LoadedModel) -> None:
    for picture in draw(pocket, PROMPTS[2:4], num_images=4, batch_size=8, scheduler="euler-a").values():
        runtime = pipeline.recorded_runtime(picture.recipe)
        again = pipeline.redraw(picture.recipe, pocket, runtime, weights.hash_files(pocket.files))
        assert again.recipe == picture.recipe
        assert (again.pixels == picture.pixels).all()


def test_deterministic_gives_equal_bytes_in_any_batch(pocket: LoadedModel) -> None:
    together = draw(pocket, PROMPTS[:3], num_images=2, batch_size=8, deterministic=True, scheduler="euler-a")
    for (prompt, seed), picture in together.items():
        (alone,) = draw(pocket, [prompt], seed=seed, deterministic=True, scheduler="euler-a").values()
        assert (alone.pixels == picture.pixels).all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_deterministic_fixes_the_threads_and_gives_them_back(
    pocket: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    seen: set[int] = set()
    try:
        for deterministic, threads in ((True, devices.DETERMINISTIC_THREADS), (False, 2)):
            config = GenerateConfig(prompts=("a dog",), steps=2, seed=5, deterministic=deterministic)
            seen.clear()
            (picture,) = pipeline.generate(config, pocket, lambda _: seen.add(torch.get_num_threads()))
            assert picture.recipe["runtime"]["threads"] == threads and seen == {threads}
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_redrawing_uses_the_recorded_threads(pocket: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    (picture,) = draw(pocket, deterministic=True).values()
    recipe = picture.recipe | {"runtime": picture.recipe["runtime"] | {"threads": 2}}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    seen: set[int] = set()
    make = type(pocket.family).denoiser

    def denoiser(*arguments: Any) -> Any:
        seen.add(torch.get_num_threads())
        return make(*arguments)

    monkeypatch.setattr(type(pocket.family), "denoiser", denoiser)
    again = pipeline.redraw(recipe, pocket, pipeline.recorded_runtime(recipe), {})
    assert seen == {2} and again.recipe["runtime"]["threads"] == 2


def test_only_prompts_of_equal_length_share_a_batch(pocket: LoadedModel) -> None:
    seen: list[pipeline.StepDone] = []
    config = GenerateConfig(prompts=PROMPTS, seed=1, steps=2, scheduler="pndm", batch_size=4)
    pictures = list(pipeline.generate(config, pocket, seen.append))
    assert sorted(picture.index for picture in pictures) == list(range(8))
    for step in seen:
        assert len({pocket.family.count_chunks(job.prompt) for job in step.jobs}) == 1
    assert [step.steps_done for step in seen] == list(range(1, len(seen) + 1))
    assert {step.steps_total for step in seen} == {len(seen)}


def test_drawing_leaves_torch_as_it_was(pocket: LoadedModel) -> None:
    state = torch.random.get_rng_state()
    torch.set_float32_matmul_precision("high")
    torch.set_num_threads(2)
    try:
        draw(pocket)
        assert torch.get_float32_matmul_precision() == "high" and torch.get_num_threads() == 2
        assert torch.equal(state, torch.random.get_rng_state())
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(1)


def test_the_recipe_says_everything(pocket: LoadedModel, tiny_pocket: Path) -> None:
    (picture,) = draw(pocket, steps=None, width=None, height=None, batch_size=4).values()
    config = picture.recipe["config"]
    assert (config["steps"], config["guidance_scale"], config["scheduler"], config["width"]) == (
        5,
        4.0,
        "ddim",
        64,
    )
    assert picture.recipe["image"] == {
        "index": 0,
        "seed": 5,
        "batch_shape": [1, 4, 16, 16],
        "batch_position": 0,
    }
    files = picture.recipe["model"]["files"]
    assert {"unet/config.json", "tokenizer/words.json", "scheduler/scheduler_config.json", "t2i.json"} <= set(
        files
    )
    runtime = picture.recipe["runtime"]
    assert {"device", "dtype", "vae_dtype", "threads", "cpu_capability", "matmul_precision"} <= set(runtime)
    assert set(runtime["versions"]) == {"python", "torch", "diffusers", "transformers", "t2i"}
    assert str(tiny_pocket.parent) not in str(picture.recipe)


def test_guidance_1_ignores_the_negative_prompt(pocket: LoadedModel) -> None:
    (first,) = draw(pocket, guidance_scale=1.0).values()
    (second,) = draw(pocket, guidance_scale=1.0, negative_prompt="red").values()
    (guided,) = draw(pocket, negative_prompt="red").values()
    assert (first.pixels == second.pixels).all() and (first.pixels != guided.pixels).any()


def test_bf16_draws(tiny_pocket: Path) -> None:
    model = pipeline.load(GenerateConfig(model=str(tiny_pocket), dtype="bf16"))
    (picture,) = draw(model, dtype="bf16").values()
    assert picture.recipe["runtime"]["dtype"] == "bf16"


@pytest.mark.parametrize("name", ["tiny_sd1", "tiny_sd2", "tiny_sdxl", "tiny_pocket"])
def test_fp16_draws_nearly_the_same_on_a_cpu(name: str, request: pytest.FixtureRequest) -> None:
    config = GenerateConfig(
        ("a dog",), "red", model=str(request.getfixturevalue(name)), steps=2, seed=5, width=64, height=64
    )
    (half,) = pipeline.generate(config.replace(dtype="fp16"))
    (full,) = pipeline.generate(config.replace(dtype="fp32"))
    assert half.recipe["runtime"]["dtype"] == "fp16"
    assert np.abs(half.pixels.astype(int) - full.pixels).max() <= 8


# ---- when something goes wrong


def fail_above(size: int, model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model run out of memory for batches of more than `size` pictures."""
    make = type(model.family).denoiser

    def denoiser(family: Any, cond: Any, *rest: Any) -> Any:
        if len(cond) > size:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return make(family, cond, *rest)

    monkeypatch.setattr(type(model.family), "denoiser", denoiser)


def test_out_of_memory_halves_the_batch(pocket: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = draw(pocket, num_images=5)
    fail_above(2, pocket, monkeypatch)
    told: list[str] = []
    config = GenerateConfig(prompts=("a dog",), steps=2, seed=5, num_images=5)
    pictures = list(pipeline.generate(config, pocket, tell=told.append))
    assert [picture.index for picture in pictures] == [0, 1, 2, 3, 4]
    assert {picture.recipe["image"]["batch_shape"][0] for picture in pictures} == {1, 2}
    assert "out of memory; going on with batches of 2" in told
    for picture in pictures:
        assert_nearly_equal(picture.pixels, expected["a dog", picture.seed].pixels)


def test_a_chosen_batch_size_is_never_changed(pocket: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_above(2, pocket, monkeypatch)
    with pytest.raises(OutOfMemory, match="64x64") as caught:
        draw(pocket, num_images=4, batch_size=4)
    assert "--batch-size below 4" in caught.value.hint
    fail_above(0, pocket, monkeypatch)
    with pytest.raises(OutOfMemory) as caught:
        draw(pocket)
    assert "--width" in caught.value.hint


def test_other_errors_are_not_taken_for_memory(pocket: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def denoiser(*_: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(type(pocket.family), "denoiser", denoiser)
    with pytest.raises(RuntimeError, match="shapes"):
        draw(pocket)


def test_numbers_that_are_not_finite_are_no_picture(
    pocket: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = type(pocket.family).denoiser

    def denoiser(*arguments: Any) -> Any:
        inner = make(*arguments)
        return lambda latents, timestep: inner(latents, timestep) * float("nan")

    monkeypatch.setattr(type(pocket.family), "denoiser", denoiser)
    with pytest.raises(ModelError, match="finite"):
        draw(pocket)


# ---- jobs and the Python door


def test_jobs_of_one_prompt_ignore_the_others() -> None:
    jobs = plan_jobs(GenerateConfig(prompts=("a", "b"), seed=7, num_images=3))
    assert [(job.prompt, job.seed, job.image_index, job.index) for job in jobs] == [
        ("a", 7, 0, 0), ("a", 8, 1, 1), ("a", 9, 2, 2), ("b", 7, 0, 3), ("b", 8, 1, 4), ("b", 9, 2, 5),
    ]  # fmt: skip
    drawn = plan_jobs(GenerateConfig(prompts=("a", "b"), num_images=2))
    assert drawn[1].seed == drawn[0].seed + 1 and drawn[2].seed != drawn[0].seed
    with pytest.raises(UsageError, match="--seed"):
        plan_jobs(GenerateConfig(prompts=("a",), seed=2**63 - 1, num_images=2))
    with pytest.raises(UsageError, match="no prompt"):
        plan_jobs(GenerateConfig())


def test_a_dash_reads_prompts() -> None:
    assert read_prompts(("a", "-", "b"), ["x\n", "\n", " y "]) == ("a", "x", "y", "b")
    assert read_prompts(("a", "b"), []) == ("a", "b")


def test_python_door_and_models_in_memory(pocket: LoadedModel) -> None:
    parts = pocket.family.parts
    model = weights.assemble(
        "pocket", pocket.unet, pocket.vae, parts.text_encoders, parts.tokenizers, pocket.scheduler_config,
        {"steps": 2, "width": 32, "height": 32},
    )  # fmt: skip
    (picture,) = t2i.generate(t2i.GenerateConfig(prompts=("a dog",), seed=1), model)
    assert picture.pixels.shape == (32, 32, 3) and picture.recipe["model"]["files"] == {}


def test_default_batches_fit() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for side, on_cpu, on_gpu in ((64, 16, 16), (512, 1, 4), (1024, 1, 1)):
        config = GenerateConfig(width=side, height=side)
        assert pipeline.default_batch_size(config, cpu) == on_cpu
        assert pipeline.default_batch_size(config, gpu) == on_gpu


def test_the_recorded_runtime_comes_back(pocket: LoadedModel) -> None:
    (picture,) = draw(pocket).values()
    recipe = picture.recipe
    recipe["runtime"] |= {"threads": 3, "matmul_precision": "high"}
    runtime = pipeline.recorded_runtime(recipe)
    assert (runtime.threads, runtime.matmul_precision, devices.DTYPE_NAMES[runtime.dtype]) == (
        3,
        "high",
        "fp32",
    )
