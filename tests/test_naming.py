"""Where pictures go: safe, distinct, and never over somebody's file."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from t2i.errors import StorageError, UsageError
from t2i.naming import plan_paths, slug


def pictures(*seeds: int, prompt: str = "A dog, riding!") -> list[dict[str, Any]]:
    return [
        {"index": index, "seed": seed, "slug": prompt, "prompt_index": 0, "image_index": index}
        for index, seed in enumerate(seeds)
    ]


def names(output: str | None, *seeds: int, overwrite: bool = False) -> list[str]:
    return [str(path) for path in plan_paths(output, pictures(*seeds), overwrite)]


def test_a_slug_is_always_safe() -> None:
    draw = random.Random(0)
    for _ in range(1_000):
        text = "".join(
            chr(draw.choice((draw.randrange(128), draw.randrange(0x11_0000))))
            for _ in range(draw.randrange(200))
        )
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", slug(text)), repr(text)
        assert len(slug(text)) <= 70


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog, riding!", "a-dog-riding"),
        ("café", "cafe"),
        ("東京", "picture"),
        ("con", "con-picture"),
        ("../..", "picture"),
    ],
)
def test_slugs(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_file_folder_and_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert names(None, 5) == ["a-dog-riding-5.png"]
    assert names("x.jpg", 5) == ["x.jpg"]
    assert names("x.png", 5, 6) == ["x-5.png", "x-6.png"]
    assert names("x.png", 5, 5) == ["x-5.png", "x-5-2.png"]
    assert names("out/", 5, 6) == ["out/a-dog-riding-5.png", "out/a-dog-riding-6.png"]
    assert names("out", 5) == ["out/a-dog-riding-5.png"]
    assert names("p/{index:05d}-{seed}-{slug}", 5, 6) == [
        "p/00000-5-a-dog-riding.png",
        "p/00001-6-a-dog-riding.png",
    ]
    assert names("p{seed}.webp", 5) == ["p5.webp"]
    assert names("{seed}/", 5) == ["5/a-dog-riding-5.png"]


def test_long_names_are_cut(tmp_path: Path) -> None:
    (path,) = plan_paths(
        f"{tmp_path}/{'x' * 90}-{{slug}}-{{seed}}.png", pictures(5, prompt="word " * 40), False
    )
    assert len(path.name.encode()) <= 120 and path.name.endswith("-5.png")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "--output is empty"),
        ("{nope}.png", "unknown field"),
        ("{seed.__class__}.png", "unknown field"),
        ("{seed[0]}.png", "unknown field"),
        ("{0}.png", "unknown field"),
        ("{}.png", "unknown field"),
        ("{seed.png", "--output"),
        ("{seed:q}.png", "--output"),
        ("x.gif", "cannot write .gif"),
        ("{seed}.gif", "cannot write .gif"),
        ("same-{slug}.png", "2 pictures would be called"),
    ],
)
def test_bad_outputs_are_refused(output: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        names(output, 5, 6)


def test_names_the_system_refuses(tmp_path: Path) -> None:
    for output in ("x" * 300 + ".png", "x" * 300 + "/"):
        with pytest.raises(StorageError, match=r"cannot write .*: File name too long"):
            names(f"{tmp_path}/{output}", 5)


def test_existing_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    (tmp_path / "a-dog-riding-5.png").touch()
    with pytest.raises(StorageError, match="already exists"):
        names(f"{tmp_path}/x.png", 5)
    (tmp_path / "link.png").symlink_to("nowhere.png")
    with pytest.raises(StorageError, match="already exists"):
        names(f"{tmp_path}/link.png", 5)
    with pytest.raises(StorageError, match="already exists"):
        names(f"{tmp_path}/{{slug}}-{{seed}}.png", 5)
    assert names(f"{tmp_path}/x.png", 5, overwrite=True) == [f"{tmp_path}/x.png"]
    assert names(f"{tmp_path}/", 5) == [f"{tmp_path}/a-dog-riding-5-2.png"]  # the person chose no name here
    assert names(f"{tmp_path}/", 5, overwrite=True) == [f"{tmp_path}/a-dog-riding-5.png"]
