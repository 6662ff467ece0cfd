"""Files of pictures: pixels and recipe survive, nothing is half written, nothing leaks."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from t2i import images, recipes
from t2i.config import GenerateConfig
from t2i.errors import StorageError, UsageError

SUFFIXES = (".png", ".jpg", ".webp")
PROMPT = 'a corgi, "riding" a <b>\ncafé 東京 \\ & <!ENTITY>'


def make_recipe(prompt: str = PROMPT, **config: Any) -> recipes.Recipe:
    values = {
        "steps": 25,
        "guidance_scale": 4.0,
        "scheduler": "dpm++2m-karras",
        "width": 24,
        "height": 16,
        **config,
    }
    return recipes.make_recipe(
        GenerateConfig(prompts=(prompt,), negative_prompt="blurry", seed=7, **values),
        recipes.Placed(index=3, seed=7, batch_shape=(4, 4, 2, 3), batch_position=1),
        {"id": "pocket", "family": "pocket", "files": {"unet/config.json": "ab" * 32}},
        {"device": "cpu", "threads": 2, "versions": {"torch": "2.13"}},
        "cd" * 32,
    )


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_recipe_and_parameters_come_back(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    recipe = make_recipe()
    images.save(path, pixels, recipe)
    assert images.read_recipe(path) == recipe
    parameters = images.read_metadata(path).parameters
    assert parameters is not None and parameters == recipes.to_parameters(recipe)
    if suffix == ".png":
        assert (images.read_pixels(path) == pixels).all()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_picture_says_that_a_model_made_it(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    for metadata, expected in (("full", True), ("minimal", True), ("none", False)):
        path = tmp_path / f"{metadata}{suffix}"
        images.save(path, pixels, make_recipe(), metadata)
        data = path.read_bytes()
        assert (recipes.DIGITAL_SOURCE_TYPE.encode() in data) is expected
        assert (b"corgi" in data or b"c\0o\0r\0g\0i" in data) is (metadata == "full")
        if metadata != "full":
            with pytest.raises(StorageError, match="no recipe"):
                images.read_recipe(path)


def test_equal_pictures_are_equal_bytes(pixels: np.ndarray) -> None:
    for format in ("PNG", "JPEG", "WEBP"):
        first = images.encode(pixels, format, make_recipe(), "full")
        assert first == images.encode(pixels, format, make_recipe(), "full")


def test_a_file_is_kept_unless_told(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(b"mine")
    with pytest.raises(StorageError, match="already exists"):
        images.save(path, pixels, None)
    assert path.read_bytes() == b"mine"
    images.save(path, pixels, None, overwrite=True)
    assert (images.read_pixels(path) == pixels).all()


def test_a_file_made_meanwhile_is_kept(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.png"
    monkeypatch.setattr(images, "check_free", lambda *_: path.write_bytes(b"theirs"))
    with pytest.raises(StorageError, match="already exists"):
        images.save(path, pixels, None)
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_refusals_are_one_line(tmp_path: Path, pixels: np.ndarray) -> None:
    with pytest.raises(UsageError, match="gif"):
        images.save(tmp_path / "p.gif", pixels, None)
    with pytest.raises(UsageError, match="--metadata"):
        images.encode(pixels, "PNG", None, "some")
    with pytest.raises(StorageError, match="does not exist"):
        images.read_recipe(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(StorageError, match="not a PNG"):
        images.read_recipe(tmp_path / "text.png")
    with pytest.raises(StorageError, match="is a folder"):
        images.save(tmp_path, pixels, None)
    with pytest.raises(StorageError, match="recipe has"):
        images.encode(pixels, "JPEG", make_recipe("x" * 70_000), "full")


def test_other_formats_are_refused(tmp_path: Path) -> None:
    for format in ("GIF", "BMP", "TIFF", "PPM"):
        path = tmp_path / "p.png"
        Image.new("RGB", (4, 4)).save(path, format)
        with pytest.raises(StorageError, match="not a PNG"):
            images.read_metadata(path)


def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (12_000).to_bytes(4, "big") + (12_000).to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    )
    with pytest.raises(StorageError, match=r"million|cannot be read"):
        images.read_pixels(path)


def test_cut_off_files_are_never_a_traceback(tmp_path: Path, pixels: np.ndarray) -> None:
    for format in ("PNG", "JPEG", "WEBP"):
        data = images.encode(pixels, format, make_recipe(), "full")
        path = tmp_path / "cut"
        for length in range(0, len(data) - 1, 97):
            path.write_bytes(data[:length])
            for read in (images.read_metadata, images.read_pixels):
                try:
                    read(path)
                except StorageError:
                    pass


def test_damaged_recipes_are_refused(tmp_path: Path) -> None:
    texts = ("{", "[]", "1", '{"recipe": 1}', json.dumps({**make_recipe(), "recipe": 99}), "[" * 100_000)
    for text in texts:
        chunks = Image.new("RGB", (4, 4))
        buffer = io.BytesIO()
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        info.add_text("t2i", text)
        chunks.save(buffer, "PNG", pnginfo=info)
        path = tmp_path / "p.png"
        path.write_bytes(buffer.getvalue())
        with pytest.raises(StorageError, match="recipe"):
            images.read_recipe(path)


def test_grid_and_psnr() -> None:
    black, white = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 255, np.uint8)
    sheet = images.grid([black, white, black])
    assert sheet.shape == (8, 12, 3)
    assert sheet[0, 0, 0] == 0 and sheet[0, 6, 0] == 255 and sheet[7, 11, 0] == 255
    assert images.psnr(black, black) == float("inf")
    assert images.psnr(black, white) == pytest.approx(0)
    assert images.psnr(black, black + 1) == pytest.approx(48.13, abs=0.01)


def test_reading_a_recipe_needs_neither_numpy_nor_torch(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "p.webp"
    images.save(path, pixels, make_recipe())
    code = (
        "import sys, pathlib; from t2i import images; images.read_recipe(pathlib.Path(sys.argv[1]));"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 0
