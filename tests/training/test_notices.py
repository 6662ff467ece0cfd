"""What a run tells beforehand, so that nobody is surprised afterwards."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from bases import make, shapes_data
from small_run import small_config

from t2i.training.reading import bucket_plan
from t2i.training.trackers import tracker_notice


def test_without_tensorboard_the_default_says_so(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(shapes, tmp_path, report_to="auto")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert 'pip install "t2i[tensorboard]"' in tracker_notice(config)
    assert tracker_notice(config.replace(report_to="none")) == ""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert tracker_notice(config) == ""


def test_a_dora_in_the_format_of_kohya_is_no_dora_elsewhere(
    shapes: Path, tmp_path: Path, tiny_pocket: Path
) -> None:
    data = shapes_data(shapes, tmp_path, 32)
    told = make("lora", tiny_pocket, data, resolution=32, dora=True, lora_format="kohya").notices()
    assert any("plain Diffusers reads only the LoRA" in line for line in told)
    assert make("lora", tiny_pocket, data, resolution=32, dora=True).notices() == []


@pytest.mark.parametrize(("resolution", "step"), [(64, 8), (240, 8), (256, 64), (512, 64)])
def test_buckets_fit_the_size_of_the_pictures(resolution: int, step: int, tmp_path: Path) -> None:
    config = small_config(tmp_path, tmp_path, method="lora", buckets=True, resolution=resolution)
    plan = bucket_plan(config)
    assert plan is not None and plan.step == step and len(plan.sizes) > 2
    given = bucket_plan(config.replace(bucket_step=16))
    assert given is not None and given.step == 16
