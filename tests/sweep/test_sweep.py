"""`t2i sweep`: every cell is the picture that `t2i generate` draws, at its place on the sheet."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Result, Run, run_line

from t2i import images, latents, pipeline
from t2i.tiles import tile

TWO = ("--axis", "steps=1,2,3", "--axis", "guidance-scale=1,4")


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_pocket: Path
) -> Run:
    """Run `t2i sweep` in this process, in an empty folder, on the miniature of pocket, into out/."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: object, prompt: str = "a red dog", model: object = tiny_pocket) -> Result:
        fixed = ["--size", "32x32", "-o", "out", *(["-m", model] if model else [])]
        return run_line(capsys, "sweep", *([prompt] if prompt else []), *fixed, *arguments)

    return run_here


def test_a_dry_run_refuses_what_a_run_refuses(run: Run) -> None:
    Path("out").mkdir()
    for more in ([], ["--dry-run"]):
        refused = run("--axis", "device=cpu,toaster", *more)
        assert refused.code == 2 and "toaster" in refused.err and refused.out == "", refused.err
        refused = run("--axis", "lora-scale=0,1", *more)
        assert refused.code == 2 and "there is no LoRA" in refused.err
    Path("out/grid.png").write_bytes(b"mine")
    for more in ([], ["--dry-run"]):
        assert run("--axis", "steps=2,3", *more).code == 4
    assert [path.name for path in Path("out").iterdir()] == ["grid.png"]


def forbid_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("nothing should be drawn")

    monkeypatch.setattr(pipeline, "load", refuse)


def break_seed(monkeypatch: pytest.MonkeyPatch, broken: int) -> None:
    """Make the start noise of a seed NaN."""
    make = latents.initial_noise

    def initial_noise(seeds: list[int], *rest: Any) -> Any:
        noise, generators = make(seeds, *rest)
        for row, seed in enumerate(seeds):
            if seed == broken:
                noise[row] = float("nan")
        return noise, generators

    monkeypatch.setattr(latents, "initial_noise", initial_noise)


def table(folder: str = "out") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path(folder, "sweep.csv").read_text())))


def place_of(picture: Path, sheet: Path) -> tuple[int, int]:
    """Where a picture stands on a sheet: (x, y) of its upper left corner; fails if it does not once."""
    shown = np.asarray(tile(images.read_pixels(picture), 128, 512))
    pixels = images.read_pixels(sheet)
    height, width = shown.shape[:2]
    found = [
        (x, y)
        for y, x in np.argwhere((pixels[: 1 - height, : 1 - width] == shown[0, 0]).all(2)).tolist()
        if (pixels[y : y + height, x : x + width] == shown).all()
    ]
    assert len(found) == 1
    return found[0]


def test_cells_are_what_generate_draws_and_where_they_belong(
    run: Run, capsys: pytest.CaptureFixture[str], tiny_pocket: Path
) -> None:
    done = run(*TWO, "--seed", 5)
    assert done.code == 0, done.err
    rows = table()
    assert list(rows[0]) == [
        "steps", "guidance-scale", "prompt", "seed", "file", "seconds", "status", "error",
    ]  # fmt: skip
    assert [(row["steps"], row["guidance-scale"]) for row in rows] == [(s, g) for s in "123" for g in "14"]
    assert {(row["seed"], row["status"]) for row in rows} == {("5", "done")}
    assert done.lines == [f"out/{row['file']}" for row in rows] + [
        "out/grid.png", "out/sweep.csv", "out/sweep.html",
    ]  # fmt: skip
    assert rows[1]["file"] == "pictures/a-red-dog-steps-1-guidance-4-5.png"

    places = [place_of(Path("out", row["file"]), Path("out/grid.png")) for row in rows]
    assert len({x for x, _ in places}) == 3 and len({y for _, y in places}) == 2
    assert places == sorted(places), "columns are steps, rows are guidance"

    for row in rows[::5]:
        values = ["--steps", row["steps"], "-g", row["guidance-scale"], "--seed", 5, "--size", "32x32"]
        run_line(capsys, "generate", "a red dog", "-m", tiny_pocket, *values, "-o", "one.png", "--overwrite")
        assert (images.read_pixels(Path("one.png")) == images.read_pixels(Path("out", row["file"]))).all()
        assert images.read_recipe(Path("out", row["file"]))["config"]["steps"] == int(row["steps"])


def test_the_same_command_draws_only_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(*TWO)
    assert first.code == 0 and "t2i: seed" in first.err
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    with monkeypatch.context() as patch:
        forbid_drawing(patch)
        again = run(*TWO)
    assert again.code == 0 and again.lines == ["out/grid.png", "out/sweep.csv", "out/sweep.html"]
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == before

    gone = Path("out", table()[2]["file"])
    gone.unlink()
    shown = run(*TWO, "--dry-run", "--json").events[0]
    assert (shown["done"], shown["todo"], shown["pictures"]) == (5, 1, 6)
    assert [job["done"] for job in shown["jobs"]] == [True, True, False, True, True, True]
    assert shown["jobs"][2]["axes"] == {"steps": "2", "guidance-scale": "1"}
    assert run(*TWO, "--dry-run").lines == [str(gone)] and not gone.exists()
    assert run(*TWO).lines[0] == str(gone) and len(run(*TWO).lines) == 3

    wider = run("--axis", "steps=1,2,3", "--axis", "guidance-scale=1,4,7")
    assert wider.code == 0 and len(wider.lines) == 3 + 3, "only the new row"
    assert len(table()) == 9


def test_three_axes_are_sheets_and_fewer_leave_none_behind(run: Run) -> None:
    done = run(*TWO, "--axis", "seed=1,2")
    assert done.code == 0, done.err
    assert [Path(line).name for line in done.lines[-4:]] == [
        "grid.png", "grid-2.png", "sweep.csv", "sweep.html",
    ]  # fmt: skip
    rows = table()
    assert "seed" in rows[0] and len(rows) == 12
    for row in rows:
        mine, other = ("grid.png", "grid-2.png")[:: 1 if row["seed"] == "1" else -1]
        place_of(Path("out", row["file"]), Path("out", mine))
        with pytest.raises(AssertionError):
            place_of(Path("out", row["file"]), Path("out", other))
    assert run("--axis", "seed=1,2", "--steps", 1).code == 0
    assert not Path("out/grid-2.png").exists() and len(table()) == 2


def test_a_failed_cell_is_told_everywhere(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = "--axis", "seed=1,2", "--axis", "steps=1,2", "--json"
    with monkeypatch.context() as patch:
        break_seed(patch, 2)
        done = run(*arguments)
    assert done.code == 3 and "seed 2, steps 1: " in done.err
    failed = [event for event in done.events if event["event"] == "failed"]
    assert [event["axes"] for event in failed] == [{"seed": "2", "steps": s} for s in "12"]
    assert [row["status"] for row in table()] == ["done", "done", "failed", "failed"]
    assert table()[2]["error"] and not table()[2]["file"]
    red = (images.read_pixels(Path("out/grid.png")) == (0xC1, 0x12, 0x1F)).all(2)
    assert red.any(0).sum() == 128 and red.any(1).sum() == 2 * 128, "one column of two marked cells"
    assert Path("out/sweep.html").read_text().count('class="blank"') == 2
    assert run(*arguments).code == 0
    assert not (images.read_pixels(Path("out/grid.png")) == (0xC1, 0x12, 0x1F)).all(2).any()


def test_prompts_and_words_as_axes(run: Run) -> None:
    done = run(
        "--axis", "prompt=a red dog, riding|a red cat", "--axis", "replace=red,blue", "--steps", 1, prompt=""
    )
    assert done.code == 0, done.err
    assert [(row["prompt"], row["replace red"]) for row in table()] == [
        (prompt, word) for prompt in ("a red dog, riding", "a red cat") for word in ("red", "blue")
    ]  # fmt: skip
    drawn = [images.read_recipe(Path("out", row["file"]))["config"]["prompts"] for row in table()]
    assert drawn == [["a red dog, riding"], ["a blue dog, riding"], ["a red cat"], ["a blue cat"]]


def test_several_models_and_one_that_is_there_twice(
    run: Run, tiny_pocket: Path, copy_model: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    same, other = copy_model(tiny_pocket), Path("other")
    shutil.copytree(tiny_pocket, other)
    values = json.loads((other / "scheduler/scheduler_config.json").read_text())
    (other / "scheduler/scheduler_config.json").write_text(
        json.dumps({**values, "timestep_spacing": "leading"})
    )
    done = run("--axis", f"model={tiny_pocket},{same},{other}", "--steps", 2, "--seed", 1, model=None)
    assert done.code == 0, done.err
    rows = table()
    assert [row["status"] for row in rows] == ["done"] * 3
    assert rows[0]["file"] == rows[1]["file"] != rows[2]["file"], "equal files are one picture"
    assert "/".join(tiny_pocket.parts[-2:]) == rows[0]["model"]
    assert str(tiny_pocket) not in Path("out/sweep.html").read_text() + Path("out/sweep.csv").read_text()


def test_files_of_others_are_left_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out").mkdir()
    Path("out/sweep.csv").write_text("mine")
    with monkeypatch.context() as patch:
        forbid_drawing(patch)
        refused = run(*TWO)
    assert refused.code == 4 and "sweep.csv exists" in refused.err
    assert Path("out/sweep.csv").read_text() == "mine"
    assert run("--axis", "steps=1,2", "--overwrite").code == 0 and len(table()) == 2


def test_a_batch_in_the_folder_keeps_its_report(
    run: Run, capsys: pytest.CaptureFixture[str], tiny_pocket: Path
) -> None:
    Path("p.txt").write_text("a dog\n")
    line = ["batch", "p.txt", "-m", tiny_pocket, "--steps", 1, "--size", "32x32", "--seed", 1, "-o", "out"]
    assert run_line(capsys, *line).code == 0
    assert run("--axis", "steps=1,2").code == 0
    assert run_line(capsys, *line).code == 0
    assert run("--axis", "steps=1,2").code == 0
    assert {"report.html", "contact-sheet.png", "grid.png", "sweep.html"} <= {
        p.name for p in Path("out").iterdir()
    }


def test_all_mistakes_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_drawing(monkeypatch)
    wrong = run("--axis", "steps=0,1", "--axis", "sampler=eulr", "--guidance", 0.5)
    assert wrong.code == 2 and wrong.out == "" and wrong.err.count("error: ") == 3
    assert not Path("out").exists()
    assert run("--axis", "steps=1,2", model="./nope").code == 4
