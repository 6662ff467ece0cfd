"""Figures go where they are asked to go, and a missing package is told before the work."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from small_run import small_config

from t2i.errors import UsageError
from t2i.training import trackers
from t2i.training.trackers import check_trackers, open_trackers


def config(report_to: str) -> Any:
    return small_config(Path("unused"), Path("runs/mine"), method="vae", report_to=report_to)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_refused_where_it_was_asked_for(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trackers, "_installed", lambda _: False)
    with pytest.raises(UsageError, match=f"--report-to {name} needs the package {name}") as caught:
        check_trackers(config(name))
    assert f"t2i[{name}]" in caught.value.hint
    for quiet in ("auto", "none"):
        check_trackers(config(quiet))
        with open_trackers(config(quiet), tmp_path, "vae", 0, "id") as opened:
            assert [type(one).__name__ for one in opened] == ["Lines"]


def test_figures_reach_every_tracker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    events: list[Any] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            events.append(("open", folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            events.append((name, value, step))

        def close(self) -> None:
            events.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(trackers, "_installed", lambda _: True)
    with open_trackers(config("auto"), tmp_path, "vae", 4, "id") as opened:
        for one in opened:
            one.write(5, {"loss": 0.5, "val_loss": 0.25})
    wanted = [("open", str(tmp_path / "tensorboard"), 5), ("loss", 0.5, 5), ("val_loss", 0.25, 5), "closed"]
    assert events == wanted
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 5, "loss": 0.5, "val_loss": 0.25}

    calls: list[Any] = []
    run = SimpleNamespace(
        log=lambda figures, step: calls.append((figures, step)), finish=lambda: calls.append("finished")
    )
    wandb = SimpleNamespace(init=lambda **settings: calls.append(settings) or run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with open_trackers(config("wandb"), tmp_path, "vae", 0, "id7") as opened:
        opened[-1].write(1, {"loss": 1.0})
    assert calls[0]["id"] == "id7" and calls[0]["name"] == "mine/vae" and calls[0]["resume"] == "allow"
    assert calls[0]["config"]["learning_rate"] is None and calls[1:] == [({"loss": 1.0}, 1), "finished"]
