"""Pictures that are held out: which, that nothing is learned from them, their loss, the best weights."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_run import draw, small_config, write_dataset

from t2i.dataset import read_folder
from t2i.errors import DatasetError, StorageError
from t2i.methods import METHODS
from t2i.methods.draws import Draws
from t2i.training import train
from t2i.training.validation import Best, held_out, hold_out, read_best, save_best, validation_loss

DIGESTS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(1000)]


def test_a_picture_stays_on_its_side_whatever_the_others_are() -> None:
    out = held_out(DIGESTS, 0.2)
    assert 150 < len(out) < 250 and len(set(out.values())) == len(out)
    chosen = {DIGESTS[row] for row in out}
    some = DIGESTS[::-3] + DIGESTS[5:6] * 2
    again = held_out(some, 0.2)
    assert {some[row] for row in again} == chosen & set(some)
    assert all(seed == out[DIGESTS.index(some[row])] for row, seed in again.items())
    assert out.keys() <= held_out(DIGESTS, 0.3).keys()
    assert set(held_out(DIGESTS, 0.0, always=[3, 7])) == {3, 7}


def test_none_or_all_held_out_is_refused() -> None:
    with pytest.raises(DatasetError, match="none of 2 pictures"):
        held_out(["f" * 64] * 2, 0.1)
    with pytest.raises(DatasetError, match="all of 2 pictures"):
        held_out(["0" * 64] * 2, 0.1)


def test_a_folder_for_validation_is_held_out(tmp_path: Path) -> None:
    for part, shape in (("train", "bar"), ("val", "circle")):
        (tmp_path / part).mkdir()
        for colour in ("red", "blue"):
            draw(shape, colour).save(tmp_path / part / f"{colour} {shape}.png")
    folder = read_folder(tmp_path)
    out = hold_out(folder, 0.0, None)
    assert {folder.examples[row].file.parent.name for row in out} == {"val"} and len(out) == 2
    assert out == hold_out(folder, 0.0, tmp_path / "cache"), "with and without a memory of digests"
    with pytest.raises(DatasetError, match="a folder of its own"):
        hold_out(folder, 0.5, None)


def lines(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "vae" / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[int]]:
    """A dataset, a vae stage trained on it, and the rows that its steps saw."""
    dataset = write_dataset(tmp_path_factory.mktemp("data"))
    output, seen = tmp_path_factory.mktemp("run") / "run", []
    real = METHODS["vae"].loss

    def watched(self: Any, rows: np.ndarray, generator: Any) -> Any:
        seen.extend(rows.tolist() if self.vae.training else ())
        return real(self, rows, generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(METHODS["vae"], "loss", watched)
        list(train(small_config(
            dataset, output, method="vae", validation_split=0.3, validation_steps=2, learning_rate=0.05,
            checkpoints_total_limit=1, max_train_steps=8, checkpointing_steps=2,
        )))  # fmt: skip
    return dataset, output, seen


def test_nothing_is_learned_from_what_is_held_out(validated: tuple[Path, Path, list[int]]) -> None:
    dataset, output, seen = validated
    out = hold_out(read_folder(dataset), 0.3, None)
    assert set(seen) == set(range(24)) - set(out), "and every other picture is seen"
    assert json.loads((output / "vae" / "journal.json").read_text())["about"]["held_out"] == len(out)


def test_the_best_weights_are_kept_and_exported(validated: tuple[Path, Path, list[int]]) -> None:
    _, output, _ = validated
    losses = {line["step"]: line["val_loss"] for line in lines(output) if "val_loss" in line}
    assert list(losses) == [0, 2, 4, 6, 8]
    best = read_best(output / "vae")
    assert best is not None and best.loss == min(losses.values()) == losses[best.step]
    assert len(list((output / "vae" / "checkpoints").iterdir())) == 1, "rotation leaves the best alone"
    kept = load_file(output / "vae" / "best.safetensors")
    exported = load_file(output / "best/parts/vae/diffusion_pytorch_model.safetensors")
    name = "encoder.conv_in.weight"
    assert torch.equal(exported[name], kept[f"vae.{name}"])
    last = load_file(output / "parts/vae/diffusion_pytorch_model.safetensors")
    assert torch.equal(exported[name], last[name]) == (best.step == 8)


def test_what_would_be_replaced_is_refused(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "best" / "parts" / "vae").mkdir(parents=True)
    with pytest.raises(StorageError, match="best/parts/vae already exists"):
        next(train(small_config(shapes, tmp_path / "run", method="vae", validation_split=0.3)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.html").write_text("mine")
    with pytest.raises(StorageError, match=r"run\.html already exists"):
        next(train(small_config(shapes, tmp_path / "other", method="vae")))


def test_the_loss_of_the_same_weights_never_changes(
    validated: tuple[Path, Path, list[int]], tmp_path: Path
) -> None:
    """Resumed at the end, and validated again there; and what is exact stays exact."""
    dataset, output, _ = validated
    copy = Path(shutil.copytree(output, tmp_path / "run"))
    (copy / "vae" / "best.safetensors").unlink()
    changes = {"max_train_steps": 8, "checkpointing_steps": 2, "learning_rate": 0.05, "validation_split": 0.3}
    list(train(small_config(dataset, copy, method="vae", resume="latest", **changes)))
    assert json.loads((copy / "vae" / "done.json").read_text())["exact"] is True
    fewer = {**changes, "max_train_steps": 10, "validation_steps": 1}
    list(train(small_config(dataset, copy, method="vae", resume="latest", **fewer)))
    assert [line["step"] for line in lines(copy) if "val_loss" in line] == [0, 2, 4, 6, 8, 9, 10]
    with pytest.raises(Exception, match="made with validation_split"):
        list(
            train(
                small_config(
                    dataset, copy, method="vae", resume="latest", **{**fewer, "validation_split": 0.4}
                )
            )
        )


def test_every_picture_has_noise_of_its_own_that_never_changes() -> None:
    data: Any = SimpleNamespace(held_out={3: 11, 5: 12, 9: 13}, bucket_of=lambda _: 0)

    def forward(rows: np.ndarray, draws: Draws) -> tuple[torch.Tensor, dict[str, float]]:
        assert not torch.is_grad_enabled()
        seen.append((rows.tolist(), round(draws.uniform(1).item(), 6)))
        return torch.tensor(float(rows[0])), {}

    seen: list[Any] = []
    assert validation_loss(forward, False, data, 2) == pytest.approx(17 / 3)
    first = dict((rows[0], noise) for rows, noise in seen)
    seen.clear()
    data.held_out = {9: 13, 3: 11}
    validation_loss(forward, False, data, 2)
    assert all(first[rows[0]] == noise and len(set(rows)) == 1 for rows, noise in seen) and len(seen) == 2
    seen.clear()
    data.held_out = {3: 11, 5: 12, 9: 13}
    validation_loss(forward, True, data, 2)
    assert [rows for rows, _ in seen] == [[3, 5], [9]], "compared with each other: batches"


def test_the_best_is_read_from_its_own_file(tmp_path: Path) -> None:
    assert read_best(tmp_path) is None
    save_best(tmp_path, Best(7, 0.1 + 0.2), {"a": torch.ones(2)})
    assert read_best(tmp_path) == Best(7, 0.1 + 0.2)
    (tmp_path / "best.safetensors").write_bytes(b"torn")
    assert read_best(tmp_path) is None
