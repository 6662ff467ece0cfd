"""The comparison of training targets: its table, and that the targets differ in nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compare_targets import FIGURES, SAME, TARGETS, rows_of, table, write_prompts
from suite import questions_of_ten

from t2i.config import TrainConfig, flag_of
from t2i.evaluation.questions import read_questions


def report(adherence: float, fid: float | None) -> dict[str, Any]:
    figures = {"adherence": {"value": adherence}, "FID": {"value": fid}}
    return {"runs": [{"settings": {"scheduler": "ddim", "steps": 10}, "figures": figures}]}


def test_the_table_has_means_and_spreads_over_the_seeds() -> None:
    reports = {"v": [report(0.5, 20.0), report(0.7, 30.0)], "flow": [report(0.25, None)]}
    lines = table(list(rows_of(reports))).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["target", "solver", "steps", *FIGURES]
    flow, v = (dict(zip(cells[0], line, strict=True)) for line in cells[2:])
    assert (flow["target"], flow["adherence"], flow["FID"]) == ("flow", "25 %", "not measured")
    assert (v["adherence"], v["FID"]) == ("60 % (50 to 70)", "25 (20 to 30)")


def test_the_targets_differ_in_the_target_alone() -> None:
    flags = {name for item in TARGETS.values() for name in item if name.startswith("--")}
    assert flags == {"--prediction-type", "--zero-terminal-snr"}
    known = {flag_of(name) for name in TrainConfig.options()}
    assert {name for name in SAME if name.startswith("--")} <= known


def test_what_is_asked_is_the_suite_of_the_ten(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.jsonl")
    assert list(read_questions(str(tmp_path / "prompts.jsonl"))) == questions_of_ten()
