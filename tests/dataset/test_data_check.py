"""`t2i data check`: what it finds, what it prints, what --fix writes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import Run
from odd_files import deep_png, encoded, noise
from PIL import Image, ImageFilter

from t2i import datacheck
from t2i.config.data import DataCheckConfig
from t2i.datacheck.examining import Examined, in_processes
from t2i.datacheck.likeness import Likeness, alike, likeness_of
from t2i.datacheck.names import name_problem, name_problems, safe_name
from t2i.dataset import read_folder


def scene(number: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A soft picture that is like no other number's."""
    return noise(np.random.default_rng([7, number]), size=size).filter(ImageFilter.GaussianBlur(2))


def found_in(folder: Path, **changes: object) -> dict[str, list[str]]:
    """Kind → places."""
    report = datacheck.check(DataCheckConfig(folder=str(folder), **changes)).report  # type: ignore[arg-type]
    kinds: dict[str, list[str]] = {}
    for finding in report.findings:
        kinds.setdefault(finding.kind, []).append(finding.place)
    return kinds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three fine pictures with captions."""
    root = tmp_path / "data"
    root.mkdir()
    for number in range(3):
        scene(number).save(root / f"{number}.png")
        (root / f"{number}.txt").write_text(f"scene {number}")
    return root


def test_a_clean_folder(folder: Path, run: Run) -> None:
    result = run("data", "check", str(folder))
    assert result.code == 0
    assert result.out.splitlines()[-1] == "3 pictures, captions: sidecar: no problems"


def test_pictures(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"")
    (folder / "4.png").write_bytes((folder / "0.png").read_bytes()[:900])
    Image.new("RGB", (70, 20), "red").save(folder / "5.png")
    (folder / "6.png").write_bytes(deep_png(np.arange(6400, dtype=np.uint16).reshape(80, 80)))
    (folder / "7.jpg").write_bytes((folder / "0.png").read_bytes())
    scene(9).save(folder / "8.gif")
    for number in (5, 6, 7):
        (folder / f"{number}.txt").write_text(f"scene {number}")
    assert found_in(folder) == {
        "empty": ["3.png"],
        "truncated": ["4.png"],
        "format": ["8.gif"],
        "tiny": ["5.png"],
        "extreme-aspect": ["5.png"],
        "duplicate": ["7.jpg"],
        "extension": ["7.jpg"],
        "16-bit": ["6.png"],
    }
    assert "tiny" not in found_in(folder, resolution=16)
    assert len(found_in(folder, resolution=81)["tiny"]) == 6


def test_captions(folder: Path) -> None:
    (folder / "0.txt").write_text("word " * 76)
    (folder / "1.txt").write_text("")
    (folder / "gone.txt").write_text("x")
    (folder / "README.txt").write_text("x")
    scene(3).save(folder / "3.png")
    (folder / "3.txt").write_bytes(b"\xff")
    assert found_in(folder) == {
        "no-caption": ["1.png", "3.png"],
        "long-caption": ["0.png"],
        "orphan-caption": ["gone.txt"],
        "not-utf8": ["3.txt"],
    }
    for number in range(4):
        (folder / f"{number}.txt").write_text("the same")
    assert found_in(folder)["duplicate-caption"] == [""]
    assert found_in(folder, captions="none") == {"uncaptioned": [""]}


def test_captions_are_counted_in_tokens_of_a_model(folder: Path) -> None:
    (folder / "0.txt").write_text("zyzzyvas " * 30)
    assert "long-caption" not in found_in(folder)
    assert found_in(folder, model="pocket")["long-caption"] == ["0.png"]


def test_metadata(folder: Path) -> None:
    rows = [
        {"file_name": "0.png", "text": "x"},
        {"file_name": "0.png", "text": "y"},
        {"file_name": "gone.png", "text": "z"},
        {"file_name": "../data/../../x.png", "text": "z"},
        {"file_name": "1.png"},
        {"file_name": "2.png", "text": "b"},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert found_in(folder) == {
        "missing": ["metadata.jsonl, line 3"],
        "outside": ["metadata.jsonl, line 4"],
        "bad-line": ["metadata.jsonl, line 5"],
        "unlisted": ["1.png"],
        "listed-twice": ["0.png"],
    }


def test_copies_and_leaks(tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    for number in range(6):
        scene(number).save(tmp_path / "train" / f"{number}.png")
    scene(0).save(tmp_path / "train" / "same.webp", lossless=True)
    scene(1).save(tmp_path / "train" / "worse.jpg", quality=60)
    scene(2).resize((150, 125)).save(tmp_path / "val" / "larger.png")
    scene(3).save(tmp_path / "val" / "same.png")
    scene(10).save(tmp_path / "val" / "new.png")
    found = found_in(tmp_path)
    found.pop("uncaptioned", None), found.pop("no-caption", None), found.pop("duplicate-caption", None)
    assert found == {
        "duplicate": ["train/same.webp"],
        "near-duplicate": ["train/worse.jpg"],
        "leak": ["val/same.png", "val/larger.png"],
    }


def test_likeness_finds_re_encoded_pictures_and_no_others() -> None:
    originals = [scene(number, (200, 160)) for number in range(40)]
    shapes = [Image.new("RGB", (200, 160), colour) for colour in ("red", "lime", "blue", "gray")]
    for number, shape in enumerate(shapes):
        shape.paste("white", (40 + number, 40, 120, 100))
    pictures = originals + shapes  # the shapes have one outline
    changed = []
    for number, picture in enumerate(pictures):
        small = picture.resize((picture.width * 2 // 3, picture.height * 2 // 3), Image.Resampling.LANCZOS)
        data = encoded(small if number % 2 else picture, "JPEG" if number % 3 else "WEBP", quality=70)
        changed.append(Image.open(io.BytesIO(data)).convert("RGB"))
    pairs = alike([likeness_of(picture) for picture in (*pictures, *changed)])
    assert pairs == [(number, number + len(pictures)) for number in range(len(pictures))]


def test_no_pair_is_missed() -> None:
    """Against comparing all with all, on hashes that are near each other more often than pictures."""
    draw = np.random.default_rng(0)
    hashes = [int(draw.integers(2**63)) for _ in range(40)]
    for _ in range(160):
        bits = int(draw.integers(9))
        flips = sum(1 << int(place) for place in draw.choice(64, bits, replace=False))
        hashes.append(hashes[int(draw.integers(40))] ^ flips)
    likenesses = [Likeness(one, bytes(768)) for one in hashes]
    expected = [
        (i, j)
        for i in range(200)
        for j in range(i + 1, 200)
        if (hashes[i] ^ hashes[j]).bit_count() <= datacheck.likeness.MOST_BITS  # type: ignore[attr-defined]
    ]
    assert len(expected) > 50 and alike(likenesses) == expected


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("a dog (2).png", ""),
        ("köln.png", ""),
        ("-rf.png", "begins with -"),
        (".hidden.png", "begins with ."),
        ("a\nb.png", "control"),
        ("a\u202egnp.exe", "direction"),
        ("con.png", "device"),
        ("a:b.png", "Windows does not allow :"),
        ("cafe\u0301.png", "normal form"),
        ("x" * 117 + ".png", "121 bytes"),
        ("\udcff.png", "UTF-8"),
        ("a.png ", "ends with"),
    ],
)
def test_names(name: str, told: str) -> None:
    assert told in name_problem(name) and bool(told) == bool(name_problem(name))
    assert name_problem(safe_name(name)) == ""
    assert safe_name(name) == name or told


def test_names_that_differ_only_in_case() -> None:
    assert list(name_problems(["a/X.png", "a/x.png", "b/x.png"])) == [
        ("a/x.png", "is a/X.png where letters have no case")
    ]


def test_the_report_is_one_line_a_finding_whatever_names_hold(folder: Path, run: Run) -> None:
    (folder / "a\n\x1b[31mb.png").write_bytes(b"")
    os.rename(folder / "0.png", os.fsencode(folder) + b"/\xff.png")
    result = run("data", "check", str(folder), "--show", "1")
    assert result.code == 1 and "\x1b" not in result.out
    assert "problem empty" in result.out and "a\\n\\x1b[31mb.png" in result.out
    result = run("data", "check", str(folder), "--json")
    report = json.loads(result.out)
    assert report["counts"]["empty"] == 1 and report["clean"] is False and report["pictures"] == 4
    assert sum(report["buckets"].values()) == 3


def test_fix(folder: Path, run: Run, tmp_path: Path) -> None:
    upright = scene(5, (64, 96))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    (folder / "turned.txt").write_text("one\ntwo")
    (folder / "-a\n.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    scene(6).save(folder / "really.png", "JPEG")
    noise(np.random.default_rng(0), "RGBA", (64, 64)).save(folder / "alpha.png")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    out = tmp_path / "clean"
    result = run(
        "data", "check", str(folder), "--fix", str(out), "--sheet", "s.png", "--alpha-background", "black"
    )
    assert result.code == 1 and "left out  broken.jpg" in result.out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    fixed = read_folder(out)
    captions = {example.file.name: example.captions for example in fixed.examples}
    assert captions["turned.png"] == ("one", "two") and captions["1.png"] == ("scene 1",)
    with Image.open(out / "turned.png") as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(upright)) and not picture.getexif()
    assert (out / "1.png").read_bytes() == before["1.png"], "nothing wrong: the same bytes"
    assert (out / "really.jpg").read_bytes() == before["really.png"]
    with Image.open(out / "alpha.png") as picture:
        assert picture.mode == "RGB"
    again = datacheck.check(DataCheckConfig(folder=str(out))).report
    assert {finding.kind for finding in again.findings} == {"no-caption"}
    assert len(captions) == 6 and "broken.jpg" not in captions
    with Image.open(tmp_path / "s.png") as drawn:
        assert drawn.width > 128


def test_fix_keeps_repeats_and_parts(tmp_path: Path) -> None:
    for number, name in enumerate(("train/3_a dog/1.png", "train/1_a cat/2.png", "val/3.png")):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(number).save(path)
    checked = datacheck.check(DataCheckConfig(folder=str(tmp_path / "data")))
    datacheck.write_fixed(checked, tmp_path / "out", "white")
    again = read_folder(tmp_path / "out")

    def told(folder: Path) -> list[tuple[str, str, int, str]]:
        return sorted(
            (str(e.file.relative_to(folder)), e.caption, e.repeats, e.part)
            for e in read_folder(folder).examples
        )

    assert told(tmp_path / "out") == told(tmp_path / "data")
    assert [example.repeats for example in again.examples] == [1, 3, 1]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("nowhere",), 4, "dataset nowhere is not a folder"),
        ((), 2, "no folder given"),
        (("data", "--fix", "data/clean"), 2, "lie in one another"),
        (("data", "--fix", "there"), 4, "there already exists"),
        (("data", "--sheet", "x.gif"), 2, "cannot write .gif"),
        (("data", "--sheet", "there.png"), 4, "already exists"),
        (("data", "--alpha-background", "pinkish"), 2, "not a colour"),
        (("data", "--caption", "x", "--captions", "names"), 2, "both say"),
        (("data", "--model", "nowhere.safetensors"), 4, "nowhere.safetensors"),
    ],
)
def test_refusals(folder: Path, run: Run, arguments: tuple[str, ...], code: int, told: str) -> None:
    Path("there").mkdir()
    Path("there.png").write_bytes(b"")
    result = run("data", "check", *arguments)
    assert (result.code, told in result.err) == (code, True), result.err
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{n}.{s}" for n in range(3) for s in ("png", "txt")
    ]


def dies_of_some(path: Path) -> Examined:
    if path.name == "5":
        os._exit(1)
    return Examined((("name", path.name),))


def test_a_picture_that_kills_its_process_is_found() -> None:
    results: Iterator[Examined] = in_processes(dies_of_some, [Path(str(number)) for number in range(8)])
    told = [found.found[0] for found in results]
    assert [number for number, (kind, _) in enumerate(told) if kind == "unreadable"] == [5]
    assert [name for _, name in told[:5] + told[6:]] == [str(n) for n in range(8) if n != 5]


def test_neither_torch_nor_a_model_is_loaded(folder: Path) -> None:
    code = (
        "import sys; from t2i.cli import run; "
        f"code = run(['data', 'check', {str(folder)!r}, '--json']); "
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'transformers', 'diffusers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
