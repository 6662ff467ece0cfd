"""Several processes train one model: shares, averages, exact resume, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_run import small_config

from t2i.errors import ModelError, UsageError
from t2i.training import train
from t2i.training.processes import Team


def test_shares_are_the_whole_batch_once() -> None:
    rows = np.arange(12)
    shares = [Team(rank, 3).share(rows) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == list(rows)
    assert {len(share) for share in shares} == {4}


def test_every_process_and_step_has_noise_of_its_own() -> None:
    seeds = {Team(rank, 4).seed(seed, step) for rank in range(4) for seed in (0, 1) for step in (0, 1, 9_999)}
    assert len(seeds) == 4 * 2 * 3
    assert Team().seed(7, 5) == (7 << 32) + 5, "what one process draws never depends on this module"


def test_one_process_is_left_alone() -> None:
    gradient = torch.ones(3)
    assert Team().average([gradient], {"loss": 2.0}) == {"loss": 2.0}
    assert gradient.tolist() == [1, 1, 1]


def test_a_process_that_has_died_is_told_without_the_places_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("[/build/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")

    monkeypatch.setattr("torch.distributed.all_reduce", broken)
    monkeypatch.setattr("torch.distributed.barrier", broken)
    team = Team(0, 2)
    for call in (lambda: team.average([torch.ones(1)], {"loss": 1.0}), team.wait):
        with pytest.raises(ModelError) as caught:
            call()
        assert caught.value.message == "another process of this training has failed or was killed"
        assert "--resume latest" in caught.value.hint


def test_a_batch_that_cannot_be_shared_is_refused(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch size 4 cannot be shared by 3"):
        list(train(small_config(shapes, tmp_path / "run", num_processes=3)))


def test_two_processes_resume_to_the_same_bits(shapes: Path, tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    list(train(small_config(shapes, whole, method="vae", num_processes=2)))
    checkpoints = whole / "vae" / "checkpoints"
    (resumed / "vae" / "checkpoints").mkdir(parents=True)
    shutil.copytree(checkpoints / "checkpoint-00000003", resumed / "vae/checkpoints/checkpoint-00000003")
    list(train(small_config(shapes, resumed, method="vae", num_processes=2, resume="latest")))
    name = "vae/checkpoints/checkpoint-00000006"
    for file in ("weights", "average", "optimizer"):
        wanted, found = (load_file(folder / name / f"{file}.safetensors") for folder in (whole, resumed))
        assert wanted.keys() == found.keys()
        assert all(torch.equal(wanted[key], found[key]) for key in wanted)

    alone = tmp_path / "alone"
    list(train(small_config(shapes, alone, method="vae")))
    shared, single = (
        [json.loads(line) for line in (folder / "vae" / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, alone)
    )
    # The first step sees the same pictures with the same weights: only the latents' noise differs.
    assert shared[0]["edges"] == pytest.approx(single[0]["edges"], rel=0.1)
    assert shared[0]["kl"] == pytest.approx(single[0]["kl"], rel=1e-4)
    assert shared[0]["grad_norm"] == pytest.approx(single[0]["grad_norm"], rel=0.2)
