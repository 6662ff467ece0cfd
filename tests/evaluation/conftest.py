"""What the evaluation is tested on: renderings of ten glyphs, noise, and a CLIP model in miniature."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prompted import PROMPTS, write_folder

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples" / "pocket"))  # scripts in a folder, not a package


@pytest.fixture(scope="session")
def render() -> Callable[[int], list[np.ndarray]]:
    """True renderings of `PROMPTS`; another number gives other sizes, places and shades."""
    from composing import compose
    from drawing import Painter
    from glyphs import GlyphSource
    from plans import Part, Plan

    glyphs = GlyphSource(ROOT / "tests" / "pocket" / "ten-glyphs.ttf")
    painter = Painter(glyphs)

    def render_copy(copy: int) -> list[np.ndarray]:
        scenes = [
            compose(
                Plan(kind, tuple(map(Part, things)), background, relation),
                glyphs, 64, random.Random(100 * copy + k),
            )
            for k, (kind, things, relation, background) in enumerate(PROMPTS.values())
        ]  # fmt: skip
        return [painter.draw(scene, 64) for scene in scenes]

    return render_copy


@pytest.fixture(scope="session")
def renderings(tmp_path_factory: pytest.TempPathFactory, render: Callable[[int], list[np.ndarray]]) -> Path:
    """A folder with two renderings of each prompt."""
    folder = tmp_path_factory.mktemp("renderings") / "pictures"
    return write_folder(folder, [*PROMPTS, *PROMPTS], [*render(1), *render(2)])


@pytest.fixture(scope="session")
def other_renderings(
    tmp_path_factory: pytest.TempPathFactory, render: Callable[[int], list[np.ndarray]]
) -> Path:
    """Two more renderings of each prompt."""
    folder = tmp_path_factory.mktemp("reference") / "pictures"
    return write_folder(folder, [*PROMPTS, *PROMPTS], [*render(3), *render(4)])


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of noise that claims to show the prompts."""
    random_values = np.random.default_rng(0).integers(0, 256, (2 * len(PROMPTS), 64, 64, 3), dtype=np.uint8)
    return write_folder(
        tmp_path_factory.mktemp("noise") / "pictures", [*PROMPTS, *PROMPTS], list(random_values)
    )


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random CLIP model with 32-pixel pictures."""
    import torch
    from tiny_models import make_tokenizer
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    tokenizer = make_tokenizer(max_length=16)
    shared: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "projection_dim": 24,
    }  # fmt: skip
    text = shared | {
        "vocab_size": len(tokenizer), "max_position_embeddings": 16, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    torch.manual_seed(5)
    config = CLIPConfig(
        text_config=text, vision_config=shared | {"image_size": 32, "patch_size": 8}, projection_dim=24
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    normalisation = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    (folder / "preprocessor_config.json").write_text(json.dumps(normalisation))
    return folder
