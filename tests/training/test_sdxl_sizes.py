"""What SDXL is told of the sizes and crops of its training pictures: those that they really had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import CPU, NEEDS, base_config
from PIL import Image

from t2i.conditioning import Conditioning, join
from t2i.dataset.decoding import crop_of
from t2i.methods import METHODS
from t2i.methods.draws import Draws
from t2i.training.inputs import with_inputs
from t2i.training.reading import load_data, read_dataset
from t2i.training.start import start_parts

SIZES = ((50, 33), (33, 50), (40, 40), (71, 32))


def as_diffusers_tells(width: int, height: int, resolution: int) -> list[int]:
    """The six numbers of Diffusers' train_text_to_image_sdxl.py with --center_crop, by its formulas.

    The short side is scaled to `resolution`, as torchvision's Resize does; the crop is what is over, halved
    and rounded; original size, crop and target are (height, width) and (top, left).
    """
    short, long = min(width, height), max(width, height)
    scaled = int(resolution * long / short)
    new_width, new_height = (scaled, resolution) if width >= height else (resolution, scaled)
    top = max(0, round((new_height - resolution) / 2.0))
    left = max(0, round((new_width - resolution) / 2.0))
    return [height, width, top, left, resolution, resolution]


def test_crops_are_those_of_diffusers() -> None:
    draw = np.random.default_rng(0)
    for width, height, resolution in draw.integers(8, 3000, (3000, 3)).tolist():
        top, left = crop_of((width, height), resolution, resolution)
        found = [height, width, top, left, resolution, resolution]
        assert found == as_diffusers_tells(width, height, resolution)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A picture of each of `SIZES`, the last one turned by its EXIF."""
    root = tmp_path / "pictures"
    root.mkdir()
    for number, (width, height) in enumerate(SIZES):
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 3 else 1
        stored = (height, width) if number == 3 else (width, height)
        Image.new("RGB", stored, (60 * number, 0, 0)).save(root / f"{number}.png", exif=exif)
        (root / f"{number}.txt").write_text(f"picture {number}")
    return root


def told(name: str, model: Path, root: Path, tmp_path: Path, rows: list[int], **changes: Any) -> Any:
    """What the base's UNet is told in one step, (B, 6), and the method."""
    config = base_config(name, model, root, tmp_path / "run", resolution=32, **changes)
    data, _ = load_data(config, read_dataset(config), tmp_path / "cache")
    assert data.pictures is not None
    if name == "dreambooth":
        folder = tmp_path / "run" / "class_images"
        folder.mkdir(parents=True)
        for number in range(config.num_class_images):
            Image.new("RGB", (32, 32)).save(folder / f"{number:05d}.png")
    data = with_inputs(config, data.pictures.folder, data)
    torch.manual_seed(0)
    method: Any = METHODS[name](config, data, start_parts(config, name), CPU)
    assert list((tmp_path / "cache").glob("sizes-*")), (
        "read by the leader: no other process may start readers"
    )
    seen: list[torch.Tensor] = []
    real = method.unet.forward

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.append(named["added_cond_kwargs"]["time_ids"])
        return real(*arguments, **named)

    method.unet.forward = watched
    method.loss(np.array(rows), Draws.seeded(0))
    return seen[-1].tolist(), method


ALIKE = ("lora", "textual-inversion")  # nothing in them but what they share with "full" says a size


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else [])
        for name in sorted(set(NEEDS) - {"classifier"})
    ],
)
def test_every_method_tells_sdxl_the_real_sizes(
    name: str, pictures: Path, tmp_path: Path, tiny_sdxl: Path
) -> None:
    changes: dict[str, Any] = {"num_class_images": 2} if name == "dreambooth" else {}
    found, method = told(name, tiny_sdxl, pictures, tmp_path, [3, 0, 1, 2], **changes)
    wanted = [as_diffusers_tells(*SIZES[number], 32) for number in (3, 0, 1, 2)]
    wanted += [[32, 32, 0, 0, 32, 32]] * (4 if name == "dreambooth" else 0)
    assert found == wanted
    assert "time ids" in method.frozen(), "a checkpoint from before is not resumed as if nothing had changed"


def test_buckets_and_mirror_images(pictures: Path, tmp_path: Path, tiny_sdxl: Path) -> None:
    config = base_config("full", tiny_sdxl, pictures, tmp_path / "run", resolution=32)
    changes = {"buckets": True, "bucket_step": 8, "random_flip": True}
    data, _ = load_data(config.replace(**changes), read_dataset(config), tmp_path / "cache")
    assert data.pictures is not None
    rows = np.array([[row for row in range(8) if row % 4 == k] for k in range(4)])  # a picture and its mirror
    for number, (row, mirrored) in enumerate(rows):
        height, width = data.pictures.shape_of(row)
        found = data.pictures.time_ids(np.array([row, mirrored])).tolist()
        top, left = crop_of(SIZES[number], width, height)
        assert found == [[*SIZES[number][::-1], top, left, height, width]] * 2, "a mirror moves no centre"
    assert data.pictures.shape_of(0) == (24, 40) and data.pictures.shape_of(1) == (40, 24)


def test_other_families_are_told_nothing(pictures: Path, tmp_path: Path, tiny_sd1: Path) -> None:
    config = base_config("full", tiny_sd1, pictures, tmp_path / "run", resolution=32)
    data, _ = load_data(config, read_dataset(config), tmp_path / "cache")
    method: Any = METHODS["full"](config, data, start_parts(config, "full"), CPU)
    assert method.frozen() == {"base": method.base_key}, "older checkpoints go on exactly"
    method.loss(np.arange(4), Draws.seeded(0))


def test_sizes_go_along_with_their_prompts() -> None:
    embeds, sizes = torch.zeros(2, 3, 4), torch.arange(12).view(2, 6)
    one = Conditioning(embeds, time_ids=sizes)
    assert join([one, one.select([1])]).time_ids.tolist() == [*sizes.tolist(), sizes[1].tolist()]
    with pytest.raises(ValueError, match="with and without sizes"):
        join([one, Conditioning(embeds)])
