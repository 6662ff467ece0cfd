"""What is said about time and disk before anything is drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from t2i.batch import BatchJob, count_workers, estimate, plan_batch
from t2i.batch.estimating import guess
from t2i.batch.workers import crews
from t2i.catalog import ASSETS
from t2i.config import GenerateConfig
from t2i.config.batch import BatchConfig
from t2i.flops import unet_flop
from t2i.promptfiles import PromptOptions, parse_prompt_file


def jobs_of(model: Path, count: int, options: str = "") -> list[BatchJob]:
    text = "".join(f"a dog --d {seed}{options}\n" for seed in range(count)).encode()
    entries = parse_prompt_file(text, "txt", options=PromptOptions({"model": str(model)})).entries
    return plan_batch(entries, {}, Path("nowhere"))


def test_several_workers_take_less_time(tiny_pocket: Path, tmp_path: Path) -> None:
    done, *todo = jobs_of(tiny_pocket, 9)
    (tmp_path / done.file).write_bytes(b"0" * 50)
    records: Mapping[str, Any] = {done.id: {"seconds": 3.0}}
    for workers, seconds in ((1, 24.0), (2, 12.0), (3, 8.0), (100, 3.0), (None, None)):
        found = estimate(todo, [done], records, tmp_path, workers)
        assert found is not None and found.measured
        assert (found.seconds, found.size_bytes) == (seconds, 400)


def test_what_was_never_measured_is_guessed_and_said_to_be(tiny_pocket: Path, tmp_path: Path) -> None:
    done, *todo = jobs_of(tiny_pocket, 3)
    (tmp_path / done.file).write_bytes(b"0" * 50)
    records: Mapping[str, Any] = {done.id: {"seconds": 3.0}}
    others = jobs_of(tiny_pocket, 2, " --s 7")
    mixed = estimate([*todo, *others], [done], records, tmp_path)
    guessed = estimate(others, [], {}, tmp_path)
    assert mixed is not None and guessed is not None and not mixed.measured and not guessed.measured
    assert mixed.seconds is not None and guessed.seconds is not None
    assert mixed.seconds == pytest.approx(6 + guessed.seconds)
    assert estimate([], [done], records, tmp_path) is None


def test_a_guess_grows_with_steps_guidance_and_size(tiny_pocket: Path) -> None:
    plain = GenerateConfig(
        prompts=("x",), model=str(tiny_pocket), steps=10, guidance_scale=1, width=64, height=64, device="cpu"
    )
    base, size = guess(plain, "a.png")
    assert base is not None and size is not None
    assert guess(plain.replace(steps=30), "a.png")[0] == pytest.approx(3 * base)
    assert guess(plain.replace(guidance_scale=4), "a.png")[0] == pytest.approx(2 * base)
    larger, more = guess(plain.replace(width=128), "a.png")
    assert larger == pytest.approx(2 * base) and more is not None and more > size
    smaller = guess(plain, "a.jpg")[1]
    assert smaller is not None and smaller < size


def test_of_a_model_that_is_not_here_only_the_known_is_guessed() -> None:
    known = GenerateConfig(prompts=("x",), model="sd15", steps=9, guidance_scale=3.0, width=512, height=512)
    seconds, size = guess(known, "a.png")
    assert seconds is None and size is not None
    assert guess(known.replace(model="no/such", width=None), "a.png") == (None, None)


@pytest.mark.parametrize(("family", "side"), [("sd1", 64), ("sd2", 64), ("sdxl", 128)])
def test_the_arithmetic_of_a_step_is_that_of_the_network(family: str, side: int) -> None:
    """Against torch's own counter, on a network without memory."""
    config = json.loads((ASSETS / "configs" / family / "unet" / "config.json").read_text())
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
        added = {"text_embeds": torch.zeros(1, 1280), "time_ids": torch.zeros(1, 6)}
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            unet(
                torch.zeros(1, 4, side, side),
                torch.zeros(1),
                torch.zeros(1, 77, config["cross_attention_dim"]),
                added_cond_kwargs=added if family == "sdxl" else None,
            )
    assert unet_flop(config, side, side) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_how_many_workers_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "local_devices", lambda devices: ["cuda:0", "cuda:1", "cuda:2"])
    for values, count in (
        ({}, 1), ({"devices": "cpu,cpu"}, 2), ({"devices": "all"}, 3), ({"engine": "ray"}, 3),
        ({"engine": "ray", "ray_address": "auto"}, None),
        ({"engine": "ray", "ray_address": "auto", "devices": "cuda,cuda"}, 2),
    ):  # fmt: skip
        assert count_workers(BatchConfig(output="out", **values)) == count
