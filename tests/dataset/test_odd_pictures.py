"""Damaged and odd picture files: told, never a crash; and what the pixels of the readable ones are."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from odd_files import MAKERS, chunk, deep_png, encoded, noise, odd_files, png
from PIL import Image

from t2i.config.data import DataCheckConfig
from t2i.datacheck import check
from t2i.datacheck.examining import examine
from t2i.dataset import BadPicture, BucketPlan, decode, load_pictures, read_folder
from t2i.dataset.decoding import measure

LOSSY = 24  # of 255


def seen(path: Path, **options: str) -> np.ndarray:
    """The pixels of a picture in its own size, (H, W, 3)."""
    return decode(path, *measure(path), **options).transpose(1, 2, 0)


def check_all(folder: Path, count: int) -> Counter[str]:
    """Every file is told of as it should be, and decodes or is refused; how often each kind was told."""
    told: Counter[str] = Counter()
    for number, odd in enumerate(odd_files(count)):
        path = folder / f"{number:04d}{odd.suffix}"
        path.write_bytes(odd.data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = examine(path, 8)
        kinds = {kind for kind, _ in found.found}
        assert kinds & odd.expected or not odd.expected, (number, odd.what, found)
        told.update(kinds)
        try:
            assert decode(path, 12, 8).shape == (3, 8, 12)
            assert found.size == measure(path), (number, odd.what)
        except BadPicture as error:
            assert found.size is None and error.kind in kinds, (number, odd.what, error)
            assert path.name in error.message
        path.unlink()
    return told


def check_folder(folder: Path, count: int, *plans: BucketPlan | None) -> None:
    """As datasets they are: `t2i data check` tells of each, and a run learns from all that can be decoded."""
    odd = odd_files(count)
    files = [folder / "imgs" / f"{number:04d}{one.suffix}" for number, one in enumerate(odd)]
    files[0].parent.mkdir()
    for file, one in zip(files, odd, strict=True):
        file.write_bytes(one.data)
    checked = check(DataCheckConfig(folder=str(files[0].parent), resolution=16))
    told: dict[str, set[str]] = {}
    for finding in checked.report.findings:
        told.setdefault(finding.place, set()).add(finding.kind)
    for file, one in zip(files, odd, strict=True):
        assert told.get(file.name, set()) & one.expected or not one.expected, (file.name, one.what)
    usable = [file for file in files if checked.examined[file].size is not None]
    assert len(files) > len(usable) > len(files) // 4
    for plan in plans:
        pictures = load_pictures(read_folder(files[0].parent), 8, folder / "cache", plan, max_bad=1.0)
        assert [one.file for one in pictures.folder.examples] == usable
        assert sorted(pictures.left_out) == sorted(set(files) - set(usable))
        assert all(path.name in why for path, why in pictures.left_out.items())
        seen = np.concatenate([pictures.rows(step, 1, 0) for step in range(len(usable))])
        assert sorted(seen) == list(range(len(usable))) and pictures.pixels(seen[:1]).shape[:2] == (1, 3)


def test_odd_files_are_told_and_nothing_breaks(tmp_path: Path) -> None:
    told = check_all(tmp_path, 3 * len(MAKERS))
    assert {
        "truncated", "format", "empty", "too-large", "cmyk", "16-bit", "alpha", "rotated", "palette",
        "profile", "tiny", "extreme-aspect", "extension", "animated",
    } <= set(told)  # fmt: skip


def test_odd_files_as_a_dataset(tmp_path: Path) -> None:
    check_folder(tmp_path, len(MAKERS), None)


@pytest.mark.slow
def test_a_thousand_odd_files(tmp_path: Path) -> None:
    assert sum(check_all(tmp_path, 1000).values()) > 600
    check_folder(tmp_path, 1000, None, BucketPlan(16, 8))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_all_orientations(tmp_path: Path, form: str, turn: int) -> None:
    # EXIF 2.32, 4.6.4: which edges of the picture row 0 and column 0 are.
    rows = {1: "top", 2: "top", 3: "bottom", 4: "bottom", 5: "left", 6: "right", 7: "right", 8: "left"}
    columns = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:8, :, 0] = 255  # row 0 is red
    stored[:, :8, 1] = 255  # column 0 is green
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / "x"
    options = {} if form == "PNG" else {"quality": 100}
    if form == "WEBP":
        options["lossless"] = True
    path.write_bytes(encoded(Image.fromarray(stored), form, exif=exif, **options))
    upright = seen(path).astype(int)
    assert upright.shape[:2] == ((32, 48) if turn < 5 else (48, 32))
    edges = {"top": upright[2, 12:20], "bottom": upright[-3, 12:20]}
    edges |= {"left": upright[12:20, 2], "right": upright[12:20, -3]}
    for channel, where in ((0, rows[turn]), (1, columns[turn])):
        for edge, pixels in edges.items():
            value = pixels[:, channel].mean()
            assert (value > 255 - LOSSY) if edge == where else (value < LOSSY), (turn, edge, channel)


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 3)])
def test_sixteen_bits_are_scaled_to_one_level(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 2**16, shape, dtype=np.uint16)
    (tmp_path / "x.png").write_bytes(deep_png(values))
    exact = values / 257.0
    exact = exact[..., None].repeat(3, -1) if exact.ndim == 2 else exact
    assert np.abs(seen(tmp_path / "x.png") - exact).max() <= 1


def test_a_clear_gray_of_sixteen_bits(tmp_path: Path) -> None:
    values = np.full((8, 8), 1000, np.uint16)
    values[:, 4:] = 40_000
    (tmp_path / "x.png").write_bytes(deep_png(values, chunk(b"tRNS", (1000).to_bytes(2, "big"))))
    assert seen(tmp_path / "x.png", background="#ff0000")[0, 0].tolist() == [255, 0, 0]
    assert abs(int(seen(tmp_path / "x.png")[0, 7, 0]) - 40_000 / 257) <= 1


def test_alpha_lies_on_the_stated_colour(tmp_path: Path) -> None:
    half = np.zeros((8, 8, 4), np.uint8)
    half[..., 2], half[..., 3] = 200, 128
    Image.fromarray(half).save(tmp_path / "x.png")
    for colour, base in (("white", 255), ("black", 0), ("#404040", 64)):
        expected = np.array([0, 0, 200]) * (128 / 255) + base * (127 / 255)
        assert np.abs(seen(tmp_path / "x.png", background=colour)[3, 3] - expected).max() <= 1
    indexed = Image.new("P", (8, 8), 1)
    indexed.putpalette([9, 9, 9, 250, 10, 20])
    indexed.save(tmp_path / "p.png", transparency=0)
    assert seen(tmp_path / "p.png")[0, 0].tolist() == [250, 10, 20]
    indexed.save(tmp_path / "p.png", transparency=1)
    assert seen(tmp_path / "p.png")[0, 0].tolist() == [255, 255, 255]


def test_cmyk_and_the_first_frame(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "x.jpg", quality=100)
    assert np.abs(seen(tmp_path / "x.jpg")[8, 8].astype(int) - [0, 255, 255]).max() <= 3
    for name in ("x.png", "x.webp"):
        frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert seen(tmp_path / name)[8, 8].tolist() == [255, 0, 0]


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "x.png", "JPEG")
    assert seen(tmp_path / "x.png")[4, 4, 0] > 250
    Image.new("RGB", (8, 8), "red").save(tmp_path / "y.png", "GIF")
    with pytest.raises(BadPicture, match="not a PNG, JPEG or WebP") as caught:
        decode(tmp_path / "y.png", 8)
    assert caught.value.kind == "format"


@pytest.mark.parametrize("side", [8001, 20_000, 2**31 - 1])
def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path, side: int) -> None:
    """The pixels are not there, so whoever tried to decode them would complain of something else."""
    (tmp_path / "x.png").write_bytes(png(side, side, 8, 2, b""))
    with warnings.catch_warnings(), pytest.raises(BadPicture, match="over 64 megapixels") as caught:
        warnings.simplefilter("error")
        decode(tmp_path / "x.png", 8)
    assert caught.value.kind == "too-large"


def test_a_file_without_its_end_is_told_even_if_it_decodes(tmp_path: Path) -> None:
    picture = noise(np.random.default_rng(0))
    for form, cut in (("PNG", 12), ("JPEG", 2), ("WEBP", 1)):
        data = encoded(picture, form)
        path = tmp_path / f"x.{form.lower()}"
        path.write_bytes(data[:-cut])
        assert "truncated" in {kind for kind, _ in examine(path, 8).found}, form
        path.write_bytes(data + b"trailer")
        assert "truncated" not in {kind for kind, _ in examine(path, 8).found}, form


def test_a_wrong_checksum_is_told_where_the_decoder_does_not_look(tmp_path: Path) -> None:
    data = bytearray(encoded(noise(np.random.default_rng(0)), "PNG", dpi=(72, 72)))
    for name, told in ((b"IDAT", "damaged"), (b"IHDR", "unreadable")):
        changed, place = bytearray(data), data.index(name)
        changed[place + 4 + int.from_bytes(data[place - 4 : place], "big")] ^= 1  # of the checksum itself
        (tmp_path / "x.png").write_bytes(changed)
        assert [kind for kind, _ in examine(tmp_path / "x.png", 8).found] == [told]
