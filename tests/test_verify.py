"""`t2i verify`: exact on an untouched picture, and the name of whatever was touched."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from t2i import cli, images, recipes
from t2i.errors import ModelError, StorageError, UsageError
from t2i.verification import compare_files, verify

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on cores that others use wait for each other


@pytest.fixture(scope="module")
def drawn(tiny_pocket: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures made by another process: three in a batch, and the first again as .webp."""
    folder = tmp_path_factory.mktemp("drawn")
    common = ["generate", "a dog", "-m", str(tiny_pocket), "--seed", "1", "--steps", "3"]
    lines = [[*common, "-N", "3", "-o", "{seed}.png"], [*common, "-o", "one.webp", "--scheduler", "euler-a"],
             [*common, "-o", "one.jpg"]]  # fmt: skip
    code = "import json, sys; from t2i.cli import run; sys.exit(any(map(run, json.loads(sys.argv[1]))))"
    subprocess.run(
        [sys.executable, "-c", code, json.dumps(lines)], cwd=folder, check=True, capture_output=True
    )
    return folder


@pytest.mark.parametrize("name", ["1.png", "2.png", "3.png", "one.webp", "one.jpg"])
def test_exact_on_pictures_of_another_process(drawn: Path, tiny_pocket: Path, name: str) -> None:
    verdict = verify(drawn / name, str(tiny_pocket))
    assert verdict.holds, verdict
    assert verdict.lines() == ["pixels: exact", "inputs: same"]
    assert images.read_recipe(drawn / "2.png")["image"]["batch_position"] == 1


def test_one_changed_byte_anywhere_is_named(
    drawn: Path, tiny_pocket: Path, copy_model: Callable[[Path], Path]
) -> None:
    model = copy_model(tiny_pocket)
    files = images.read_recipe(drawn / "1.png")["model"]["files"]
    assert len(files) >= 10
    for name in files:
        path = model / name
        kept = path.read_bytes()
        changed = bytearray(kept)
        changed[len(kept) * 2 // 3] ^= 1
        path.write_bytes(bytes(changed))
        verdict = verify(drawn / "1.png", str(model))
        assert verdict.changed == (name,) and not verdict.holds, (name, verdict)
        path.write_bytes(kept)
    assert verify(drawn / "1.png", str(model)).holds


def test_the_hash_cache_is_not_believed(
    drawn: Path, tiny_pocket: Path, copy_model: Callable[[Path], Path]
) -> None:
    model = copy_model(tiny_pocket)
    assert verify(drawn / "1.png", str(model)).holds
    path = model / "vae" / "diffusion_pytorch_model.safetensors"
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-100] ^= 64
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert verify(drawn / "1.png", str(model)).changed == ("vae/diffusion_pytorch_model.safetensors",)


def test_changes_that_only_drawing_stumbles_over_are_named(
    drawn: Path, tiny_pocket: Path, copy_model: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from t2i import pipeline

    model = copy_model(tiny_pocket)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-4] + bytes([0, 0, 0xC0, 0x7F]))  # the last number of the file is not one
    verdict = verify(drawn / "1.png", str(model))
    assert verdict.changed == ("unet/diffusion_pytorch_model.safetensors",) and "finite" in verdict.failure
    weights.write_bytes(kept)

    def refuse(*_: object) -> None:
        raise ModelError("no")

    monkeypatch.setattr(pipeline, "redraw", refuse)
    with pytest.raises(ModelError, match="no"):  # nothing has changed, so the failure itself is the answer
        verify(drawn / "1.png", str(model))


def test_a_device_that_is_not_here_is_no_changed_file(drawn: Path, tiny_pocket: Path, tmp_path: Path) -> None:
    recipe = images.read_recipe(drawn / "1.png")
    path = with_recipe(tmp_path / "p.png", recipe | {"runtime": {**recipe["runtime"], "device": "xpu:7"}})
    with pytest.raises(UsageError, match="not available here"):
        verify(path, str(tiny_pocket))


def test_a_model_that_cannot_be_fetched_is_no_changed_file(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = images.read_recipe(drawn / "1.png")
    path = with_recipe(tmp_path / "p.png", recipe | {"model": {**recipe["model"], "id": "nobody/nothing"}})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="not on this machine"):
        verify(path)


def test_missing_and_new_files_are_named(
    drawn: Path, tiny_pocket: Path, copy_model: Callable[[Path], Path]
) -> None:
    model = copy_model(tiny_pocket)
    (model / "tokenizer" / "words.json").unlink()
    assert verify(drawn / "1.png", str(model)).changed == ("tokenizer/words.json (missing)",)
    (model / "unet" / "config.json").unlink()
    verdict = verify(drawn / "1.png", str(model))
    assert "unet/config.json (missing)" in verdict.changed and verdict.failure
    assert compare_files({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == ("a (missing)", "b", "c (new)")


def test_a_folder_that_is_no_model_is_not_called_a_changed_one(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "runs" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "model" / "model_index.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        verify(drawn / "1.png", str(tmp_path / "runs"))
    assert caught.value.hint == f"did you mean {tmp_path / 'runs' / 'model'}?"


def test_edited_pixels_are_seen(drawn: Path, tiny_pocket: Path, tmp_path: Path) -> None:
    recipe = images.read_recipe(drawn / "1.png")
    pixels = images.read_pixels(drawn / "1.png")
    pixels[10, 10] ^= 255
    images.save(tmp_path / "edited.png", pixels, recipe)
    verdict = verify(tmp_path / "edited.png", str(tiny_pocket))
    assert verdict.pixels.startswith("PSNR ") and verdict.changed == () and not verdict.holds
    images.save(tmp_path / "black.png", pixels * 0, recipe)
    assert verify(tmp_path / "black.png", str(tiny_pocket)).pixels == "different"
    images.save(tmp_path / "cut.png", pixels[:32], recipe)
    assert verify(tmp_path / "cut.png", str(tiny_pocket)).pixels == "different"


def test_what_changes_the_look_and_no_rgb_value_is_seen(
    drawn: Path, tiny_pocket: Path, tmp_path: Path
) -> None:
    original = Image.open(drawn / "1.png")
    chunks = PngInfo()
    chunks.add_itxt("t2i", original.info["t2i"])
    clear = original.convert("RGBA")
    clear.putalpha(0)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    touched = {
        "its pixels are RGBA": (clear, {}),
        "its pixels are RGB with transparency": (original, {"transparency": (255, 255, 255)}),
        "it has 2 frames": (original, {"save_all": True, "append_images": [Image.new("RGB", (64, 64))]}),
        "its EXIF orientation is 3": (original, {"exif": exif}),
    }
    for reason, (picture, options) in touched.items():
        picture.save(tmp_path / "p.png", pnginfo=chunks, **options)
        assert (images.read_pixels(tmp_path / "p.png") == images.read_pixels(drawn / "1.png")).all()
        verdict = verify(tmp_path / "p.png", str(tiny_pocket))
        assert (verdict.pixels, verdict.changed, verdict.failure) == ("different", (), reason)
        assert not verdict.holds and verdict.lines()[0] == f"pixels: different (not compared: {reason})"


@pytest.mark.parametrize(
    ("chunk", "data", "reason"),
    [
        (b"iCCP", b"p\0\0" + zlib.compress(b"x" * 128), "it has a colour profile"),
        (b"gAMA", (100_000).to_bytes(4), "its gamma is 1"),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 73000, 26000, 16000, 70000, 4000, 10000),
         "its chromaticity is 0.3127, 0.329, 0.73, 0.26, 0.16, 0.7, 0.04, 0.1"),
        (b"cICP", bytes([9, 16, 0, 1]), "it says what its colours mean (cICP)"),
        (b"gAMA", (45_455).to_bytes(4), ""),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000), ""),
        (b"sRGB", b"\0", ""),
    ],
)  # fmt: skip
def test_other_colours_for_the_same_values_are_seen(
    drawn: Path, tmp_path: Path, chunk: bytes, data: bytes, reason: str
) -> None:
    whole = (drawn / "1.png").read_bytes()
    checksum = zlib.crc32(chunk + data).to_bytes(4)
    added = len(data).to_bytes(4) + chunk + data + checksum
    (tmp_path / "p.png").write_bytes(whole[:33] + added + whole[33:])  # behind the header
    assert (images.read_pixels(tmp_path / "p.png") == images.read_pixels(drawn / "1.png")).all()
    assert images.unlike_drawn(tmp_path / "p.png") == reason


def test_a_colour_profile_is_no_exact_picture(drawn: Path, tiny_pocket: Path, tmp_path: Path) -> None:
    with Image.open(drawn / "one.webp") as original:
        original.save(tmp_path / "p.webp", icc_profile=b"x" * 128, lossless=True, xmp=original.info["xmp"])
    verdict = verify(tmp_path / "p.webp", str(tiny_pocket))
    assert not verdict.holds and verdict.failure == "it has a colour profile"


def test_the_command(
    drawn: Path, tiny_pocket: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = str(drawn / "1.png"), str(drawn / "2.png")
    assert cli.run(["verify", one, two, "-m", str(tiny_pocket)]) == 0
    assert capsys.readouterr().out.count("pixels: exact") == 2
    pixels = images.read_pixels(drawn / "1.png")
    images.save(tmp_path / "edited.png", pixels ^ 1, images.read_recipe(drawn / "1.png"))
    assert cli.run(["verify", str(tmp_path / "edited.png"), one, "-m", str(tiny_pocket), "--json"]) == 1
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert [row["pixels"] for row in rows] == ["PSNR 48.1 dB", "exact"]
    assert captured.err == "error: 1 of 2 pictures could not be confirmed\n"
    assert cli.run(["verify", "none.png", one, "gone.png", "-m", str(tiny_pocket)]) == 4
    captured = capsys.readouterr()
    assert "pixels: exact" in captured.out
    missing = ["error: none.png does not exist", "error: gone.png does not exist"]
    assert captured.err.splitlines() == [*missing, "error: 2 of 3 pictures could not be confirmed"]
    mixed = ["none.png", str(tmp_path / "edited.png"), one]
    assert cli.run(["verify", *mixed, "-m", str(tiny_pocket)]) == 4
    told = "2 of 3 pictures could not be confirmed: 1 not as recorded, 1 not checked"
    assert capsys.readouterr().err.splitlines() == [missing[0], f"error: {told}"]


def with_recipe(path: Path, recipe: recipes.Recipe) -> Path:
    """A picture whose recipe nobody checked."""
    chunks = PngInfo()
    chunks.add_itxt("t2i", json.dumps(recipe))
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG", pnginfo=chunks)
    path.write_bytes(buffer.getvalue())
    return path


def test_hostile_recipes_are_refused(drawn: Path, tiny_pocket: Path, tmp_path: Path) -> None:
    recipe = images.read_recipe(drawn / "1.png")
    hostile = [
        {"image": {**recipe["image"], "batch_shape": [10**9, 4, 16, 16]}},
        {"image": {**recipe["image"], "batch_shape": "big"}},
        {"image": {**recipe["image"], "batch_position": -1}},
        {"image": {**recipe["image"], "seed": "x"}},
        {"image": {**recipe["image"], "seed": None}},
        {"config": {**recipe["config"], "prompts": []}},
        {"config": {**recipe["config"], "prompts": [1]}},
        {"config": {**recipe["config"], "width": 10**9}},
        {"config": {**recipe["config"], "steps": "many"}},
        {"runtime": {}},
        {"runtime": {**recipe["runtime"], "threads": "x"}},
        {"runtime": {**recipe["runtime"], "threads": -4}},
        {"runtime": {**recipe["runtime"], "matmul_precision": "x"}},
        {"runtime": {**recipe["runtime"], "attention": 3}},
        {"runtime": {**recipe["runtime"], "attention": "flash"}},
        {"runtime": {**recipe["runtime"], "threads": True}},
        {"model": {**recipe["model"], "files": {}}},
        {"model": {**recipe["model"], "files": "x"}},
    ]
    for change in hostile:
        path = with_recipe(tmp_path / "hostile.png", recipe | change)
        with pytest.raises(StorageError):
            verify(path, str(tiny_pocket))


def test_names_in_a_recipe_lead_nowhere(drawn: Path, tiny_pocket: Path, tmp_path: Path) -> None:
    recipe = images.read_recipe(drawn / "1.png")
    files = {"../../secret": "0" * 64, "/etc/passwd": "0" * 64}
    path = with_recipe(tmp_path / "p.png", recipe | {"model": {**recipe["model"], "files": files}})
    verdict = verify(path, str(tiny_pocket))
    assert {"../../secret (missing)", "/etc/passwd (missing)"} <= set(verdict.changed)


def test_a_model_that_is_not_here(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="tiny-pocket") as caught:
        verify(drawn / "1.png")
    assert "--model PATH" in caught.value.hint
