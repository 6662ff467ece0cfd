"""The bench beside Diffusers' training scripts: what it refuses and times, the stand-in for torchvision."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "bench"))

import side_by_side_runs
import stand_in_transforms as transforms
import train_side_by_side


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "has no train_text_to_image.py"),
        (["--pictures", "7", "--batch-size", "2"], "multiple of --batch-size"),
        (["--repeats", "0"], "at least 1"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(
    given: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    for script in side_by_side_runs.SCRIPTS.values() if given else ():
        (tmp_path / script).touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(sys, "argv", ["bench", "--diffusers-examples", str(tmp_path), *given])
    with pytest.raises(SystemExit):
        train_side_by_side.arguments()
    assert told in capsys.readouterr().err


def test_the_functions_whose_time_is_taken_are_there() -> None:
    for module, *names in (*side_by_side_runs.CACHING, side_by_side_runs.STEP):
        found = importlib.import_module(module)
        for name in names:
            found = getattr(found, name)
        assert callable(found)


@pytest.mark.parametrize("size", [(12, 8), (8, 12), (8, 8), (30, 17)])
def test_the_stand_in_scales_and_cuts_to_the_middle(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    steps = [transforms.Resize(8, transforms.InterpolationMode.LANCZOS), transforms.CenterCrop(8)]
    steps += [transforms.ToTensor(), transforms.Normalize([0.5], [0.5])]
    got = transforms.Compose(steps)(Image.fromarray(pixels))
    longer = int(8 * max(size) / min(size))
    width, height = (8, longer) if size[0] <= size[1] else (longer, 8)
    scaled = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
    left, top = round((width - 8) / 2), round((height - 8) / 2)
    wanted = scaled[top : top + 8, left : left + 8].transpose(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(got, torch.from_numpy(wanted).float())
