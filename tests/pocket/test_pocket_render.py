"""The command writes a folder that `t2i train` reads, the same bytes every time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import render
from PIL import Image

Run = tuple[Path, list[dict[str, str]], list[dict[str, object]]]


def render_to(output: Path, font: Path, ten: frozenset[str], scenes: int = 40) -> None:
    render.render(output, scenes, 64, seed=9, font=font, only=ten, mixture="quick")


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_folder_has_pictures_captions_and_annotations(
    tmp_path: Path, ten_font: Path, ten: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "PER_FOLDER", 20)
    monkeypatch.setattr(render, "CHUNK", 10)
    render_to(tmp_path / "data", ten_font, ten)
    rows = read_lines(tmp_path / "data" / "metadata.jsonl")
    scenes = read_lines(tmp_path / "data" / "scenes.jsonl")
    assert [row["file_name"] for row in rows[18:22]] == [
        "000/000018.png",
        "000/000019.png",
        "001/000020.png",
        "001/000021.png",
    ]
    assert len(rows) == len(scenes) == 40
    for row, scene in zip(rows, scenes, strict=True):
        assert set(row) == {"file_name", "text"}
        assert (row["file_name"], row["text"]) == (scene["file_name"], scene["text"])
        picture = Image.open(tmp_path / "data" / str(row["file_name"]))
        assert (picture.mode, picture.size, picture.format) == ("RGB", (64, 64), "PNG")
        assert np.array_equal(np.asarray(picture)[0, 0], scene["colour"])
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "000",
        "001",
        "metadata.jsonl",
        "scenes.jsonl",
    ]


def test_same_seed_same_bytes_and_more_scenes_change_none(
    tmp_path: Path, ten_font: Path, ten: frozenset[str]
) -> None:
    render_to(tmp_path / "a", ten_font, ten, scenes=12)
    render_to(tmp_path / "b", ten_font, ten, scenes=15)
    for path in sorted((tmp_path / "a" / "000").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / "000" / path.name).read_bytes()


def test_command_line_and_refusal_to_mix_two_data_sets(
    tmp_path: Path, ten_font: Path, ten: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["render.py", str(tmp_path / "data"), "--scenes", "3", "--size", "32", "--font", str(ten_font)]
    monkeypatch.setattr(sys, "argv", [*line, "--only", *sorted(ten)])
    render.main()
    assert Image.open(tmp_path / "data" / "000" / "000002.png").size == (32, 32)
    with pytest.raises(FileExistsError, match="already holds a data set"):
        render.main()


def test_the_mixture_decides_what_is_shown(
    tmp_path: Path, ten_font: Path, ten: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [
        "render.py",
        str(tmp_path / "data"),
        "--scenes",
        "6",
        "--mixture",
        "quick",
        "--font",
        str(ten_font),
    ]
    monkeypatch.setattr(sys, "argv", [*line, "--only", *sorted(ten)])
    render.main()
    assert Image.open(tmp_path / "data" / "000" / "000005.png").size == (128, 128)
    scenes = read_lines(tmp_path / "data" / "scenes.jsonl")
    rows = read_lines(tmp_path / "data" / "metadata.jsonl")
    assert [row["text"] for row in rows] == [scene["text"] for scene in scenes]
    assert {"kind", "objects", "count", "relation", "verb", "style", "background"} < set(scenes[0])
    assert {scene["kind"] for scene in scenes} == {"single"}
    assert all(scene["objects"][0]["size"] == "big" for scene in scenes)
    render.render(tmp_path / "longer", 8, 128, 0, ten_font, ten, "quick")
    for name in (f"000/00000{number}.png" for number in range(6)):
        assert (tmp_path / "data" / name).read_bytes() == (tmp_path / "longer" / name).read_bytes()


def test_an_unknown_concept_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["render.py", str(tmp_path / "data"), "--only", "dog", "doge"])
    with pytest.raises(SystemExit):
        render.main()
    assert "doge: no such concept" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
