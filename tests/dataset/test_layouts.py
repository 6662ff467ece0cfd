"""How a folder may be laid out, what is understood of it, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from t2i.dataset import ImageFolder, load_pictures, read_folder
from t2i.errors import DatasetError


def tree(root: Path, **files: str | bytes | None) -> Path:
    """Files by their path, with __ for /: None makes a picture, text a file with this text."""
    for number, (name, content) in enumerate(files.items()):
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", (16, 16), (number * 9 % 256, 30, 60)).save(path, "PNG")
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def picture_tree(root: Path, *names: str, **texts: str) -> Path:
    return tree(root, **{name.replace(".", "_DOT_"): None for name in names}, **texts)


def said(folder: ImageFolder) -> dict[str, tuple[str, ...]]:
    return {str(example.file.relative_to(folder.root)): example.captions for example in folder.examples}


def test_every_line_of_a_text_file_is_a_caption(tmp_path: Path) -> None:
    picture_tree(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "a.txt").write_text("\ufeffa red car\n\n  a car that is red \n")
    (tmp_path / "b.caption").write_text("a house\n")
    (tmp_path / "c.txt").write_text("a tree")
    (tmp_path / "c.caption").write_text("not this one")
    folder = read_folder(tmp_path)
    assert said(folder) == {
        "a.png": ("a red car", "a car that is red"),
        "b.png": ("a house",),
        "c.png": ("a tree",),
    }
    assert folder.captions() == ["a red car", "a house", "a tree"], "the first, as ever"
    assert folder.summary() == "3 pictures, captions: sidecar, 1 with several captions"


def test_metadata_with_several_captions_and_repeats(tmp_path: Path) -> None:
    picture_tree(tmp_path, "a.png", "b.png")
    rows = [{"file_name": "a.png", "text": ["one", "two"], "repeats": 3}, {"file_name": "b.png", "text": "x"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folder = read_folder(tmp_path)
    assert said(folder) == {"a.png": ("one", "two"), "b.png": ("x",)}
    assert [example.repeats for example in folder.examples] == [3, 1]
    assert (
        folder.summary() == "2 pictures, captions: metadata, 1 with several captions, with repeats 4 a pass"
    )


def test_kohyas_folders(tmp_path: Path) -> None:
    picture_tree(tmp_path, "10_sks dog/1.png", "10_sks dog/2.png", "3_red_car/1.png")
    folder = read_folder(tmp_path)
    assert (folder.caption_source, folder.kohya) == ("folders", True)
    assert [example.caption for example in folder.examples] == ["sks dog", "sks dog", "red car"]
    assert [example.repeats for example in folder.examples] == [10, 10, 3]
    (tmp_path / "10_sks dog" / "2.txt").write_text("a sks dog on grass")
    folder = read_folder(tmp_path)
    assert [example.caption for example in folder.examples] == ["sks dog", "a sks dog on grass", "red car"]
    assert [example.repeats for example in folder.examples] == [10, 10, 3]
    assert folder.summary() == "3 pictures, captions: sidecar, kohya folders, with repeats 23 a pass"


def test_years_are_no_repeats_and_one_plain_folder_is_enough(tmp_path: Path) -> None:
    picture_tree(tmp_path / "years", "2024_holiday/1.png", "2025_holiday/1.png")
    assert {example.repeats for example in read_folder(tmp_path / "years").examples} == {1}
    picture_tree(tmp_path / "mixed", "10_dog/1.png", "others/1.png")
    assert {example.repeats for example in read_folder(tmp_path / "mixed").examples} == {1}


def test_a_folder_per_class(tmp_path: Path) -> None:
    picture_tree(tmp_path, "golden_retriever/1.png", "cat/2.png")
    assert said(read_folder(tmp_path)) == {
        "cat/2.png": ("cat",),
        "golden_retriever/1.png": ("golden retriever",),
    }
    picture_tree(tmp_path, "cat/a blue cat.png", "cat/a red cat.png", "cat/a small cat.png")
    assert read_folder(tmp_path).caption_source == "names", "more than half of them are words"
    assert set(read_folder(tmp_path, "folders").captions()) == {"golden retriever", "cat"}


def test_one_folder_is_no_class(tmp_path: Path) -> None:
    picture_tree(tmp_path, "images/1.png", "images/2.png")
    assert read_folder(tmp_path).caption_source == "none"


def test_one_caption_for_all(tmp_path: Path) -> None:
    picture_tree(tmp_path, "a dog.png", "b.png", metadata_DOT_jsonl='{"file_name": "b.png", "text": "x"}')
    folder = read_folder(tmp_path, caption="a photo of sks dog")
    assert folder.captions() == ["a photo of sks dog"] * 2
    assert folder.summary() == "2 pictures, captions: one for all"


PARTED = {"train__a.png": None, "train__b.png": None, "validation__c.png": None, "test__d.png": None}


def test_parts(tmp_path: Path) -> None:
    picture_tree(tmp_path, "train/a.png", "train/b.png", "validation/c.png", "test/d.png")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\na.png,one\nb.png,two\n")
    (tmp_path / "validation" / "c.txt").write_text("three")
    folder = read_folder(tmp_path)
    assert {e.file.name: (e.caption, e.part) for e in folder.examples} == {
        "a.png": ("one", "train"),
        "b.png": ("two", "train"),
        "c.png": ("three", "val"),
        "d.png": ("", "test"),
    }
    assert folder.summary().endswith("1 of them held out in val/, 1 of them held out in test/")
    pictures = load_pictures(folder, 8, tmp_path / "cache")
    assert [example.file.name for example in pictures.folder.examples] == ["a.png", "b.png", "c.png"]
    assert {row: example.part for row, example in enumerate(pictures.folder.examples)}[2] == "val"
    assert set(pictures.holding_out([2]).rows(0, 50, 0)) == {0, 1}


def test_parts_in_one_metadata_file(tmp_path: Path) -> None:
    picture_tree(tmp_path, "train/a.png", "val/b.png")
    rows = [{"file_name": "train/a.png", "text": "x"}, {"file_name": "val/b.png", "text": "y"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [example.part for example in read_folder(tmp_path).examples] == ["train", "val"]


def test_a_class_called_train_is_no_part(tmp_path: Path) -> None:
    picture_tree(tmp_path, "train/1.png", "plane/2.png")
    folder = read_folder(tmp_path)
    assert sorted(folder.captions()) == ["plane", "train"]
    assert {example.part for example in folder.examples} == {""}


def test_links_out_of_the_folder_are_refused_unless_told(tmp_path: Path) -> None:
    root = picture_tree(tmp_path / "data", "a.png")
    outside = picture_tree(tmp_path / "elsewhere", "x.png", "in/y.png")
    (root / "link.png").symlink_to(outside / "x.png")
    with pytest.raises(DatasetError, match=r"link\.png is a link out of the dataset folder") as caught:
        read_folder(root)
    assert "--follow-symlinks" in caught.value.hint
    (root / "sub").symlink_to(outside / "in")
    (root / "back").symlink_to(root)  # a circle
    found = read_folder(root, follow_symlinks=True)
    assert {example.file.name for example in found.examples} == {"a.png", "link.png", "y.png"}
    (root / "link.png").unlink()
    (root / "link.png").symlink_to(root / "a.png")
    assert len(read_folder(root).examples) == 2, "a link within the folder"
    (root / "a.txt").symlink_to("/etc/hostname")
    with pytest.raises(DatasetError, match=r"a\.txt is a link out of"):
        read_folder(root)
    (root / "a.txt").unlink()
    (root / "gone.png").symlink_to(root / "never.png")
    with pytest.raises(DatasetError, match=r"gone\.png is a link to a file that is not there"):
        read_folder(root)


@pytest.mark.parametrize(
    "name",
    [
        "../x.png", "/etc/x.png", "sub/../../x.png", "a\0.png", "n" * 300 + ".png", "\ud800.png",
        "link/x.png",
        "", ".", "..", "con.png", "a.png/", "~/x.png", "C:\\x.png", "\\\\host\\x.png",
    ],
)  # fmt: skip
def test_hostile_names_lead_nowhere(tmp_path: Path, name: str) -> None:
    root = picture_tree(tmp_path / "data", "a.png")
    picture_tree(tmp_path, "x.png")
    (root / "link").symlink_to(tmp_path)
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": name, "text": "x"}))
    if name == "a.png/":  # the same file
        return
    with pytest.raises(DatasetError, match="line 1"):
        read_folder(root, "metadata")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"file_name": "a.png", "text": "\xff"}', "cannot be read"),
        (b'{"file_name": "a.png", "text": "\\ud800"}', "not UTF-8"),
        (b'{"file_name": "a.png", "text": []}', "needs"),
        (b'{"file_name": "a.png", "text": ["x", 3]}', "needs"),
        (b'{"file_name": "a.png", "text": "x", "repeats": 1000}', "repeats"),
        (b'{"file_name": "a.png", "text": "x", "repeats": true}', "repeats"),
        (b"[" * 100_000, "not JSON"),
        (b'{"file_name": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_bad_lines(tmp_path: Path, line: bytes, told: str) -> None:
    picture_tree(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "a.png", "text": "fine"}\n' + line)
    with pytest.raises(DatasetError, match=f"line 2.*{told}"):
        read_folder(tmp_path)


def test_captions_that_are_not_utf8_or_too_long(tmp_path: Path) -> None:
    picture_tree(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DatasetError, match=r"a\.txt cannot be read"):
        read_folder(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"x" * (1 << 20) + b"y")
    with pytest.raises(DatasetError, match="larger than 1 MiB"):
        read_folder(tmp_path)


def test_faults_can_be_listed_instead(tmp_path: Path) -> None:
    picture_tree(tmp_path, "a.png")
    rows: list[Any] = [{"file_name": "a.png", "text": "x"}, {"file_name": "b.png", "text": "y"}, 3]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    faults: list[Any] = []
    assert len(read_folder(tmp_path, on_fault=faults.append).examples) == 1
    assert [fault.kind for fault in faults] == ["missing", "bad-line"]


def test_names_that_are_not_utf8_are_trained_on(tmp_path: Path) -> None:
    picture_tree(tmp_path, "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    pictures = load_pictures(read_folder(tmp_path), 8, tmp_path / "cache")
    assert len(pictures) == 1
    assert (tmp_path / "cache" / "hashes.json").is_file()
