"""The dataset of a run: what its settings make of a folder, and that the steps see that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_run import small_config

from t2i.dataset import batch_rows
from t2i.errors import T2IError
from t2i.training import train
from t2i.training.reading import load_data, read_dataset


def config_of(dataset: Path, tmp_path: Path, **changes: Any) -> Any:
    return small_config(dataset, tmp_path / "run", **changes)


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Three squares and two wide pictures, each with two captions."""
    root = tmp_path / "wide"
    root.mkdir()
    for number, width in enumerate((32, 32, 64, 64, 32)):
        Image.new("RGB", (width, 32), (40 * number, 0, 0)).save(root / f"{number}.png")
        (root / f"{number}.txt").write_text(f"c{number}\nd{number}")
    return root


def test_plain_data_have_the_draws_of_the_first_version(shapes: Path, tmp_path: Path) -> None:
    config = config_of(shapes, tmp_path, method="vae", validation_split=0.2)
    data, told = load_data(config, read_dataset(config), tmp_path / "cache")
    training = data.training_rows()
    assert told == ["24 pictures, captions: metadata"] and 12 < len(training) < 24
    for step in range(8):
        expected = training[batch_rows(len(training), 4, step, 3)]
        assert np.array_equal(data.rows(step, 4, 3), expected)
        assert np.array_equal(data.views(expected), expected) and data.bucket_of(expected) == 0
    assert [one.key for one in data.seen()] == [data.key] and data.seen()[0].pixels is data.pixels


def test_buckets_mirror_images_and_captions_reach_the_steps(wide: Path, tmp_path: Path) -> None:
    config = config_of(wide, tmp_path, method="vae").replace(random_flip=True)
    object.__setattr__(config, "buckets", True)  # what methods on a base model may ask for
    object.__setattr__(config, "bucket_step", 8)
    data, told = load_data(config, read_dataset(config), tmp_path / "cache")
    assert told[-1] == "2 buckets: 32x32: 3, 40x24: 2" and data.pixels.shape == (5, 3, 32, 32)
    assert [one.pixels.shape for one in data.seen()] == [(6, 3, 32, 32), (4, 3, 24, 40)]
    assert len({data.key, *(one.key for one in data.seen())}) == 3
    rows = np.concatenate([data.rows(step, 2, 0) for step in range(60)])
    assert {data.captions[row] for row in rows} == {f"{letter}{n}" for letter in "cd" for n in range(5)}
    for row in rows[:20]:
        one = np.array([row])
        pixels = data.seen()[data.bucket_of(one)].pixels[data.views(one)]
        assert abs(int(pixels[0, 0, 4, 4]) - 40 * int(data.pictures_of(one)[0])) <= 2


def test_a_run_goes_on_without_pictures_that_cannot_be_read(shapes: Path, tmp_path: Path) -> None:
    dataset = Path(shutil.copytree(shapes, tmp_path / "data"))
    (dataset / "05.png").write_bytes((dataset / "05.png").read_bytes()[:60])
    lines = [json.loads(line) for line in (dataset / "metadata.jsonl").read_text().splitlines()]
    rows = [{**line, "text": [line["text"], "something"]} for line in lines]
    (dataset / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    changes = {"method": "vae", "max_train_steps": 2, "random_flip": True, "max_bad": 0.05}
    told = [progress.notice for progress in train(config_of(dataset, tmp_path, **changes)) if progress.notice]
    assert told[0].startswith("23 pictures, captions: metadata, 23 with several captions, mirror images too")
    assert "05.png cannot be read: the file is truncated" in told[2]
    assert (tmp_path / "run" / "parts" / "vae").is_dir()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bucket_step": 32}, "--bucket-step says something of --buckets"),
        ({"alpha_background": "pink"}, "--alpha-background pink: not a colour"),
        ({"buckets": True}, "--buckets is not for --method"),
    ],
)
def test_settings_that_do_nothing_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(T2IError, match=told):
        small_config(
            tmp_path, tmp_path / "run", method="lora" if "bucket_step" in changes else "vae", **changes
        )
