"""`t2i batch`: every picture once, whatever failed, was stopped, damaged or moved meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Result, Run, run_line

from t2i import cli, images, latents, pipeline, recipes
from t2i.batch import open_manifest, read_records
from t2i.batch.drawing import group_jobs
from t2i.batch.plan import plan_batch
from t2i.config.batch import BatchConfig
from t2i.durable import sha256_file
from t2i.errors import UsageError
from t2i.promptfiles import PromptOptions, parse_prompt_file

PROMPTS = ("a dog", "a cat", "a red drum", "a blue trumpet")


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_pocket: Path
) -> Run:
    """Run `t2i batch` in this process, in an empty folder, on the miniature of pocket, into out/."""
    monkeypatch.chdir(tmp_path)

    def run_here(text: str, *arguments: object, file: str = "p.txt", output: str = "out") -> Result:
        Path(file).write_text(text)
        fixed = ["-m", tiny_pocket, "--steps", 2, "--size", "32x32", "--run-seed", 3, "-o", output]
        return run_line(capsys, "batch", file, *fixed, *arguments)

    return run_here


def text_of(prompts: tuple[str, ...] = PROMPTS) -> str:
    return "\n".join(prompts) + "\n"


def lines_of(folder: str = "out") -> list[dict[str, Any]]:
    """Every line of the manifest; fails if one is not JSON."""
    return [json.loads(line) for line in Path(folder, "manifest.jsonl").read_text().splitlines()]


def pictures(folder: str = "out") -> dict[tuple[str, int], np.ndarray]:
    """(prompt, seed) → pixels of the file, after checking its hash."""
    found = {}
    for record in read_records(Path(folder)).values():
        if record["status"] == "done":
            path = Path(folder, record["file"])
            assert sha256_file(path) == record["sha256"]
            recipe = images.read_recipe(path)
            assert (recipe["config"]["prompts"], recipe["image"]["seed"]) == (
                [record["prompt"]],
                record["seed"],
            )
            found[record["prompt"], record["seed"]] = images.read_pixels(path)
    return found


def forbid_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("nothing should be drawn")

    monkeypatch.setattr(pipeline, "load", refuse)


def break_seeds(monkeypatch: pytest.MonkeyPatch, *broken: int) -> list[int]:
    """Make the start noise of some seeds NaN; returns the sizes of the batches to come."""
    make, sizes = latents.initial_noise, list[int]()

    def initial_noise(seeds: list[int], *rest: Any) -> Any:
        noise, generators = make(seeds, *rest)
        for row, seed in enumerate(seeds):
            if seed in broken:
                noise[row] = float("nan")
        sizes.append(len(seeds))
        return noise, generators

    monkeypatch.setattr(latents, "initial_noise", initial_noise)
    return sizes


def test_a_second_run_draws_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(text_of())
    assert first.code == 0 and "4 prompts, 4 pictures" in first.err
    assert sorted(first.lines) == sorted(map(str, Path("out").glob("0*.png")))
    assert {record["prompt"] for record in lines_of()} == set(PROMPTS)
    before = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    forbid_drawing(monkeypatch)
    again = run(text_of())
    assert (again.code, again.out) == (0, "") and "4 done, 0 to draw" in again.err
    assert {path: path.stat().st_mtime_ns for path in Path("out").iterdir()} == before


def test_what_is_gone_or_damaged_is_made_again(run: Run) -> None:
    assert run(text_of(), "--batch-size", 1).code == 0
    before = {path: path.read_bytes() for path in Path("out").glob("0*.png")}
    gone, damaged, *_ = before
    gone.unlink()
    damaged.write_bytes(before[damaged][:-20])
    shown = run(text_of(), "--batch-size", 1, "--dry-run", "--json").events[0]
    assert (shown["done"], shown["todo"]) == (2, 2)
    assert shown["estimated_s"] > 0 and shown["estimated_bytes"] > 0
    again = run(text_of(), "--batch-size", 1)
    assert again.code == 0 and set(again.lines) == {str(gone), str(damaged)}
    assert {path: path.read_bytes() for path in Path("out").glob("0*.png")} == before


def test_other_metadata_is_written_with_the_same_pixels(run: Run) -> None:
    assert run(text_of(), "--metadata", "none").code == 0
    before = {path: images.read_pixels(path) for path in Path("out").glob("0*.png")}
    assert run(text_of(), "--metadata", "none").lines == [], "nothing is missing"
    again = run(text_of())
    assert set(again.lines) == set(map(str, before)), "the recipes were"
    for path, shown in before.items():
        assert np.abs(images.read_pixels(path).astype(int) - shown).max() <= 1
    records = read_records(Path("out")).values()
    assert all("metadata" not in record for record in records)
    for record in records:
        recipe = images.read_recipe(Path("out", record["file"]))
        assert record["recipe_sha256"] == recipes.digest(recipe)


def test_expected_pictures_need_no_seeds(run: Run) -> None:
    assert run(text_of(), "--expect", "golden.json", "--update-golden").code == 0
    assert run(text_of(), "--expect", "golden.json", output="elsewhere").code == 0


def test_order_and_shards_give_the_same_pictures(run: Run) -> None:
    run(text_of())
    whole = pictures()
    ids = set(read_records(Path("out")))
    parts: dict[tuple[str, int], np.ndarray] = {}
    parted: list[str] = []
    for shard in ("1/2", "2/2"):
        folder = f"part{shard[0]}"
        prompts = PROMPTS if shard == "1/2" else PROMPTS[::-1]
        assert run(text_of(prompts), "--shard", shard, output=folder).code == 0
        parts |= pictures(folder)
        parted += read_records(Path(folder))
    assert sorted(parted) == sorted(ids) and parts.keys() == whole.keys()
    for key, pixels in whole.items():
        difference = np.abs(pixels.astype(int) - parts[key].astype(int))
        assert difference.max() <= 1 and (difference > 0).mean() <= 0.001


def test_a_line_whose_model_is_missing(run: Run, tiny_pocket: Path) -> None:
    text = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS[:2])
    text += json.dumps({"prompt": "a red drum", "model": "./later"}) + "\n"
    first = run(text, file="p.jsonl")
    assert first.code == 3 and len(first.lines) == 2
    assert "line 3" in first.err and "there is no model at ./later" in first.err
    assert [record["status"] for record in lines_of()] == ["failed", "done", "done"]
    assert "there is no model" in lines_of()[0]["error"] and lines_of()[0]["file"] is None
    shutil.copytree(tiny_pocket, "later")
    assert len(run(text, file="p.jsonl").lines) == 1
    assert len(pictures()) == 3


def test_one_bad_picture_leaves_its_batch_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        sizes = break_seeds(patch, 13)
        result = run("a dog", "-N", 8, "--seed", 10, "--batch-size", 8, "--json")
    assert result.code == 3 and sizes == [8]
    failed = [event for event in result.events if event["event"] == "failed"]
    assert [event["seed"] for event in failed] == [13] and "finite" in failed[0]["error"]
    assert result.events[-1] == {"event": "end", "done": 7, "made": 7, "failed": 1, "left": 0}
    again = run("a dog", "-N", 8, "--seed", 10, "--batch-size", 8)
    assert again.code == 0 and [line[-6:] for line in again.lines] == ["13.png"]
    assert {seed for _, seed in pictures()} == set(range(10, 18))


def test_failures_may_end_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    break_seeds(monkeypatch, *range(10, 20))
    options = ("-N", 6, "--seed", 10, "--batch-size", 1)
    for option, failed in ((["--fail-fast"], 1), (["--max-failures", 2], 2), ([], 6)):
        result = run("a dog", *options, *option, "--json")
        assert result.code == 4
        assert result.events[-1]["failed"] == failed and result.events[-1]["left"] == 6 - failed
        assert ("not tried" in result.err) == (failed < 6)


def test_too_little_memory_fails_the_group_and_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make = latents.initial_noise

    def initial_noise(seeds: list[int], *rest: Any) -> Any:
        if len(seeds) > 1:
            raise RuntimeError("CUDA out of memory")
        return make(seeds, *rest)

    monkeypatch.setattr(latents, "initial_noise", initial_noise)
    result = run("a dog --d 1\na cat --d 1\n", "--batch-size", 2, "--axis", "steps=1,2", "--json")
    assert result.code == 5 and result.events[-1]["failed"] == 4
    assert lines_of()[0]["error"] == "not enough memory for 32x32; try a --batch-size below 2"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_picture(run: Run, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    make, drawn = latents.initial_noise, list[int]()

    def interrupted(seeds: list[int], *rest: Any) -> Any:
        drawn.append(seeds[0])
        if len(drawn) == 2:
            os.kill(os.getpid(), number)
        return make(seeds, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(latents, "initial_noise", interrupted)
        result = run(text_of(), "--batch-size", 1)
    assert result.code == 130 and len(result.lines) == 1 and len(drawn) == 2
    assert "stopped after 1 of 4" in result.err and "hint: the same command goes on" in result.err
    assert "3 missing" in Path("out/report.html").read_text()
    assert len(run(text_of(), "--batch-size", 1).lines) == 3
    assert len(pictures()) == 4 and len(lines_of()) == 4


def test_a_torn_line_is_mended(run: Run) -> None:
    assert run(text_of()).code == 0
    manifest = Path("out/manifest.jsonl")
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-30])
    (Path("out") / f".tmp-{'0' * 32}-00001-a-dog.png").touch()
    (Path("out") / ".tmp-mine").touch()
    of_another_batch = Path("out/inner") / f".tmp-{'1' * 32}-00001-a-dog.png"
    of_another_batch.parent.mkdir()
    (of_another_batch.parent / "manifest.jsonl").touch()
    of_another_batch.touch()
    assert len(run(text_of()).lines) == 1
    assert len(lines_of()) == len(pictures()) == 4
    assert [path.name for path in Path("out").glob(".tmp*")] == [".tmp-mine"] and of_another_batch.exists()


def test_a_manifest_leads_nowhere_else(run: Run) -> None:
    assert run("a dog").code == 0
    (record,) = lines_of()
    outside = Path("victim.png")
    outside.write_text("mine")
    for file in ("../victim.png", str(outside.absolute()), 5, "a\0b"):
        Path("out/manifest.jsonl").write_text(json.dumps({**record, "file": file}) + '\n[1]\n{"job": 3}\n')
        Path("out", record["file"]).unlink(missing_ok=True)
        assert run("a dog").lines == [f"out/{record['file']}"]
        assert outside.read_text() == "mine"


def test_one_folder_has_one_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    other = open_manifest(Path("out"))
    other.__enter__()
    result = run(text_of())
    assert result.code == 4 and "another t2i batch works in out" in result.err and result.out == ""
    timer = threading.Timer(0.2, lambda: other.__exit__(None, None, None))
    timer.start()
    assert run(text_of(), "--wait").code == 0
    timer.join()


def test_names(run: Run) -> None:
    text = '{"prompt": "a dog", "output": "pets/dog.png"}\n{"prompt": "a cat", "name": "Tom & co"}\n'
    text += '{"prompt": "a cat", "output": "cat.jpg", "num_images": 2, "seed": 4}\n'
    assert run(text, "--seed", 7, file="p.jsonl").code == 0
    names = {"pets/dog.png", "00002-tom-co-7.png", "cat-4.jpg", "cat-5.jpg"}
    assert {record["file"] for record in lines_of()} == names
    more = run(text, "--seed", 7, "--axis", "guidance_scale=2,3", file="p.jsonl")
    assert more.code == 0 and len(set(more.lines)) == 8
    assert "out/pets/dog-guidance-scale-2-7.png" in more.lines
    assert "out/cat-guidance-scale-3-5.jpg" in more.lines
    assert len(pictures()) == 2 + 2  # by prompt and seed
    assert len({record["file"] for record in lines_of()}) == len(names) + 8


def test_other_settings_never_replace_pictures(run: Run) -> None:
    assert run("a dog", "--seed", 7).code == 0
    before = Path("out/00001-a-dog-7.png").read_bytes()
    other = run("a dog", "--seed", 7, "--steps", 1)
    assert other.code == 0 and other.lines != ["out/00001-a-dog-7.png"]
    assert Path("out/00001-a-dog-7.png").read_bytes() == before
    assert run("a dog", "--seed", 7).out == "" == run("a dog", "--seed", 7, "--steps", 1).out


def test_files_of_others_are_kept(run: Run) -> None:
    Path("out").mkdir()
    Path("out/dog.png").write_text("mine")
    text = '{"prompt": "a dog", "output": "dog.png"}\n'
    refused = run(text, file="p.jsonl")
    assert refused.code == 4 and "already exists" in refused.err
    assert Path("out/dog.png").read_text() == "mine"
    assert run(text, "--overwrite", file="p.jsonl").code == 0
    assert len(pictures()) == 1
    changed = run(text, "--steps", 1, file="p.jsonl")
    assert changed.code == 4 and "line 1: out/dog.png is another picture" in changed.err


def test_a_picture_asked_for_twice_is_drawn_once(run: Run) -> None:
    result = run("a dog --d 5\na dog --d 5\n")
    assert result.code == 0 and len(result.lines) == 1 and "asked for more than once" in result.err


def test_a_word_never_seen_is_told_once(run: Run) -> None:
    result = run("a dgo --n 3\na dgo --d 9\na dog --steps 1\na dgo --steps 1\n", "--batch-size", 1)
    assert result.code == 0, result.err
    assert result.err.count("never seen in training: dgo; instead: dog\n") == 1
    assert not any("notes" in record for record in lines_of())


def test_a_changed_model_makes_new_pictures(
    run: Run, tiny_pocket: Path, copy_model: Callable[[Path], Path]
) -> None:
    copy = copy_model(tiny_pocket)
    assert run("a dog").code == 0
    assert run("a dog", "-m", copy).out == ""  # the same files elsewhere are the same model
    values = json.loads((copy / "t2i.json").read_text())
    (copy / "t2i.json").write_text(json.dumps({**values, "steps": 9}))
    assert len(run("a dog", "-m", copy).lines) == 1


def test_like_settings_come_together(tiny_pocket: Path, tmp_path: Path) -> None:
    rows = [(steps, model) for steps in (1, 2) for model in (str(tiny_pocket), "./none")] * 2
    data = "".join(
        json.dumps({"prompt": "a dog", "steps": steps, "model": model}) + "\n" for steps, model in rows
    )
    parsed = parse_prompt_file(data.encode(), "jsonl", options=PromptOptions(run_seed=1))
    jobs = plan_batch(parsed.entries, {}, tmp_path)
    groups = group_jobs(jobs)
    assert [[job.line for job in group] for group in groups] == [[2, 6], [4, 8], [1, 5], [3, 7]], (
        "first what fails"
    )
    assert {(job.config.width, job.config.scheduler) for job in groups[2]} == {(64, "ddim")}


def test_seeds_nobody_gave_stay_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_pocket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a dog\n")
    line = ["batch", "p.txt", "-m", str(tiny_pocket), "--steps", "1", "--size", "32x32", "-o"]
    assert cli.run([*line, "one"]) == cli.run([*line, "one"]) == 0
    assert len(lines_of("one")) == 1
    assert cli.run([*line, "a", "--shard", "1/1"]) == cli.run([*line, "b", "--shard", "1/1"]) == 0
    assert lines_of("a")[0]["job"] == lines_of("b")[0]["job"] != lines_of("one")[0]["job"]


@pytest.mark.parametrize(
    "values", [{}, {"shard": "0/2"}, {"shard": "3/2"}, {"shard": "x"}, {"max_failures": 0}]
)
def test_options_that_cannot_be(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BatchConfig(**({"output": "out", **values} if values else {}))
    assert BatchConfig(output="out", shard="2/8").shard_of == (2, 8)


PROBE = """
import sys
from t2i.cli import run
codes = [run(["batch", file, "--dry-run", "-o", "out"]) for file in ("bad.txt", "good.txt")]
heavy = [name for name in ("torch", "diffusers", "transformers", "numpy") if name in sys.modules]
sys.exit(f"{codes} {heavy}")
"""


def test_mistakes_and_plans_import_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("a dog --s 0\na cat --w 7\nfine\na fox --d x\n")
    (tmp_path / "good.txt").write_text("a dog\na cat\n")
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[2, 0] []"
    assert [f"line {line}" in done.stderr for line in (1, 2, 3, 4)] == [True, True, False, True]
    assert len(done.stdout.splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_other_negative_prompts_and_guidance_share_a_batch(
    run: Run, tiny_pocket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        "a dog --d 1",
        "a cat --d 2 --n blurry",
        "a red drum --d 3 --l 6.5 --n a dog",
        "a blue trumpet --d 4 --l 2",
        "a dog --d 5 --l 1",  # no guidance: a batch of its own
    ]
    assert run(text_of(tuple(lines)), "--batch-size", 8).code == 0
    together = {row["job"]: Path("out", row["file"]) for row in lines_of()}
    assert run(text_of(tuple(lines)), "--batch-size", 1, output="alone").code == 0
    alone = {row["job"]: Path("alone", row["file"]) for row in lines_of("alone")}
    assert alone.keys() == together.keys() and len(alone) == 5
    for job, path in together.items():
        recipe, lonely = images.read_recipe(path), images.read_recipe(alone[job])
        assert recipe["config"] == lonely["config"]
        assert recipe["image"]["batch_shape"][0] == (4 if recipe["config"]["guidance_scale"] > 1 else 1)
        difference = images.read_pixels(path).astype(int) - images.read_pixels(alone[job])
        assert np.abs(difference).max() <= 1
    # To the bit from its recipe alone, beside copies of itself instead of those others.
    assert run_line(capsys, "verify", *together.values(), "-m", tiny_pocket).code == 0
