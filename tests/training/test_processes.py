"""Several processes train one model: shares, averages, exact resume, refusals."""

from __future__ import annotations

import json
import operator
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bases import base_config
from safetensors.torch import load_file
from small_run import small_config

from t2i.config.files import to_toml
from t2i.errors import ModelError, UsageError
from t2i.methods.draws import Draws
from t2i.training import processes, train
from t2i.training.processes import Team
from t2i.training.reading import load_data, read_dataset
from t2i.training.stage import Stage


def test_shares_are_the_whole_batch_once() -> None:
    rows = np.arange(12)
    shares = [Team(rank, 3).share(rows) for rank in range(3)]
    assert sorted(np.concatenate(shares)) == list(rows)
    assert {len(share) for share in shares} == {4}


def test_the_numbers_of_a_batch_are_shared_out_as_its_rows_are() -> None:
    def drawn(rank: int, size: int, count: int) -> list[torch.Tensor]:
        draws = Draws(torch.Generator().manual_seed(3), rank, size)
        return [draws.normal(count, 2, 2), draws.uniform(count), draws.integers(1000, count)]

    whole, *parts = drawn(0, 1, 6), drawn(0, 2, 3), drawn(1, 2, 3)
    for rank, part in enumerate(parts):
        for wanted, found in zip(whole, part, strict=True):
            assert torch.equal(found, wanted[rank::2])
    seeds = {Draws(torch.Generator().manual_seed(3), rank, 4).seed() for rank in range(4)}
    assert len(seeds) == 4, "dropout inside a network differs"


def test_one_process_is_left_alone() -> None:
    gradient = torch.ones(3)
    assert Team().average([gradient], {"loss": 2.0}) == {"loss": 2.0}
    assert gradient.tolist() == [1, 1, 1]


def test_a_process_that_has_died_is_told_without_the_places_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("[/build/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")

    monkeypatch.setattr("torch.distributed.all_reduce", broken)
    monkeypatch.setattr("torch.distributed.barrier", broken)
    team = Team(0, 2)
    for call in (lambda: team.average([torch.ones(1)], {"loss": 1.0}), team.wait):
        with pytest.raises(ModelError) as caught:
            call()
        assert caught.value.message == "another process of this training has failed or was killed"
        assert "--resume latest" in caught.value.hint


def test_a_process_that_ends_before_it_has_begun_is_told(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the leader would wait for it for days."""
    monkeypatch.setattr(processes, "_follow", operator.add)  # fails at once in the new process
    with pytest.raises(ModelError, match="has ended before it had begun") as caught:
        list(train(small_config(shapes, tmp_path / "run", method="vae", num_processes=2)))
    assert "--num-processes" in caught.value.hint
    assert not torch.distributed.is_initialized()


def test_a_launcher_decides_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(Path("unused"), Path("unused"), method="vae")
    assert processes.launched() is None and not processes.follows()
    monkeypatch.setenv("RANK", "1")
    assert processes.launched() is None, "one process alone"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.launched() == (1, 2) and processes.follows()
    processes.check_processes(config)
    with pytest.raises(UsageError, match="--num-processes 4: a launcher has started 2"):
        processes.check_processes(config.replace(num_processes=4))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="batch size 4 cannot be shared by 3"):
        processes.check_processes(config)
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(UsageError, match="are no numbers"):
        processes.launched()


class Meeting:
    """`torch.distributed` for processes that are threads of this one."""

    def __init__(self, size: int) -> None:
        self.barrier, self.values = threading.Barrier(size), {}

    def all_reduce(self, value: torch.Tensor) -> None:
        self.values[threading.get_ident()] = value.clone()
        self.barrier.wait(timeout=60)
        value.copy_(sum(self.values.values()))
        self.barrier.wait(timeout=60)


METHODS_TO_SHARE: dict[str, dict[str, Any]] = {
    "vae": {"vae_crop": 8},
    "clip": {},
    "unet": {"timestep_sampling": "logit_normal", "gradient_accumulation_steps": 2, "caption_dropout": 0.4},
    "full": {"noise_offset": 0.1, "input_perturbation": 0.1, "caption_dropout": 0.4, "snr_gamma": 5.0},
    "lora": {"timestep_sampling": "uniform"},
}


@pytest.mark.parametrize("method", METHODS_TO_SHARE)
def test_two_processes_learn_what_one_does_from_twice_the_batch(
    method: str, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_pocket: Path
) -> None:
    """Noise, timesteps, dropped captions and all: figures, gradients, weights."""
    meeting = Meeting(2)
    monkeypatch.setattr("torch.distributed.all_reduce", meeting.all_reduce)
    changes, output = METHODS_TO_SHARE[method], tmp_path / "run"
    if method in ("full", "lora"):
        config = base_config(method, tiny_pocket, shapes, output, **changes)
    else:
        start = {"model": str(tiny_pocket)} if method == "unet" else {}
        config = small_config(shapes, output, method=method, **changes, **start)
    data, _ = load_data(config, read_dataset(config), tmp_path / "cache")
    alone = Stage(config, method, data, Team())  # first: it fills the caches for the others
    monkeypatch.setattr(Team, "wait", lambda self: None)  # one after the other, in this process
    shared = [Stage(config, method, data, Team(rank, 2)) for rank in (0, 1)]
    figures: dict[int, list[dict[str, float]]] = {0: [], 1: []}

    def steps(rank: int) -> None:
        figures[rank] += [shared[rank]._one_step() for _ in range(3)]

    threads = [threading.Thread(target=steps, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    expected = [alone._one_step() for _ in range(3)]
    for wanted, *found in zip(expected, figures[0], figures[1], strict=True):
        for one in found:
            assert one == pytest.approx(wanted, rel=1e-5)
    for name, value in alone.parameters.items():
        assert torch.equal(shared[0].parameters[name], shared[1].parameters[name]), "they stay together"
        torch.testing.assert_close(shared[0].parameters[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_two_launched_processes_train_as_one_does(shapes: Path, tmp_path: Path) -> None:
    """As `torchrun` and `accelerate launch` start them: the figures are equal."""
    code = "import sys; from t2i.cli import run; sys.exit(run(sys.argv[1:]))"
    settings = small_config(shapes, tmp_path, method="vae", max_train_steps=3)
    (tmp_path / "run.toml").write_text(to_toml(settings, leave_out=("output",)))

    def start(output: str, **environment: str) -> subprocess.Popen[str]:
        arguments = ["train", "--config", str(tmp_path / "run.toml"), "--output", str(tmp_path / output)]
        known = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments], env=known,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [start("both", RANK=str(rank), LOCAL_RANK=str(rank), **place) for rank in (0, 1)]
    ended = [one.communicate(timeout=500) for one in started]
    assert [one.returncode for one in started] == [0, 0], ended
    assert ended[0][0].strip() == str(tmp_path / "both" / "parts") and ended[1] == ("", "")
    alone = start("alone")
    assert alone.communicate(timeout=500)[0] and alone.returncode == 0
    both, single = (
        [json.loads(line) for line in (tmp_path / name / "vae" / "metrics.jsonl").read_text().splitlines()]
        for name in ("both", "alone")
    )
    assert len(both) == 3
    for one, other in zip(both, single, strict=True):
        for name in ("loss", "l1", "edges", "kl", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-5), name


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
