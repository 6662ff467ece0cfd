"""`t2i generate`, `replay` and `show` with the miniature of pocket: pictures, files, refusals, notices."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import Run

from t2i import images

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on cores that others use wait for each other


def test_generate_show_replay(run: Run, tiny_pocket: Path) -> None:
    drawn = run(
        "generate", "a dog", "-m", tiny_pocket, "--seed", 5, "-n", "red", "-o", "dog.png", "--steps", 3
    )
    assert (drawn.code, drawn.lines, drawn.err) == (0, ["dog.png"], "")
    recipe = images.read_recipe(Path("dog.png"))
    assert recipe["config"]["model"] == "tiny-pocket" and str(tiny_pocket.parent) not in json.dumps(recipe)
    assert recipe["config"]["guidance_scale"] == 4.0  # the model's own

    shown = run("show", "dog.png")
    assert shown.code == 0 and "a dog" in shown.out and "tiny-pocket" in shown.out
    values = json.loads(run("show", "--json", "dog.png").out)
    assert values["path"] == "dog.png" and values["config"]["steps"] == 3

    again = run("replay", "dog.png", "-m", tiny_pocket, "-o", "again.png")
    assert again.code == 0, again.err
    assert images.read_recipe(Path("again.png")) == recipe
    assert Path("again.png").read_bytes() == Path("dog.png").read_bytes()

    other = run("replay", "dog.png", "-m", tiny_pocket, "-o", "other.png", "--steps", 4, "-p", "a cat")
    assert other.code == 0, other.err
    changed = images.read_recipe(Path("other.png"))
    assert (changed["config"]["steps"], changed["config"]["prompts"]) == (4, ["a cat"])
    assert changed["image"]["seed"] == 5 and changed["pixels_sha256"] != recipe["pixels_sha256"]


def test_many_pictures(run: Run, tiny_pocket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("a cat\n\na drum\n"))
    result = run(
        "generate", "a dog", "-", "-N", 2, "-m", tiny_pocket, "--steps", 2, "--json", "--grid",
        "-o", "out/{index:02d}-{slug}.webp",
    )  # fmt: skip
    assert result.code == 0, result.err
    rows = [json.loads(line) for line in result.lines]
    assert [row.get("prompt") for row in rows] == ["a dog"] * 2 + ["a cat"] * 2 + ["a drum"] * 2 + [None]
    assert Path("out/05-a-drum.webp").exists() and rows[-1]["grid"] == 6
    seeds = [row["seed"] for row in rows[:-1]]
    assert [seeds[1] - seeds[0], seeds[3] - seeds[2], seeds[5] - seeds[4]] == [1, 1, 1]
    assert result.err.count("seed ") == 3 and f"seed {seeds[2]} for 'a cat'" in result.err
    assert rows[0]["recipe"]["image"]["seed"] == seeds[0]


def test_a_dry_run_writes_nothing_and_loads_no_weights(
    run: Run, tiny_pocket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t2i.weights.load_model", None)
    line = ["generate", "a dog", "-m", tiny_pocket, "--seed", 1, "--dry-run"]
    result = run(*line, "-N", 2, "-o", "out/")
    assert result.code == 0, result.err
    assert result.lines == ["out/a-dog-1.png", "out/a-dog-2.png"]
    assert "64" in result.err and "ddim" in result.err and not Path("out").exists()
    values = json.loads(run(*line, "--json").out)
    assert values["config"]["steps"] == 5 and values["pictures"][0]["seed"] == 1 and values["grid"] is None
    assert run(*line, "--grid").lines == ["a-dog-1.png", "a-dog-1-grid.png"]
    assert json.loads(run(*line, "--grid", "--json").out)["grid"] == "a-dog-1-grid.png"


REFUSED = [  # options, and what is said about them
    (["--device", "cuda:99"], "--device cuda:99: not available here"),
    (["--device", "toaster"], "--device toaster: not a device"),
    (["--steps", 1000, "--scheduler", "lcm"], "LCMScheduler takes at most 50"),
]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry-run"])
@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_a_refusal_is_an_error_and_a_hint_alone(
    run: Run, tiny_pocket: Path, options: list[Any], message: str, dry: list[str]
) -> None:
    """The seed that was drawn is no matter yet."""
    result = run("generate", "a dog", "-m", tiny_pocket, *options, *dry)
    assert (result.code, result.out) == (2, "") and message in result.err
    assert all(line.startswith(("error: ", "hint: ")) for line in result.err.splitlines()), result.err


def test_the_model_that_was_taken_is_told_unless_it_is_refused(run: Run) -> None:
    refused = run("generate", "a dog", "--device", "toaster")
    assert refused.code == 2 and "t2i:" not in refused.err
    planned = run("generate", "a dog", "--dry-run")
    assert planned.code == 0 and "t2i: using pocket" in planned.err and "t2i: seed " in planned.err


@pytest.mark.parametrize("options", [[], ["--offline"]])
def test_a_dry_run_refuses_a_model_that_the_run_would_not_find(run: Run, options: list[str]) -> None:
    for name in ("runs/x", "sdxl"):  # might be on the Hub, which this process does not ask
        result = run("generate", "a dog", "--dry-run", "-m", name, *options)
        assert (result.code, result.out) == (4, "") and "is not on this machine" in result.err


def test_a_dry_run_asks_the_hub_and_downloads_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["model_index.json"]

    def asked(hub: object, repo: str, revision: str | None = None) -> object:
        return SimpleNamespace(sha="a" * 40, siblings=[SimpleNamespace(rfilename=name) for name in files])

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", asked)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("downloaded"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    line = ["generate", "a dog", "--dry-run", "-m", "somebody/something", "-o", "x.png"]
    assert run(*line).lines == ["x.png"]
    files[:] = ["README.md"]
    refused = run(*line)
    assert refused.code == 4 and "somebody/something is not a Diffusers model" in refused.err


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry-run"])
def test_a_prompt_that_no_recipe_can_hold_costs_no_loading(
    run: Run, tiny_pocket: Path, monkeypatch: pytest.MonkeyPatch, dry: list[str]
) -> None:
    monkeypatch.setattr("t2i.weights.load_model", lambda *_: pytest.fail("loading had begun"))
    line = ["generate", "a dog", "red dog " * 10_000, "-m", tiny_pocket, "--dry-run", "-o", "out/"]
    line = [part for part in line if part != "--dry-run" or dry]
    result = run(*line)
    assert (
        result.code == 4 and "a picture can carry 60000" in result.err and "--metadata minimal" in result.err
    )
    if dry:
        assert run(*line, "--metadata", "minimal").code == 0


def test_an_idle_negative_prompt_is_told(run: Run, tiny_pocket: Path) -> None:
    line = ["generate", "a dog", "-m", tiny_pocket, "-s", 1, "--steps", 2, "-n", "red"]
    off = run(*line, "-g", 1, "-o", "off.png")
    told = "t2i: the negative prompt has no effect: guidance is off; set --guidance-scale above 1\n"
    assert (off.code, off.err) == (0, told)
    assert "has no effect" in run(*line, "-g", 1, "--dry-run").err
    assert run(*line, "-g", 1.5, "-o", "on.png").err == ""


def test_nothing_is_overwritten_unless_told(run: Run, tiny_pocket: Path) -> None:
    Path("dog.png").write_bytes(b"mine")
    arguments = ["generate", "a dog", "--seed", 5, "--steps", 2, "-o", "dog.png", "-m"]
    refused = run(*arguments, "./nowhere")  # before the model is looked for
    assert refused.code == 4 and "dog.png already exists" in refused.err
    assert Path("dog.png").read_bytes() == b"mine"
    assert run(*arguments, tiny_pocket, "--overwrite").code == 0
    assert images.read_recipe(Path("dog.png"))["image"]["seed"] == 5


def test_what_was_drawn_before_a_failure_stays(
    run: Run, tiny_pocket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = images.save

    def save_one(path: Path, *arguments: Any) -> None:
        if "-2" in path.name:
            raise images.StorageError("no space left while writing it", "free some space")
        save(path, *arguments)

    monkeypatch.setattr(images, "save", save_one)
    result = run("generate", "a dog", "-m", tiny_pocket, "--seed", 1, "-N", 3, "--steps", 2)
    assert result.code == 3 and result.lines == ["a-dog-1.png"]
    assert "error: no space left" in result.err
    assert "hint: 1 of 3 pictures were written. free some space" in result.err
    assert [path.name for path in Path().iterdir()] == ["a-dog-1.png"]


def test_a_folder_without_permission(run: Run, tiny_pocket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "link", refuse)
    result = run("generate", "a dog", "-m", tiny_pocket, "--seed", 1, "--steps", 2)
    assert result.code == 4 and "no permission to write" in result.err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry-run"])
def test_permission_is_asked_for_before_the_drawing(
    run: Run, monkeypatch: pytest.MonkeyPatch, dry: list[str]
) -> None:
    """In the nearest folder that is there; a root user may write everywhere, so the answer is ours."""
    Path("there").mkdir()
    asked = []

    def refuse(path: Path, mode: int) -> bool:
        asked.append((Path(path), mode))
        return False

    monkeypatch.setattr(os, "access", refuse)
    result = run("generate", "a dog", "-s", 1, "-o", "there/new/x.png", "--grid", "--device", "toaster", *dry)
    told = "error: no permission to write into there\nhint: choose a folder you may write to\n"
    assert (result.code, result.err) == (4, told) and asked == [(Path("there"), os.W_OK | os.X_OK)]


def test_explain_prompt_loads_no_network(
    run: Run, tiny_pocket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("t2i.weights.loading.load_network", None)
    result = run("generate", "a dgo", "-m", tiny_pocket, "--explain-prompt")
    assert result.code == 0 and "chunk 1" in result.out and "dog" in result.out
    assert list(Path().iterdir()) == []


def test_explain_prompt_needs_one(run: Run) -> None:
    result = run("generate", "--explain-prompt")
    assert result.code == 2 and "no prompt to explain" in result.err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--steps", 3, "-N", 2], "--steps, --num-images"),
        (["--size", "64x64"], "--size"),
        (["-o", "x.png", "--grid"], "--output, --grid"),
        (["--deterministic", "--dry-run"], "--deterministic, --dry-run"),
        (["-n", ""], "--negative-prompt"),
    ],
)
def test_explain_prompt_takes_no_options_of_the_drawing(run: Run, options: list[Any], named: str) -> None:
    result = run("generate", "a dog", "--explain-prompt", *options)
    assert (result.code, result.out) == (2, "")
    assert f"error: --explain-prompt draws nothing: {named} would have no effect" in result.err


def test_explain_prompt_as_json(run: Run, tiny_pocket: Path) -> None:
    result = run("generate", "a dgo", "red", "-m", tiny_pocket, "--explain-prompt", "--json")
    rows = [json.loads(line) for line in result.lines]
    assert [row["prompt"] for row in rows] == ["a dgo", "red"]
    assert rows[0]["unknown"] == {"dgo": ["dog"]} and rows[1]["chunks"] == [["red"]]


def test_a_word_never_seen_is_told_once(run: Run, tiny_pocket: Path) -> None:
    drawn = run("generate", "a dgo", "a red dgo", "-m", tiny_pocket, "-N", 2, "--steps", 1, "-o", "x/")
    assert drawn.code == 0 and drawn.err.count("never seen in training: dgo; instead: dog\n") == 1
    known = run("generate", "a dog", "-m", tiny_pocket, "--steps", 1, "-o", "y/")
    assert known.code == 0 and "never seen" not in known.err


def test_show_goes_on_after_a_picture_without_recipe(run: Run, tiny_pocket: Path) -> None:
    run("generate", "a dog", "-m", tiny_pocket, "--seed", 1, "--steps", 2, "-o", "dog.png")
    result = run("show", "none.png", "dog.png")
    assert result.code == 3 and "a dog" in result.out
    assert result.err == ("error: none.png does not exist\nerror: 1 of 2 pictures could not be shown\n")
    assert run("show", "none.png").code == run("show", "none.png", "no.png").code == 4


def test_every_failure_of_show_names_its_file(run: Run) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    texts = {"a": ("parameters", "a dog"), "b": ("t2i", "{}"), "c": ("parameters", "a dog\nSteps: x"),
             "d": ("other", ""), "good": ("parameters", "a dog\nSteps: 2, Seed: 1")}  # fmt: skip
    for name, (key, text) in texts.items():
        chunks = PngInfo()
        chunks.add_itxt(key, text)
        Image.new("RGB", (8, 8)).save(f"{name}.png", pnginfo=chunks)
    result = run("show", "--json", *(f"{name}.png" for name in texts))
    assert result.code == 3 and [row["path"] for row in result.events] == ["good.png"]
    *told, last = result.err.splitlines()
    assert [line[:12] for line in told] == [f"error: {name}.png" for name in "abcd"]
    assert last == "error: 4 of 5 pictures could not be shown"
    for name in "abcd":
        refused = run("replay", f"{name}.png")
        assert refused.code == 4 and refused.err.startswith(f"error: {name}.png"), refused.err


def test_text_out_of_a_picture_drives_no_terminal(run: Run) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    chunks = PngInfo()
    chunks.add_itxt("parameters", "a \x1b[2Jdog\nSteps: 2, Seed: 1")
    Image.new("RGB", (8, 8)).save("p.png", pnginfo=chunks)
    assert run("show", "p.png").lines == ["a \\x1b[2Jdog", "Steps: 2, Seed: 1"]
    refused = run("replay", "p.png", "-m", "no\x1b[2J")
    assert refused.code == 4 and "\x1b" not in refused.err


def test_replay_says_where_a_model_is_wanted(run: Run, tiny_pocket: Path) -> None:
    run("generate", "a dog", "-m", tiny_pocket, "--seed", 1, "--steps", 2, "-o", "dog.png")
    result = run("replay", "dog.png")
    assert result.code == 4 and "there is no model 'tiny-pocket'" in result.err
    assert "hint: say where the model is with --model PATH" in result.err


def test_a_missing_package_costs_no_loading(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("t2i.schedulers.table.is_available", lambda row: row.needs is None)
    result = run("generate", "a dog", "-m", "./nowhere", "--scheduler", "lms")
    assert result.code == 2 and "error: scheduler lms needs the package scipy\n" in result.err


def test_a_file_where_a_folder_is_needed(run: Run, tiny_pocket: Path) -> None:
    Path("file").write_bytes(b"mine")
    result = run("generate", "a dog", "-m", tiny_pocket, "-s", 1, "--steps", 2, "-o", "file/x.png")
    assert result.code == 4 and "file is not a folder" in result.err
    assert [path.name for path in Path().iterdir()] == ["file"] and Path("file").read_bytes() == b"mine"
