"""`t2i eval` from the command line: what comes out, in which order, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prompted import PROMPTS, write_folder

from t2i import cli, pipeline
from t2i.config import EvaluateConfig, GenerateConfig
from t2i.config.evaluate import FIGURES
from t2i.errors import ModelError
from t2i.evaluation import metrics
from t2i.evaluation.instruments import EXTRACTORS


@dataclass
class Result:
    code: int
    out: str
    err: str
    report: Any = None

    def figure(self, name: str, run: int = 0) -> Any:
        return self.report["runs"][run]["figures"][name]


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `t2i eval` in this process, in an empty folder; the report goes to out/."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: object, output: str = "out") -> Result:
        capsys.readouterr()
        code = cli.run(["eval", *map(str, arguments), "-o", output])
        captured = capsys.readouterr()
        path = tmp_path / output / "report.json"
        return Result(
            code, captured.out, captured.err, json.loads(path.read_text()) if path.exists() else None
        )

    return run_here


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(list(PROMPTS)), encoding="utf-8")
    return path


def test_noise_then_pocket_then_true_renderings(
    run: Run, prompts: Path, noise: Path, renderings: Path, other_renderings: Path
) -> None:
    shared = ("--reference", other_renderings, "--bootstrap", 0)
    of_noise = run("--images", noise, *shared, output="a")
    of_pocket = run("pocket", "--prompts", prompts, "-N", 1, "--steps", 6, *shared, output="b")
    of_renderings = run("--images", renderings, *shared, output="c")
    assert [result.code for result in (of_noise, of_pocket, of_renderings)] == [0, 0, 0]
    adherence = [result.figure("adherence")["value"] for result in (of_noise, of_pocket, of_renderings)]
    assert adherence[0] == 0 and adherence[2] == 1
    assert adherence[0] < adherence[1] <= adherence[2]
    distances = [result.figure("FID")["value"] for result in (of_noise, of_pocket, of_renderings)]
    assert distances[0] > 2 * distances[1] > 2 * distances[2]
    kernel = [result.figure("KID")["value"] for result in (of_noise, of_pocket, of_renderings)]
    assert kernel[0] > 10 * max(map(abs, kernel[1:]))  # unbiased, so 6 pictures tell no more
    assert "validation loss" in of_pocket.out and of_pocket.figure("seconds per image")["value"] > 0
    assert of_renderings.figure("diversity")["value"] > of_noise.figure("diversity")["value"]


def test_everything_is_measured_or_says_why_not(
    run: Run, renderings: Path, other_renderings: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    result = run(
        "--images", renderings, "--reference", other_renderings, "--clip", tiny_clip, "--bootstrap", 20
    )
    assert result.code == 0, result.err
    missing = {name: figure["not_measured"] for name, figure in result.report["runs"][0]["figures"].items()
               if figure["value"] is None}  # fmt: skip
    assert missing == {
        "counting": "no prompt asks for it",
        "attribute binding": "no prompt asks for it",
        "validation loss": "there is no model, only pictures",
        "speed": "the pictures were not drawn here",
    }
    for name, reason in missing.items():
        assert f"not measured: {name}: {reason}" in result.out
    for name in ("FID", "KID", "CMMD", "CLIPScore", "diversity"):
        low, high = result.figure(name)["interval_95"]
        assert low <= result.figure(name)["value"] <= high
    assert "recogniser" in result.figure("FID")["how"] and "at least 1280" in result.figure("FID")["warning"]
    assert "warning: FID" in result.out
    assert "tiny-clip" in result.figure("CMMD")["how"]
    assert str(tmp_path) not in json.dumps(result.report) and str(renderings.parent) not in result.out
    assert result.out.count("\n") < 50 and "report.html" in result.err


def test_a_figure_that_is_not_good_enough_ends_with_1(
    run: Run, renderings: Path, noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ("--bootstrap", 0)
    met = ("--require", "adherence>=100%", "--require", "things-there >= 1")
    good = run("--images", renderings, *quick, *met)
    assert good.code == 0, good.err
    assert set(good.report["runs"][0]["figures"]) <= {*FIGURES, "speed"}
    wrong = ("--require", "adherence>=0.5", "--require", "diversity<=1e9", "--require", "Counting>=0%")
    bad = run("--images", noise, *quick, *wrong, output="bad")
    assert bad.code == 1 and bad.report is not None
    line = next(line for line in bad.err.splitlines() if line.startswith("error"))
    assert "2 of what" in line
    assert "adherence>=0.5: it is 0.0 %" in line and "Counting>=0%: not measured" in line


class Page(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "style")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_nothing_in_it_is_run(
    run: Run, tmp_path: Path, render: Callable[[int], list[np.ndarray]]
) -> None:
    evil = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a dog & a cat"]
    small, large = render(1)[0], np.full((300, 200, 3), 90, np.uint8)
    folder = write_folder(tmp_path / "<b>evil", evil, [small, large, small])
    result = run("--images", folder)
    assert result.code == 0, result.err
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and page.tags.count("img") == 1 + 3 and "b" not in page.tags
    assert all(re.match(r"data:image/(png|webp);base64,", address) for address in page.addresses)
    assert "http" not in text.replace("http-equiv", "")
    for prompt in evil:
        assert prompt in page.text
    assert "default-src 'none'" in text
    with Image.open(tmp_path / "out" / "plot.png") as plot:
        assert plot.format == "PNG" and plot.width > 200


def test_drawn_pictures_carry_their_prompts_and_are_judged_alike_again(run: Run, tiny_pocket: Path) -> None:
    drawn = run(tiny_pocket, "--limit", 4, "--steps", 1, "--json")
    assert drawn.code == 0, drawn.err
    assert json.loads(drawn.out) == drawn.report
    assert len(drawn.report["runs"][0]["pictures"]) == 8
    again = run("--images", "out/pictures", output="again")
    names = ("adherence", "single object", "things there", "diversity", "diversity in pixels")
    for name in names:
        assert again.figure(name)["value"] == pytest.approx(drawn.figure(name)["value"]), name
    assert drawn.report["model"] == {"id": "tiny-pocket", "family": "pocket"}
    assert drawn.report["drawing"]["scheduler"] == "ddim"


def test_a_sweep_draws_every_combination(run: Run, tiny_pocket: Path, tmp_path: Path) -> None:
    sweep = ("--sweep", "steps=1,2", "--sweep", "guidance-scale=1,3")
    result = run(tiny_pocket, "--limit", 2, *sweep, "--bootstrap", 10)
    assert result.code == 0, result.err
    settings = [run["settings"] for run in result.report["runs"]]
    assert settings == [{"steps": s, "guidance_scale": g} for s in (1, 2) for g in (1.0, 3.0)]
    assert len(list((tmp_path / "out" / "pictures").rglob("*.png"))) == 4 * 2 * 2
    rows = [line.split() for line in result.out.splitlines()]
    assert rows[0][:3] == ["steps", "guidance-scale", "adherence"]
    assert [row[:2] for row in rows[1:5]] == [["1", "1"], ["1", "3"], ["2", "1"], ["2", "3"]]
    values = {run["figures"]["diversity in pixels"]["value"] for run in result.report["runs"]}
    assert len(values) == 4
    assert Image.open(tmp_path / "out" / "plot.png").height > 600


def test_a_setting_that_fails_leaves_the_others(
    run: Run, tiny_pocket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = pipeline.generate

    def fail_at_two(config: GenerateConfig, *rest: Any) -> Any:
        if config.steps == 2:
            raise ModelError("two is no number of steps")
        return draw(config, *rest)

    monkeypatch.setattr(pipeline, "generate", fail_at_two)
    result = run(tiny_pocket, "--limit", 1, "--sweep", "steps=1,2")
    assert result.code == 3 and "1 of 2 settings failed" in result.err
    assert result.report["runs"][1]["failure"] == "two is no number of steps"
    assert result.figure("diversity")["value"] is not None
    assert run(tiny_pocket, "--limit", 1, "--steps", 2, output="b").code == 4


def test_a_broken_metric_costs_nothing_but_itself(
    run: Run, renderings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(subject: Any) -> Any:
        raise RuntimeError("broken")

    broken = [replace(row, measure=explode) if row.name == "adherence" else row for row in metrics.METRICS]
    monkeypatch.setattr("t2i.evaluation.runs.METRICS", broken)
    result = run("--images", renderings)
    assert result.code == 0
    assert result.figure("adherence")["not_measured"] == "failed: RuntimeError: broken"
    assert result.figure("diversity")["value"] is not None


def test_another_model_is_scored_by_clip(run: Run, tiny_sd1: Path, tiny_clip: Path) -> None:
    result = run(tiny_sd1, "--limit", 2, "--steps", 1, "--clip", tiny_clip, "--features", "clip")
    assert result.code == 0, result.err
    assert "only drawn things" in result.figure("adherence")["not_measured"]
    assert 0 <= result.figure("CLIPScore")["value"] <= 2.5
    assert "CLIP embeddings" in result.figure("diversity")["how"]


def test_a_damaged_picture_is_left_out_by_name(run: Run, renderings: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for path in sorted(renderings.glob("*.png"))[:3]:
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / path.name).with_suffix(".txt").write_text("a dog on a red background")
    data = (folder / "001.png").read_bytes()
    (folder / "001.png").write_bytes(data[: len(data) // 2])
    result = run("--images", folder)
    assert result.code == 0, result.err
    assert len(result.report["runs"][0]["pictures"]) == 2
    assert "001.png" in result.out
    (folder / "000.png").write_bytes(b"")
    (folder / "002.png").write_bytes(b"")
    assert run("--images", folder, output="b").code == 4


def test_nothing_is_overwritten_unasked_and_nothing_else_is_taken_away(
    run: Run, tiny_pocket: Path, tmp_path: Path
) -> None:
    assert run(tiny_pocket, "--limit", 2, "--steps", 1).code == 0
    pictures = tmp_path / "out" / "pictures"
    mine = pictures / "mine.png"
    mine.write_bytes(b"mine")
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"mine too")
    report = tmp_path / "out" / "report.json"
    values = json.loads(report.read_text())
    values["runs"][0]["pictures"].append({"file": "../outside.png"})
    report.write_text(json.dumps(values))
    refused = run(tiny_pocket, "--limit", 1, "--steps", 1)
    assert refused.code == 4 and "--overwrite" in refused.err and len(list(pictures.iterdir())) == 5
    assert run(tiny_pocket, "--limit", 1, "--steps", 1, "--overwrite").code == 0
    assert sorted(path.name for path in pictures.iterdir()) == ["0000-000.png", "0000-001.png", "mine.png"]
    assert outside.read_bytes() == b"mine too"
    mine.unlink()
    assert run("--images", pictures, "--overwrite").code == 0  # its own pictures are not taken away
    assert len(list(pictures.iterdir())) == 2


USAGE = [
    (["--sweep", "steps=a"], "not a whole number"),
    (["--sweep", "scheduler=eulr"], "eulr"),
    (["pocket", "--images", "x"], "MODEL says how to draw"),
    (["--images", "x", "--steps", "3"], "--steps says how to draw"),
    (["--images", "x", "--limit", "3"], "--limit says how to draw"),
    (["--images", "x", "--sweep", "steps=3"], "--sweep varies"),
    (["--steps", "3", "--sweep", "steps=3,4"], "say the same"),
    (["pocket", "-m", "sd15"], "two models"),
    (["--features", "clip"], "needs a CLIP model"),
    (["--features", "inception"], "not one of"),
    (["--num-images", "0"], "at least 1"),
    (["--bootstrap", "-1"], "at least 0"),
    (["--require", "counting"], "not NAME>=NUMBER"),
    (["--require", "counting>=much"], "not NAME>=NUMBER"),
    (["--require", "countin>=80%"], "no figure is called"),
    (["--prompts", "nothing"], "neither a suite"),
]


def test_usage_errors_are_one_line_and_import_nothing_heavy() -> None:
    code = (
        "import contextlib, io, json, sys\nfrom t2i.cli import run\n"
        "for line in json.loads(sys.argv[1]):\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stderr(said):\n        code = run(['eval', *line])\n"
        "    print(json.dumps([code, said.getvalue(), 'torch' in sys.modules or 'numpy' in sys.modules]))\n"
    )
    lines = json.dumps([arguments for arguments, _ in USAGE])
    done = subprocess.run([sys.executable, "-c", code, lines], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for (arguments, said), line in zip(USAGE, done.stdout.splitlines(), strict=True):
        code_here, message, heavy = json.loads(line)
        assert (code_here, heavy) == (2, False), arguments
        assert said in message.splitlines()[0] and len(message.splitlines()) <= 2, arguments


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "nothing"], "nothing"),
        (["--images", "."], "no pictures"),
        (["--reference", "nothing"], "nothing"),
        (["--clip", "./nothing"], "--clip ./nothing"),
        (["--prompts", "nothing.txt"], "does not exist"),
        (["./no-model"], "no model"),
    ],
)
def test_what_is_not_there_is_told_before_anything_is_drawn(
    run: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    result = run(*arguments)
    assert result.code == 4 and said in result.err.splitlines()[-2 if "hint" in result.err else -1]
    assert not (tmp_path / "out").exists()


def test_no_flag_of_the_command_means_two_things() -> None:
    from t2i.cli.eval import command

    flags: list[str] = []
    for parameter in command.__signature__.parameters.values():  # type: ignore[attr-defined]
        info = parameter.annotation.__metadata__[0]
        flags += [
            flag for flag in map(str, [info.default, *(info.param_decls or ())]) if flag.startswith("-")
        ]
    assert {"--sweep", "--images", "-m", "-o", "--steps"} <= set(flags)
    assert sorted(flags) == sorted(set(flags))


def test_tables_agree_with_the_config() -> None:
    choices = EvaluateConfig.options()["features"].choices
    assert set(choices) == set(EXTRACTORS)
    columns = {row.column for row in metrics.METRICS}
    assert columns == set(metrics.TRILEMMA)
