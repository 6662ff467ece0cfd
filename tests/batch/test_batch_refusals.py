"""What `t2i batch` refuses before it draws, or writes, anything: one line each, with what to do."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import Result, Run, run_line

from t2i import pipeline


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_pocket: Path
) -> Run:
    """Run `t2i batch` on the miniature of pocket into out/; a model that is loaded fails the test."""
    monkeypatch.chdir(tmp_path)

    def loaded(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(pipeline, "load", loaded)

    def run_here(text: str, *arguments: object) -> Result:
        Path("p.txt").write_text(text)
        return run_line(capsys, "batch", "p.txt", "-m", tiny_pocket, "-o", "out", *arguments)

    return run_here


DRY = pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry-run"])
LONG = "red dog " * 10_000
REFUSED = [  # prompt file, options, what is said
    ("a dog\na cat\n", ["--device", "toaster"], ["p.txt: --device toaster: not a device"]),
    ("a dog\na cat\n", ["--device", "cuda:99"], ["p.txt: --device cuda:99: not available here"]),
    ("a dog --s 99\na cat\n", ["--scheduler", "lcm"], ["p.txt line 1: "]),
    ("a dog --controlnet x\na cat --l 3\n", [], ["p.txt line 1: --controlnet x: there is no picture"]),
    ("a dog\na cat\n", ["--lora-scale", "2"], ["p.txt: --lora-scale 2: there is no LoRA"]),
    (f"a dog\n{LONG}\n{LONG}\n", [], ["p.txt line 2: the recipe has", "a picture can carry", "(and line 3)"]),
]


@DRY
@pytest.mark.parametrize(
    ("text", "options", "said"), REFUSED, ids=["toaster", "cuda", "steps", "control", "lora", "long"]
)
def test_what_cannot_be_drawn_is_told_with_its_line(
    run: Run, text: str, options: list[str], said: list[str], dry: list[str]
) -> None:
    refused = run(text, *options, *dry)
    assert (refused.code, refused.out) == (2, ""), refused.err
    assert [line.partition(":")[0] for line in refused.err.splitlines() if line] == ["error", "hint"]
    assert all(part in refused.err for part in said), refused.err
    assert not Path("out").exists(), "nothing was written"


IN_THE_WAY = [
    (["--expect", "golden.json"], "golden.json does not exist"),
    (["--junit", "p.txt"], "p.txt exists and is no JUnit report"),
    (["--junit", "out/00001-a-dog-5.png"], "is the name of another file of this run"),
    (["--junit", "out/../out/report.html"], "is the name of another file of this run"),
    (["--junit", "out/manifest.jsonl"], "is the name of another file of this run"),
    (["--output", "p.txt/out"], "p.txt is not a folder"),
]


@DRY
@pytest.mark.parametrize(("options", "said"), IN_THE_WAY, ids=lambda value: str(value)[:30])
def test_what_is_in_the_way_is_told_and_nothing_is_written(
    run: Run, options: list[str], said: str, dry: list[str]
) -> None:
    refused = run("a dog\n", "--seed", 5, *options, *dry)
    assert (refused.code, refused.out) == (4, "") and said in refused.err, refused.err
    assert not Path("out").exists()


@DRY
def test_a_manifest_of_another_program_is_left_alone(run: Run, dry: list[str]) -> None:
    Path("out").mkdir()
    text = '{"file": "a.png"}\n{"file": "b.png"}'  # no newline at its end
    Path("out/manifest.jsonl").write_text(text)
    refused = run("a dog\n", *dry)
    assert refused.code == 4 and "out/manifest.jsonl is no manifest of t2i batch" in refused.err
    assert Path("out/manifest.jsonl").read_text() == text and len(list(Path("out").iterdir())) == 1


def test_a_prompt_of_any_length_needs_no_recipe(run: Run) -> None:
    assert run(f"{LONG}\n", "--metadata", "minimal", "--dry-run").code == 0


def test_a_dry_run_asks_the_hub_once_and_downloads_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    files, asked = ["model_index.json"], list[str]()

    def model_info(hub: object, repo: str, revision: str | None = None) -> object:
        asked.append(repo)
        return SimpleNamespace(sha="a" * 40, siblings=[SimpleNamespace(rfilename=name) for name in files])

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("downloaded"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    text = "a dog\na cat --s 3\n"
    there = run(text, "-m", "somebody/something", "--dry-run")
    assert there.code == 0 and len(there.lines) == 2 and asked == ["somebody/something"]
    files[:] = ["README.md"]
    missing = run(text, "-m", "somebody/something", "--dry-run")
    assert missing.code == 4 and len(missing.lines) == 2
    assert "cannot be drawn: somebody/something is not a Diffusers model" in missing.err
    assert "error: 2 pictures of 2 cannot be drawn" in missing.err and not Path("out").exists()


def test_a_dry_run_ends_as_the_run_would(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("runs").mkdir()
    run("a dog\n", "--dry-run")
    Path("p.jsonl").write_text('{"prompt": "a dog"}\n{"prompt": "a cat", "model": "runs/nope"}\n')
    some = run_line(capsys, "batch", "p.jsonl", "-o", "out", "--dry-run", "--json")
    assert some.code == 3 and [job["problem"] is None for job in some.events[0]["jobs"]] == [True, False]
    assert "1 picture of 2 cannot be drawn" in some.err and "owner/name" in some.err


BAD = [
    ["--axis", "steps"], ["--axis", "stepz=1"], ["--axis", "steps=0"], ["--axis", "steps=1,1"],
    ["--repeat", "0"], ["--repeat", "x"], ["--wildcards", "nowhere"], ["--run-seed", "-1"],
    ["--shard", "9/8"],
    ["--shard", "1"], ["--devices", "cpu,,cpu"], ["--devices", ""], ["--engine", "threads"],
    ["--ray-address", "auto"], ["--insecure-cluster"], ["--fail-fast", "--max-failures", "3"],
    ["--max-failures", "0"], ["--expect", "x.txt"], ["--update-golden"], ["--min-psnr", "5"],
    ["--expect", "g.json", "--min-psnr", "-3"], ["--expect", "g.json", "--metadata", "none"],
    ["--metadata", "some"], ["--format", "xml"], ["--output", ""], ["--size", "12"], ["--steps", "0"],
    ["--steps", "x"], ["--guidance-scale", "0.5"], ["--guidance-scale", "nan"], ["--scheduler", "eulr"],
    ["--seed", "-1"], ["--width", "100"], ["--num-images", "0"], ["--batch-size", "0"], ["--dtype", "fp8"],
    ["--model", ""], ["--nonsense"], ["--size", "64x64", "--width", "64"],
    ["--expect", "g.json", "--update-golden", "--shard", "1/2"],
]  # fmt: skip


@pytest.mark.parametrize("options", BAD, ids=" ".join)
def test_bad_input_of_every_option_is_one_line(run: Run, options: list[str]) -> None:
    refused = run("a dog\n", *options)
    assert (refused.code, refused.out) == (2, ""), refused.err
    assert [line.partition(":")[0] for line in refused.err.splitlines()] in (["error"], ["error", "hint"])
    assert not Path("out").exists()


def test_what_cannot_be_drawn_here_is_told_beside_the_mistakes_of_other_lines(run: Run) -> None:
    text = "a --nonsense 1\na dog --device toaster\na cat --steps 1001\na fox --lora-scale 2\na pig --w 100\n"
    refused = run(text)
    told = [line for line in refused.err.splitlines() if line.startswith("error: p.txt line")]
    assert refused.code == 2 and len(told) == 5, refused.err
    for line, said in enumerate(("nonsense", "toaster", "1001", "--lora-scale 2", "width"), 1):
        assert any(f"line {line}:" in one and said in one for one in told), (line, said, told)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a --f A.png\nb --f a.png\n", "line 2: --output a.png: line 1 has that name"),
        ("a --f q.png/b.png\nb --f q.png\n", "line 2: --output q.png: line 1 has a folder of that name"),
        ("a --f q.png\nb --f Q.png/b.png\n", "line 2: --output Q.png/b.png: q.png is the file of line 1"),
    ],
)
def test_two_lines_never_have_one_file(run: Run, text: str, said: str) -> None:
    refused = run(text)
    assert (refused.code, refused.out) == (2, "") and said in refused.err
    assert not Path("out").exists()


def test_every_name_that_is_taken_is_told(run: Run) -> None:
    Path("out").mkdir()
    for name in ("a.png", "b.png"):
        Path("out", name).write_bytes(b"mine")
    refused = run("a --f a.png\nb --f b.png\nc --f c.png\n")
    assert refused.code == 4 and "line 1: out/a.png already exists" in refused.err
    assert "1 more: line 2: out/b.png already exists" in refused.err
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]


def test_the_first_failure_that_is_known_ends_a_run_that_stops_at_one(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no model is loaded for it."""
    Path("runs").mkdir()
    run("a dog\n", "--dry-run")
    Path("p.jsonl").write_text('{"prompt": "a dog"}\n{"prompt": "a cat", "model": "runs/nope"}\n')
    ended = run_line(capsys, "batch", "p.jsonl", "-o", "out", "--fail-fast", "--json")
    assert ended.code == 4 and [event["event"] for event in ended.events[1:3]] == ["failed", "report"]
    assert ended.events[-1]["failed"] == 1 == ended.events[-1]["left"], ended.err


@pytest.mark.parametrize("option", ["--junit", "--expect"])
def test_what_could_not_be_written_at_the_end_is_told_at_the_beginning(run: Run, option: str) -> None:
    golden = ["--update-golden"] if option == "--expect" else []
    refused = run("a dog\n", option, "p.txt/x.json", *golden)
    assert refused.code == 4 and re.search("p.txt is not a folder|Not a directory", refused.err)
    assert not Path("out").exists()


def test_a_golden_file_could_not_tell_number_formats_apart(run: Run) -> None:
    refused = run("a dog --d 1\n", "--axis", "dtype=fp32,bf16", "--expect", "g.json", "--update-golden")
    assert refused.code == 2 and "differ only in dtype" in refused.err and not Path("out").exists()
