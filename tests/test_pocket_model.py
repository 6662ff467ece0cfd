"""The model in the package: small enough, loads everywhere, draws what its colours say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from t2i.catalog import MODELS
from t2i.config import GenerateConfig
from t2i.images import read_recipe
from t2i.pipeline import generate, load

FOLDER = MODELS["pocket"].folder
assert FOLDER is not None
PROMPTS = {
    "a dog on a red background": (214, 40, 40),
    "a cat on a blue background": (45, 90, 215),
    "a robot on a yellow background": (250, 220, 60),
    "a rose on a black background": (15, 15, 15),
}
"""Prompt → its background in the training pictures, roughly."""


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    config = GenerateConfig(tuple(PROMPTS), seed=0)
    return {picture.prompt: picture.pixels for picture in generate(config, load(config))}


def test_it_is_at_most_40_megabytes_and_fp16() -> None:
    from safetensors import safe_open

    files = sorted(FOLDER.rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < 40e6
    for file in files:
        with safe_open(file, "pt") as weights:
            kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}
        assert kinds <= {"F16", "I64"}, file
    assert len(files) == 3


def test_it_names_no_folder_of_the_machine_that_made_it() -> None:
    for path in FOLDER.rglob("config.json"):
        assert "_name_or_path" not in json.loads(path.read_text()), path


def test_the_model_card_has_what_a_card_needs() -> None:
    card = " ".join((FOLDER / "README.md").read_text().split())
    for word in ("Noto Color Emoji", "Open Font License", "Apache-2.0", "make.sh", "Limits", "Figures"):
        assert word in card, word


@pytest.mark.parametrize("prompt", list(PROMPTS))
def test_the_background_is_the_one_asked_for(drawn: dict[str, np.ndarray], prompt: str) -> None:
    pixels = drawn[prompt].astype(float)
    edge = np.concatenate([pixels[:3].reshape(-1, 3), pixels[-3:].reshape(-1, 3)])
    assert np.abs(np.median(edge, axis=0) - PROMPTS[prompt]).max() < 50


def test_there_is_a_thing_in_the_middle(drawn: dict[str, np.ndarray]) -> None:
    for pixels in drawn.values():
        edge = np.median(pixels[:3].reshape(-1, 3).astype(float), axis=0)
        middle = pixels[16:48, 16:48].reshape(-1, 3).astype(float)
        assert np.abs(middle - edge).max(axis=1).mean() > 30


def test_diffusers_draws_the_same() -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    config = GenerateConfig(("a fox on a purple background",), seed=5, steps=5)
    ours = next(iter(generate(config, load(config)))).pixels
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        config.prompts[0], num_inference_steps=5, guidance_scale=4.0, width=64, height=64,
        generator=torch.Generator().manual_seed(5), output_type="np",
    ).images[0]  # fmt: skip
    # 5 divides 1000, so Diffusers' own DDIM visits the right levels; ᾱ_T differs by 2⁻²⁴.
    assert np.abs(ours.astype(float) - theirs * 255).mean() < 1


def test_a_fresh_process_draws_and_another_verifies(tmp_path: Path) -> None:
    picture = tmp_path / "corgi.png"
    t2i = [sys.executable, "-m", "t2i"]
    draw = [*t2i, "generate", "a corgi playing a trumpet", "--seed", "0", "--offline", "-o", str(picture)]
    done = subprocess.run(draw, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{picture}\n"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and "pocket" in done.stderr
    recipe = read_recipe(picture)
    assert recipe is not None and recipe["config"]["seed"] == 0
    assert str(Path.home()) not in json.dumps(recipe)
    done = subprocess.run([*t2i, "verify", str(picture)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pixels: exact" in done.stdout and "inputs: same" in done.stdout
