"""Folders of captioned pictures: what is understood, what is refused, what the pixels are."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i.dataset import (
    batch_rows,
    cached_table,
    caption_from_name,
    dataset_key,
    decode,
    load_pixels,
    read_folder,
    to_pixels,
)
from t2i.errors import DatasetError, StorageError


def picture(path: Path, colour: object = "red", mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> Path:
    Image.new(mode, size, colour).save(path)  # type: ignore[arg-type]
    return path


def pixels_of(root: Path, cache: Path) -> np.ndarray:
    folder = read_folder(root)
    return load_pixels(folder, 8, cache, dataset_key(folder, 8, cache))


def test_metadata_comes_first(tmp_path: Path) -> None:
    picture(tmp_path / "a dog.png")
    (tmp_path / "a dog.txt").write_text("from the sidecar")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a dog.png", "text": "from the list"}\n')
    folder = read_folder(tmp_path)
    assert (folder.caption_source, folder.captions()) == ("metadata", ["from the list"])
    assert read_folder(tmp_path, "sidecar").captions() == ["from the sidecar"]
    assert read_folder(tmp_path, "names").captions() == ["a dog"]
    assert read_folder(tmp_path, "none").captions() == [""]


def test_csv_and_sub_folders(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture(tmp_path / "in" / "x.png")
    (tmp_path / "metadata.csv").write_text('file_name,text\nin/x.png,"a, b"\n')
    assert read_folder(tmp_path).captions() == ["a, b"]
    (tmp_path / "metadata.csv").write_text('file_name,text\nin/x.png,"a, b"\n', encoding="utf-8-sig")
    assert read_folder(tmp_path).captions() == ["a, b"], "as spreadsheets write it"


@pytest.mark.parametrize(
    ("name", "caption"),
    [("red_car-02.png", "red car"), ("IMG_0042.jpg", ""), ("0001.png", ""), ("A Dog.webp", "a dog")],
)
def test_names_as_captions(name: str, caption: str) -> None:
    assert caption_from_name(Path(name)) == caption


def test_camera_names_are_no_captions(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / f"IMG_{number}.png")
    assert read_folder(tmp_path).caption_source == "none"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"file_name": "gone.png", "text": "x"}, "gone.png is missing"),
        ({"file_name": "../out.png", "text": "x"}, "outside the dataset"),
        ({"file_name": "/etc/hosts.png", "text": "x"}, "outside the dataset"),
        ({"file_name": "here.png"}, "needs"),
        ({"file_name": "here.gif", "text": "x"}, "not one of"),
        (["here.png", "x"], "not a JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: object, told: str) -> None:
    root = tmp_path / "data"
    root.mkdir()
    picture(root / "here.png")
    picture(tmp_path / "out.png")
    (root / "metadata.jsonl").write_text('{"file_name": "here.png", "text": "fine"}\n' + json.dumps(row))
    with pytest.raises(DatasetError, match=f"line 2.*{told}"):
        read_folder(root)


def test_broken_json_and_no_pictures_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no pictures"):
        read_folder(tmp_path)
    with pytest.raises(DatasetError, match="not a folder"):
        read_folder(tmp_path / "missing")
    (tmp_path / "metadata.jsonl").write_text("{not json\n")
    with pytest.raises(DatasetError, match="line 1: not JSON"):
        read_folder(tmp_path)


def test_a_torn_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "torn.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DatasetError, match=r"torn\.jpg"):
        decode(path, 16)


def test_another_format_under_a_png_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("RGB", (8, 8)).save(path, format="BMP")
    with pytest.raises(DatasetError):
        decode(path, 8)


def test_sixteen_bit_is_scaled_and_alpha_lies_on_white(tmp_path: Path) -> None:
    sixteen = tmp_path / "i16.png"
    Image.fromarray(np.full((8, 8), 32768, dtype=np.uint16)).save(sixteen)
    assert abs(int(decode(sixteen, 8)[0, 0, 0]) - 128) <= 1
    clear = picture(tmp_path / "clear.png", (255, 0, 0, 0), "RGBA")
    assert decode(clear, 8).min() == 255


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    upright = Image.new("RGB", (16, 16), "black")
    upright.paste("white", (0, 0, 16, 8))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90° clockwise to see it upright"
    path = tmp_path / "turned.png"
    upright.rotate(90).save(path, exif=exif)
    assert decode(path, 16)[0, 2, 8] > 200 > 50 > decode(path, 16)[0, 13, 8]


def test_pixels_are_cached_and_follow_the_files(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", "red")
    picture(tmp_path / "b.png", "blue")
    first = pixels_of(tmp_path, tmp_path / "cache")
    assert first.shape == (2, 3, 8, 8) and first[1, 2].min() == 255
    picture(tmp_path / "b.png", "green", size=(20, 20))
    second = pixels_of(tmp_path, tmp_path / "cache")
    assert second[1, 2].max() == 0
    scaled = to_pixels(second, [0])
    assert scaled.min() == -1 and scaled.max() == 1


def test_the_key_is_of_the_bytes_and_not_of_times_and_places(tmp_path: Path) -> None:
    root, cache = tmp_path / "data", tmp_path / "cache"
    root.mkdir()
    picture(root / "a.png", "red")
    picture(root / "b.png", "blue")
    key = dataset_key(read_folder(root), 8, cache)
    assert dataset_key(read_folder(root), 16, cache) != key

    os.utime(root / "a.png")
    assert dataset_key(read_folder(root), 8, cache) == key, "touched"
    copy = Path(shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile))
    assert dataset_key(read_folder(copy), 8, tmp_path / "elsewhere") == key, "copied to another machine"

    before = (root / "a.png").stat()
    data = bytearray((root / "a.png").read_bytes())
    data[-20] ^= 1
    (root / "a.png").write_bytes(data)
    os.utime(root / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert dataset_key(read_folder(root), 8, cache) != key, "another content of the same size and time"

    (copy / "a.png").rename(copy / "c.png")
    assert dataset_key(read_folder(copy), 8, cache) != key, "in another order"


def test_pictures_are_read_once_for_their_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png", "red")
    key = dataset_key(read_folder(tmp_path), 8, tmp_path / "cache")
    monkeypatch.setattr("t2i.hashes.sha256_file", lambda path: pytest.fail("read again"))
    assert dataset_key(read_folder(tmp_path), 8, tmp_path / "cache") == key


def test_a_table_is_what_numpy_reads_and_is_made_once(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float16).reshape(4, 3, 2)
    path = tmp_path / "table.npy"
    table = cached_table(path, values.shape, np.float16, lambda: iter([values[0], values[1:]]))
    assert np.array_equal(table, values) and table.dtype == np.float16
    np.save(tmp_path / "same.npy", values)
    assert path.read_bytes() == (tmp_path / "same.npy").read_bytes()
    again = cached_table(path, values.shape, np.float16, lambda: pytest.fail("computed twice"))
    assert np.array_equal(again, values)


def test_a_full_disk_is_met_before_the_first_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        assert size == 128 + 3 * 8 * 8  # the header of a .npy file, and one picture
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "in").mkdir()
    picture(tmp_path / "in" / "a.png")
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr("t2i.dataset.tables.ProcessPoolExecutor", lambda: pytest.fail("decoding had begun"))
    with pytest.raises(StorageError, match=r"pixels-\w+\.npy needs 320 bytes, [\d,]+ are free"):
        pixels_of(tmp_path / "in", tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["hashes.json"]


def test_each_pass_shows_every_picture_once_in_a_new_order() -> None:
    seen = np.concatenate([batch_rows(10, 4, step, seed=3) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert list(seen[:10]) != list(seen[10:])
    assert list(batch_rows(10, 4, 3, seed=3)) == list(seen[12:16])
    assert list(batch_rows(10, 4, 3, seed=4)) != list(seen[12:16])
