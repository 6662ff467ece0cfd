"""Expected pictures: equal, close enough elsewhere, different, unknown, missing; and how they are made."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Result, run_line
from made_batch import ELSEWHERE, RUNTIME, draw, job, pixels
from safetensors.numpy import load_file, save_file

from t2i import images
from t2i.batch.golden import read_golden, update_golden
from t2i.batch.rows import rows_of
from t2i.batch.sheet import GAP, side_by_side
from t2i.batch.verdicts import Verdict, compare
from t2i.config.batch import MIN_PSNR, BatchConfig
from t2i.errors import StorageError, UsageError


def off_by(amount: int, shown: np.ndarray) -> np.ndarray:
    """The picture with one value changed."""
    changed = shown.copy()
    changed[3, 5, 1] += amount
    return changed


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A golden file of two pictures in out/."""
    jobs = [job(1, "a dog"), job(2, "a cat", seed=8)]
    for one in jobs:
        draw(tmp_path / "out", one, pixels())
    lines = update_golden(tmp_path / "golden.json", jobs, tmp_path / "out", None, "minimal")
    assert [line.partition(":")[0] for line in lines[:2]] == ["new", "new"] and "2 pictures, 0 of" in lines[2]
    return tmp_path / "golden.json"


def judge(golden: Path, shown: np.ndarray, runtime: dict[str, Any] = RUNTIME, **options: Any) -> Verdict:
    """The verdict on another picture of the first line."""
    folder, one = golden.parent / "new", job(1, "a dog")
    draw(folder, one, shown, runtime, options.pop("metadata", "full"))
    found = compare(
        read_golden(golden), [one], [one, job(2, "a cat", seed=8)], folder, options.get("min_psnr")
    )
    assert not found.missing
    return found.verdicts[one.id]


def test_equal_pixels_are_equal_anywhere(golden: Path) -> None:
    assert judge(golden, pixels()) == judge(golden, pixels(), ELSEWHERE) == Verdict("equal", "equal")
    assert read_golden(golden).min_psnr == MIN_PSNR


def test_on_the_same_machine_one_value_is_a_difference(golden: Path) -> None:
    verdict = judge(golden, off_by(1, pixels()))
    assert verdict.kind == "different" and not verdict.holds
    assert verdict.psnr == pytest.approx(
        10 * np.log10(255**2 * pixels().size)
    )  # one value of them, off by one
    assert "equal versions" in verdict.text and verdict.reference is not None


def test_on_another_machine_a_psnr_decides(golden: Path) -> None:
    close, far = off_by(20, pixels()), off_by(100, pixels())
    assert (judge(golden, close, ELSEWHERE).kind, judge(golden, far, ELSEWHERE).kind) == (
        "close",
        "different",
    )
    assert "torch 2.13.0 -> 2.14.0" in judge(golden, close, ELSEWHERE).text
    psnr = images.psnr(close, pixels())
    assert judge(golden, close, ELSEWHERE, min_psnr=psnr + 0.1).kind == "different"
    assert judge(golden, far, ELSEWHERE, min_psnr=10.0).kind == "close"
    assert judge(golden, close, metadata="minimal").kind == "close"  # nothing is known of its machine
    for change in ({"batch_shape": [2, 4, 1, 2]}, {"processor": "another"}):  # both are part of the machine
        values = json.loads(golden.read_text())
        assert change.keys() <= values["runtimes"][0].keys()
        values["runtimes"][0].update(change)
        golden.write_text(json.dumps(values))
        assert judge(golden, close).kind == "close" and judge(golden, far).kind == "different"


def test_a_reference_that_cannot_be_trusted_is_a_difference(golden: Path) -> None:
    reference = next(iter(read_golden(golden).pictures.values())).reference
    images.save(reference, off_by(1, pixels()), None, overwrite=True)
    verdict = judge(golden, off_by(1, pixels()), ELSEWHERE)
    assert verdict.kind == "different" and "is not the expected picture" in verdict.text
    reference.unlink()
    assert "does not exist" in judge(golden, off_by(1, pixels()), ELSEWHERE).text
    assert judge(golden, pixels()).holds  # the hash alone says so


def test_what_shows_another_thing_is_another_picture(golden: Path) -> None:
    folder, read = golden.parent / "out", read_golden(golden)
    others = [job(1, "a dog", seed=9), job(1, "a dog", steps=3), job(1, "a dog", model="other"),
              job(1, "a dog", negative_prompt="red")]  # fmt: skip
    same = [job(9, "a dog", file="x.png"), job(1, "a dog", model="/elsewhere/tiny", device="cpu"),
            job(1, "a dog", deterministic=True, dtype="fp32", batch_size=3)]  # fmt: skip
    for one in (*others, *same):
        draw(folder, one, pixels())
    found = compare(read, others, others, folder, None)
    assert {verdict.kind for verdict in found.verdicts.values()} == {"unknown"}
    assert [expected.prompt for expected in found.missing] == ["a dog", "a cat"]
    assert found.differences == len(others) + 2
    assert all(verdict.holds for verdict in compare(read, same, same, folder, None).verdicts.values())


def test_update_says_what_changed_and_keeps_no_old_picture(golden: Path) -> None:
    folder, dog, cat, fox = golden.parent / "out", job(1, "a dog"), job(2, "a cat", seed=8), job(3, "a fox")
    before = golden.read_bytes()
    assert update_golden(golden, [dog, cat], folder, None, "minimal") == [
        f"{golden}: 2 pictures, 2 of them as before"
    ]
    assert golden.read_bytes() == before
    draw(folder, dog, pixels(red=9))
    draw(folder, fox, pixels())
    lines = update_golden(golden, [dog, fox], folder, 35.0, "minimal")
    assert lines == [
        "changed: 'a dog', seed 7", "new: 'a fox', seed 7", "gone: 'a cat', seed 8",
        f"{golden}: 2 pictures, 0 of them as before",
    ]  # fmt: skip
    read = read_golden(golden)
    assert read.min_psnr == 35 and len(list((golden.parent / "golden").iterdir())) == 2
    for expected in read.pictures.values():
        assert images.pixels_sha256(images.read_pixels(expected.reference)) == expected.pixels_sha256
    assert str(golden.parent) not in golden.read_text()


@pytest.mark.parametrize(
    "file", ["../victim.png", "/victim.png", "golden/../../v.png", "golden/..", "golden", 5]
)
def test_a_golden_file_leads_nowhere_else(golden: Path, file: Any) -> None:
    values = json.loads(golden.read_text())
    values["pictures"][0]["file"] = file
    golden.write_text(json.dumps(values))
    with pytest.raises(StorageError, match="no golden file"):
        read_golden(golden)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"golden": 1}', '{"golden": 2}', '{"golden": "x"}'])
def test_what_is_no_golden_file_is_never_replaced(tmp_path: Path, text: str) -> None:
    (tmp_path / "golden.json").write_text(text)
    with pytest.raises(StorageError):
        update_golden(tmp_path / "golden.json", [], tmp_path, None, "minimal")
    assert (tmp_path / "golden.json").read_text() == text


def test_the_difference_is_amplified(golden: Path) -> None:
    shown = off_by(5, pixels())
    verdict, one = judge(golden, shown), job(1, "a dog")
    row = rows_of([one], {one.id: draw(golden.parent / "new", one, shown)}, golden.parent / "new")[0]
    row = type(row)(**{**vars(row), "verdict": verdict})
    sheet = side_by_side(row, golden.parent / "new")
    width = (sheet.shape[1] - GAP) // 3
    factor = (width - GAP) // 16
    top = sheet.shape[0] - GAP - 8 * factor
    at = [sheet[top + 3 * factor + 2, GAP + n * width + 5 * factor + 2] for n in range(3)]
    assert [list(value) for value in at] == [[200, 100, 50], [200, 105, 50], [0, 255, 0]]
    assert not sheet[top : top + factor, GAP + 2 * width : GAP + 2 * width + factor].any()


@pytest.mark.parametrize(
    "values",
    [{"update_golden": True}, {"min_psnr": 30.0}, {"expect": "golden.txt"},
     {"expect": "g.json", "metadata": "none"}, {"expect": "g.json", "min_psnr": -1.0},
     {"expect": "g.json", "update_golden": True, "shard": "1/2"}],
)  # fmt: skip
def test_options_that_cannot_be(values: dict[str, Any]) -> None:
    BatchConfig(output="out", expect="g.json", update_golden=True, min_psnr=0.0)
    with pytest.raises(UsageError):
        BatchConfig(output="out", **values)


# ---- through the command line


def test_one_changed_weight_turns_a_run_red(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny_pocket: Path,
    copy_model: Callable[[Path], Path],
) -> None:
    monkeypatch.chdir(tmp_path)
    model = copy_model(tiny_pocket)
    Path("p.txt").write_text("a dog --d 5\na cat --d 6\n")

    def batch(output: str, *arguments: object) -> Result:
        fixed = ["-m", model, "--steps", 1, "--size", "32x32", "--deterministic", "-o", output]
        return run_line(capsys, "batch", "p.txt", *fixed, "--expect", "golden.json", *arguments)

    refused = batch("one")
    assert (
        refused.code == 4
        and "golden.json does not exist" in refused.err
        and not Path("one/report.html").exists()
    )
    assert batch("one", "--update-golden").code == 0 and len(list(Path("golden").iterdir())) == 2
    green = batch("two", "--junit", "junit.xml")
    assert green.code == 0 and ElementTree.parse("junit.xml").getroot().attrib["failures"] == "0"
    assert "as golden.json expects: 2 of 2 pictures" in Path("two/report.html").read_text()

    file = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.bias"] = weights["decoder.conv_out.bias"] + np.float32([0.3, 0, 0])
    save_file(weights, file, {"format": "pt"})
    Path("p.txt").write_text("a dog --d 5\na fox --d 6\n")
    red = batch("two", "--junit", "junit.xml", "--json")
    assert red.code == 1 and "3 pictures not as golden.json has them" in red.err
    verdicts = [event["verdict"] for event in red.events if event["event"] == "compared"]
    assert verdicts == ["different", "unknown"] and "missing: 'a cat', seed 6" in red.err
    (shown,) = Path("two/differences").iterdir()
    assert (
        f"see {shown}" in red.err
        and f'href="differences/{shown.name}"' in Path("two/report.html").read_text()
    )
    suite = ElementTree.parse("junit.xml").getroot()[0]
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("3", "3")
    assert f"[[ATTACHMENT|{shown}]]" in str(suite[0].findtext("system-out"))
    assert batch("two", "--update-golden").code == 0 and not shown.exists()
    assert len(list(Path("golden").iterdir())) == 2 and batch("two").code == 0
