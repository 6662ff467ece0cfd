"""Datasets that are no folder: webdataset archives, parquet files, sets of the Hub, all unpacked once."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from command_line import Run
from PIL import Image

from t2i.config.data import DataCheckConfig
from t2i.config.train import RunOptions
from t2i.dataset import Columns, ImageFolder, find_packed, read_unpacked, unpack
from t2i.dataset import hub as hub_module
from t2i.errors import DatasetError, T2IError, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("T2I_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def picture(number: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (number * 20, 30, 60)).save(buffer, form)
    return buffer.getvalue()


def archive(path: Path, members: Sequence[tuple[str, bytes | tarfile.TarInfo]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                file.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def read(name: Path | str, **columns: Any) -> ImageFolder:
    packed = find_packed(str(name), Columns(**columns))
    assert packed is not None
    list(unpack(packed))
    return read_unpacked(str(name), packed)


def said(folder: ImageFolder) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.file.relative_to(folder.root).as_posix(), one.captions) for one in folder.examples]


def test_an_archive(tmp_path: Path, cache: Path) -> None:
    path = archive(tmp_path / "x.tar", [
        ("a/01.jpg", picture(1, "JPEG")), ("a/01.txt", b"a red car\na car\n"),
        ("a/02.json", b'{"caption": "a house", "w": 3}'), ("a/02.PNG", picture(2)),
        ("a/03.webp", picture(3, "WEBP")), ("a/03.txt", b""), ("a/03.json", b'{"caption": "not this"}'),
        ("README.md", b"x"), ("a/04.txt", b"no picture"), ("a/05.png", picture(5, "JPEG")),
    ])  # fmt: skip
    folder = read(path)
    assert said(folder) == [
        ("00000000.jpg", ("a red car", "a car")),
        ("00000001.png", ("a house",)),
        ("00000002.webp", ("",)),
        ("00000003.jpg", ("",)),
    ]
    assert folder.examples[1].file.read_bytes() == picture(2), "bytes stay as they are"
    rows = [json.loads(line) for line in (folder.root / "metadata.jsonl").read_text().splitlines()]
    assert rows[1]["from"] == "x.tar: a/02"
    assert folder.root.parent == cache and not list(cache.glob(".tmp-*"))


def test_it_is_unpacked_once_by_content_and_columns(tmp_path: Path, cache: Path) -> None:
    members = [("1.jpg", picture(1)), ("1.txt", b"one"), ("1.json", b'{"text": "two"}')]
    path = archive(tmp_path / "x.tar", members)
    first = read(path)
    marker = first.root / "marker"
    marker.touch()
    path.rename(tmp_path / "moved.tar")
    assert read(tmp_path / "moved.tar").root == first.root and marker.exists(), "not unpacked again"
    other = read(tmp_path / "moved.tar", caption="text")
    assert other.root != first.root and other.captions() == ["two"]
    archive(tmp_path / "moved.tar", [("1.jpg", picture(2)), *members[1:]])
    assert read(tmp_path / "moved.tar").root not in (first.root, other.root)


def hostile() -> Iterator[tuple[str, bytes | tarfile.TarInfo]]:
    yield "../../outside.png", picture(1)
    yield "/etc/outside.png", picture(2)
    for kind, name in ((tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "hard"), (tarfile.FIFOTYPE, "pipe")):
        info = tarfile.TarInfo(f"{name}.png")
        info.type, info.linkname = kind, "/etc/hostname"
        yield info.name, info
    yield "a\n\u202e.png", picture(3)
    yield "x" * 300 + ".png", picture(4)
    yield "evil.pyd", b"cos\nsystem\n(S'touch owned'\ntR."
    yield "evil.pickle", b"cos\nsystem\n(S'touch owned'\ntR."


def test_names_in_an_archive_lead_nowhere(tmp_path: Path, cache: Path) -> None:
    path = archive(tmp_path / "deep" / "er" / "x.tar", list(hostile()))
    before = set(tmp_path.rglob("*"))
    folder = read(path)
    assert [name for name, _ in said(folder)] == [f"{number:08d}.png" for number in range(4)]
    new = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(cache.parent) for path in new)
    assert {path.name for path in folder.root.iterdir()} == {
        *(name for name, _ in said(folder)), "metadata.jsonl", "source.json",
    }  # fmt: skip


def test_damage_is_told_and_nothing_is_left(tmp_path: Path, cache: Path) -> None:
    path = archive(tmp_path / "x.tar", [(f"{number}.png", picture(number)) for number in range(40)])
    whole = path.read_bytes()
    for kept in (0, 100, 512 * 9, 512 * 9 + 7, len(whole) - 10_240):
        path.write_bytes(whole[:kept])
        with pytest.raises(DatasetError, match=r"x\.tar is damaged"):
            read(path)
    for place in (0, 1024, 1024 * 39):  # headers
        path.write_bytes(whole[:place] + b"\1" * 512 + whole[place + 512 :])
        with pytest.raises(DatasetError, match=r"x\.tar is damaged"):
            read(path)
    with pytest.raises(DatasetError, match=r"x\.tar has no column image or"):
        read(archive(path, [("1.txt", b"no picture")]))
    with pytest.raises(DatasetError, match=r"1\.png has [\d,]+ bytes, more than") as caught:
        info = tarfile.TarInfo("1.png")
        info.size = 2**40
        path.write_bytes(info.tobuf() + bytes(1024))
        read(path)
    assert "smaller" in caught.value.hint
    assert [entry.name for entry in cache.iterdir() if entry.is_dir()] == []


def test_pictures_that_are_none_are_told_of_as_in_a_folder(tmp_path: Path, run: Run) -> None:
    path = archive(tmp_path / "x.tar", [
        ("1.png", picture(1)), ("1.txt", b"one"), ("2.jpg", b""), ("2.txt", b"two"),
        ("3.webp", b"<html>"), ("3.txt", b"three"), ("4.png", picture(4)), ("4.txt", b"caf\xe9"),
    ])  # fmt: skip
    result = run("data", "check", str(path), "--json", "--resolution", "16")
    found = {(one["kind"], one["place"]) for one in json.loads(result.out)["findings"]}
    expected = {
        ("empty", "00000001.jpg"),
        ("format", "00000002.webp"),
        ("not-utf8", "metadata.jsonl, line 4"),
    }
    assert result.code == 1 and expected <= found
    assert "x.tar is unpacked in" in result.err


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.tar", [("1.png", picture(1)), ("1.json", b'{"alt": "x", "w": 1}')])
    with pytest.raises(DatasetError, match="has no column text or caption") as caught:
        read(path)
    assert "alt" in caught.value.hint and "--caption-column" in caught.value.hint
    assert read(path, caption="alt").captions() == ["x"]
    assert read(path, captioned=False).captions() == [""]
    with pytest.raises(DatasetError, match="'1' is no caption"):
        read(path, caption="w")
    with pytest.raises(DatasetError, match=r"--image-column jpg: x\.tar has no such column"):
        read(path, image="jpg")
    both = [("1.cond.png", picture(1)), ("1.png", picture(2))]
    assert read(archive(path, both), image="cond.png").examples[0].file.read_bytes() == picture(1)


def test_a_folder_of_archives_keeps_its_parts(tmp_path: Path) -> None:
    for number, name in enumerate(("data/train-00000.tar", "data/train-00001.tar", "validation/0.tar")):
        archive(tmp_path / "set" / name, [("1.png", picture(number)), ("1.txt", str(number).encode())])
    archive(tmp_path / "set" / "test-0.tar", [("1.png", picture(9)), ("1.txt", b"never read")])
    folder = read(tmp_path / "set")
    assert said(folder) == [
        ("train/00000000.png", ("0",)), ("train/00000001.png", ("1",)), ("val/00000002.png", ("2",)),
    ]  # fmt: skip
    assert [one.part for one in folder.examples] == ["train", "train", "val"]
    (tmp_path / "set" / "x.png").write_bytes(picture(0))
    assert find_packed(str(tmp_path / "set")) is None, "a folder of pictures is read as one"


def test_what_is_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imgs").mkdir()
    (tmp_path / "x.zip").touch()
    for name in ("imgs", "imgs/cats", "./a/b", "gone.tar", "a/gone.parquet", "a", "a/b/c"):
        assert find_packed(name) is None, name
    with pytest.raises(DatasetError, match="neither a folder nor"):
        find_packed("x.zip")
    with pytest.raises(DatasetError, match="owner/name:test is not on this machine, and the network"):
        find_packed("owner/name:test")
    with pytest.raises(DatasetError, match="imgs/cats@main is not on this machine"):
        find_packed("imgs/cats@main")
    with pytest.raises(UsageError, match="--dataset-config small: imgs is not a dataset of the Hub"):
        find_packed("imgs", config="small")
    archive(tmp_path / "x.tar", [("1.png", picture(1))])
    with pytest.raises(UsageError, match=r"--captions sidecar: the captions of x\.tar are in a column"):
        find_packed("x.tar", captions="sidecar")


def test_metadata_may_have_other_columns(tmp_path: Path, run: Run) -> None:
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "1.png").write_bytes(picture(1))
    (tmp_path / "imgs" / "metadata.csv").write_text("picture,alt\n1.png,one\n")
    names = {"image_column": "picture", "caption_column": "alt"}
    assert read_unpacked(str(tmp_path / "imgs"), None, **names).captions() == ["one"]
    with pytest.raises(DatasetError, match='needs "file_name" and "alt"'):
        read_unpacked(str(tmp_path / "imgs"), None, caption_column="alt")
    (tmp_path / "imgs" / "metadata.csv").unlink()
    result = run("data", "check", "imgs", "--caption-column", "alt")
    assert result.code == 2 and "no such file is read in imgs" in result.err


def test_both_commands_have_the_same_options() -> None:
    for name in ("image_column", "caption_column", "dataset_config", "offline"):
        assert DataCheckConfig.options()[name] == RunOptions.options()[name]


@pytest.mark.parametrize("name", ["x.parquet", "owner/name"])
def test_a_missing_package_is_one_line(
    name: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for package in ("pyarrow", "pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    result = run("data", "check", name)
    assert result.code == 2
    package = "pyarrow" if name.endswith("parquet") else "datasets"
    assert result.err.splitlines()[-2:] == [
        f"error: this dataset needs the package {package}, which is not installed",
        'hint: pip install "t2i[datasets]"',
    ]


class Stream(list[dict[str, Any]]):
    """What `datasets.load_dataset` gives, as far as it is asked."""

    def __init__(self, features: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        super().__init__(rows)
        self.features = features

    def select_columns(self, names: list[str]) -> Stream:
        return Stream(self.features, [{name: row[name] for name in names} for row in self])

    def cast_column(self, name: str, feature: Any) -> Stream:
        assert not feature.decode
        return self


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`datasets` without the network; `rows` are those of the set, `asked` how it was loaded."""
    library: Any = ModuleType("datasets")
    library.Image = type("Image", (), {"__init__": lambda self, decode=True: setattr(self, "decode", decode)})
    library.utils = SimpleNamespace(logging=SimpleNamespace(set_verbosity_error=lambda: None))
    library.disable_progress_bars = lambda: None
    library.features = {"photo": library.Image(), "label": SimpleNamespace(names=["a_cat", "dog"]), "n": None}

    def load_dataset(*positional: str, **named: Any) -> Stream:
        library.asked = (*positional, named)
        return Stream(library.features, library.rows)

    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr("t2i.dataset.packed.find_commit", lambda asked: "c0ffee")
    return library


def test_a_set_of_the_hub(stand_in: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.rows = [
        {"photo": {"bytes": picture(1), "path": "1.png"}, "label": 0, "n": 1},
        {"photo": None, "label": -1, "n": 2},
    ]
    folder = read("owner/name:part", caption="label")
    assert said(folder) == [("00000000.png", ("a cat",)), ("00000001.png", ("",))]
    assert stand_in.asked == (
        "owner/name", {"name": None, "split": "part", "revision": "c0ffee", "streaming": True},
    )  # fmt: skip
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert read("owner/name:part", caption="label").root == folder.root, "the copy does without the network"
    with pytest.raises(DatasetError, match="is not on this machine"):
        find_packed("owner/name:part")


@pytest.mark.parametrize(
    "path",
    [
        "/etc/hostname", "hf://datasets/owner/other@c0ffee/1.png", "hf://datasets/owner/name@main/1.png",
        "file:///etc/hostname", "hf://datasets/owner/name@c0ffee/../../x@y/1.png", "https://x.y/1.png",
        "file:///etc/x::hf://datasets/owner/name@c0ffee/x.zip", "1.png",
    ],
)  # fmt: skip
def test_a_row_opens_no_file_but_of_its_dataset(path: str, stand_in: Any) -> None:
    stand_in.rows = [{"photo": {"bytes": None, "path": path}, "label": 0, "n": 1}]
    with pytest.raises(DatasetError, match="which is not in the dataset"):
        read("owner/name", caption="label")


def test_a_file_of_the_dataset_is_fetched(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    paths = ["hf://datasets/owner/name@c0ffee/a/1.png", "zip://1.png::hf://datasets/owner/name@c0ffee/x.zip"]
    stand_in.rows = [{"photo": {"bytes": None, "path": path}, "label": 1, "n": 1} for path in paths]
    fetched = []
    monkeypatch.setattr(fsspec, "open", lambda path, mode: fetched.append(path) or io.BytesIO(picture(7)))
    folder = read("owner/name", caption="label")
    assert fetched == paths and folder.examples[1].file.read_bytes() == picture(7)


def test_what_the_library_says_is_one_line(stand_in: Any) -> None:
    stand_in.rows = []
    with pytest.raises(DatasetError, match="owner/name has no column text or caption") as caught:
        read("owner/name")
    assert "it has photo, label, n" in caught.value.hint

    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("Unknown split \"dev\".\n Should be one of ['train'].")

    stand_in.load_dataset = broken
    with pytest.raises(
        T2IError, match=r'cannot be read from the Hub: Unknown split "dev"\. Should be one of'
    ):
        read("owner/name:dev")


def test_names_of_the_hub() -> None:
    found = hub_module.NAME.fullmatch("own-er/na.me@refs/pr/1:val_2")
    assert found and found.groupdict() == {"repo": "own-er/na.me", "revision": "refs/pr/1", "split": "val_2"}
    for wrong in ("a", "a/b/c", "../a", "a/..", "/a/b", "a/b:", "a/b@", "-a/b", "a/b c"):
        assert hub_module.NAME.fullmatch(wrong) is None, wrong


def test_parquet(tmp_path: Path) -> None:
    """With the library itself, where it is installed."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    pictures = [{"bytes": picture(n), "path": f"{n}.png"} for n in range(40)]
    captions = [["one", "two"], None, *[[str(n)] for n in range(2, 40)]]
    (tmp_path / "set").mkdir()
    table = arrow.table({"image": pictures, "caption": captions, "n": list(range(40))})
    parquet.write_table(table, tmp_path / "set" / "train-0.parquet", row_group_size=7)
    folder = read(tmp_path / "set")
    assert [one.captions for one in folder.examples[:3]] == [("one", "two"), ("",), ("2",)]
    assert [one.file.read_bytes() for one in folder.examples] == [picture(n) for n in range(40)]
    plain = arrow.table({"png": [picture(1), None], "text": ["a", "b"]})
    parquet.write_table(plain, tmp_path / "plain.parquet")
    assert [one.file.stat().st_size > 0 for one in read(tmp_path / "plain.parquet").examples] == [True, False]
    parquet.write_table(arrow.table({"image": ["/etc/hostname"], "text": ["a"]}), tmp_path / "names.parquet")
    with pytest.raises(DatasetError, match=r"names\.parquet, row 0: image holds no bytes of a picture"):
        read(tmp_path / "names.parquet")
    data = (tmp_path / "plain.parquet").read_bytes()
    for broken in (data[:-20], data[:50], b"", b"PAR1" * 9, bytes(4) + data[4:40] + bytes(99) + data[139:]):
        (tmp_path / "broken.parquet").write_bytes(broken)
        with pytest.raises(DatasetError, match=r"broken\.parquet"):
            read(tmp_path / "broken.parquet")


def test_a_set_of_the_hub_by_the_library_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder stands for the Hub, which `datasets` reads alike."""
    library = pytest.importorskip("datasets")
    root = tmp_path / "hub"
    archive(root / "train-0.tar", [("1.jpg", picture(1, "JPEG")), ("1.txt", b"one")])
    real = library.load_dataset
    monkeypatch.setattr(
        library, "load_dataset", lambda repo, **named: real(str(root), **{**named, "revision": None})
    )
    monkeypatch.setattr("t2i.dataset.packed.find_commit", lambda asked: "c0ffee")
    monkeypatch.setattr("t2i.dataset.packed.is_offline", lambda: False)
    folder = read("owner/name")
    assert said(folder) == [("00000000.jpg", ("one",))]
    assert folder.examples[0].file.read_bytes() == picture(1, "JPEG")
    with pytest.raises(DatasetError, match=r"cannot be read from the Hub: .*split"):
        read("owner/name:dev")
