"""Drawn pictures that are training pictures again are told from new ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import small_config

from t2i.methods import TrainingData
from t2i.training.memorisation import is_copy, nearest, report_memorisation, thumbnails


def pictures(count: int, seed: int, side: int = 32) -> np.ndarray:
    """Smooth random pictures, uint8 (count, 3, side, side)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    large = [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in small]
    return np.stack(large).transpose(0, 3, 1, 2)


def noisy(table: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 6, table.shape)
    return np.clip(table + noise, 0, 255).astype(np.uint8)


TABLE = pictures(80, 0)


def test_copies_are_flagged_and_new_pictures_are_not() -> None:
    rows = np.arange(80)
    drawn = np.concatenate([noisy(TABLE[[5, 17, 60]], 1), pictures(20, 2)]).transpose(0, 2, 3, 1)
    found = nearest(drawn, TABLE, rows)
    assert [row for row, _, _ in found[:3]] == [5, 17, 60]
    assert [is_copy(distance, ratio) for _, distance, ratio in found] == [True] * 3 + [False] * 20
    without = nearest(drawn[:1], TABLE, np.delete(rows, 5))
    assert without[0][0] != 5 and not is_copy(*without[0][1:]), "what is held out is not compared with"


def test_a_copy_is_flagged_among_near_and_equal_pictures() -> None:
    cluster = np.concatenate([noisy(TABLE[:1], seed) for seed in range(60)] + [TABLE[:1]] * 3)
    ((_, distance, ratio),) = nearest(TABLE[:1].transpose(0, 2, 3, 1), cluster, np.arange(63))
    assert is_copy(distance, ratio)
    ((_, distance, ratio),) = nearest(TABLE[1:2].transpose(0, 2, 3, 1), TABLE[:1], np.arange(1))
    assert ratio == 1.0 and not is_copy(distance, ratio)


def test_a_common_sight_is_no_copy() -> None:
    """Near to one training picture, and as near to many others."""
    many = np.stack([np.full((3, 32, 32), 128 + shade, np.uint8) for shade in np.arange(20, 40)])
    drawn = np.full((1, 32, 32, 3), 128 + 55, np.uint8)
    ((_, distance, ratio),) = nearest(drawn, many, np.arange(len(many)))
    assert 0.03 < distance < 0.1 and not is_copy(distance, ratio)


@pytest.mark.parametrize("side", [32, 33, 64])
def test_thumbnails_are_the_means_of_their_cells(side: int) -> None:
    """Against Pillow's box filter and its own conversion, which round to bytes."""
    table = pictures(4, 3, side)
    ours = thumbnails(table).reshape(4, 3, 16, 16)
    if side % 16:
        assert ours.shape == (4, 3, 16, 16) and abs(ours[:, 0].mean() - table.mean() / 255) < 0.1
        return
    for one, cells in zip(table, ours, strict=True):
        picture = Image.fromarray(one.transpose(1, 2, 0)).resize((16, 16), Image.Resampling.BOX)
        theirs = np.asarray(picture.convert("YCbCr")).astype(float) / 255 - [0, 128 / 255, 128 / 255]
        assert np.abs(cells.transpose(1, 2, 0) - theirs).max() < 2 / 255


def report(tmp_path: Path, draw: Any, **changes: Any) -> tuple[str, dict[str, Any]]:
    names = [f"{number}.png" for number in range(80)]
    data = TrainingData(TABLE, [f"picture {k}" for k in range(80)], tmp_path, "key", {5: 1}, names)
    settings = small_config(Path("unused"), Path("unused"), method="unet", **changes)
    told = report_memorisation(tmp_path, data, draw, settings)
    file = tmp_path / "memorisation.json"
    return told, json.loads(file.read_text()) if file.is_file() else {}


def test_the_report_names_pairs_and_shows_them(tmp_path: Path) -> None:
    asked: list[Any] = []

    def draw(prompts: Any, seeds: Any) -> torch.Tensor:
        asked.append((list(prompts), list(seeds)))
        drawn = np.concatenate([noisy(TABLE[[9]], 1), pictures(len(prompts) - 1, 2)])
        return torch.from_numpy(drawn).float() / 127.5 - 1

    told, found = report(tmp_path, draw, memorisation_samples=10, sample_prompts=("one", "two"))
    assert told.startswith("memorisation: 1 of 10 drawn pictures are copies") and "memorisation.png" in told
    assert asked[0][0] == ["one", "two"] * 5 and len(set(asked[0][1])) == 10
    assert found["copies"] == 1 and found["training_pictures"] == 79
    assert found["pairs"][0] | {"distance": 0, "ratio": 0} == {
        "prompt": "one", "copy": True, "distance": 0, "ratio": 0, "training_picture": "9.png",
        "caption": "picture 9",
    }  # fmt: skip
    with Image.open(tmp_path / "memorisation.png") as sheet:
        assert sheet.size == (8 * 96, 4 * 96)
    report(tmp_path, draw, memorisation_samples=10, sample_prompts=())
    assert "picture 5" not in asked[1][0] and len(set(asked[1][0])) == 10


def test_pictures_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    told, found = report(tmp_path, lambda prompts, _: torch.full((len(prompts), 3, 32, 32), torch.nan))
    assert told.startswith("no comparison with the training pictures: the picture has pixels") and not found
