"""Models made to run code, to read elsewhere, or to take the machine down: refused in one line, nothing run.

Every case starts from a good model folder (or file) and spoils one thing. While all of them are tried,
`torch.load` and `pickle.load` fail the test, an audit hook watches for code from the model being compiled
or executed, and everything that could run leaves a canary file if it does.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from t2i.errors import ModelError, T2IError
from t2i.weights import load_model, resolve_model
from t2i.weights.safety import check_file_name, read_header

Spoil = Callable[[Path], Any]
CANARY = "T2I_CANARY"
EVIL = f"import os\nopen(os.environ['{CANARY}'], 'w').close()\n"
UNET = "unet/diffusion_pytorch_model.safetensors"
watched: list[str] = []
watching: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if not watching:
        return
    if event == "exec" and str(getattr(arguments[0], "co_filename", "")).startswith(watching[0]):
        watched.append(f"executed {arguments[0].co_filename}")
    if event == "compile" and str(arguments[1]).startswith(watching[0]):
        watched.append(f"compiled {arguments[1]}")
    if event == "open" and str(arguments[0]).startswith(watching[0]):
        reading = not arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if reading and str(arguments[0]).endswith((".py", ".pyc")):
            watched.append(f"read {arguments[0]}")


sys.addaudithook(_watch)


class Bomb:
    """Pickles to a call that leaves the canary."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (EVIL,)


def pickled(protocol: int = 2) -> bytes:
    return pickle.dumps(Bomb(), protocol=protocol)


def torch_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled())
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def tensors_file(entries: dict[str, Any], data: bytes = b"", raw: bytes | None = None) -> bytes:
    header = raw if raw is not None else json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(begin: int = 0, end: int = 4, dtype: str = "F32", shape: tuple[int, ...] = (1,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def write(name: str, content: bytes | str) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def setting(name: str, **changes: Any) -> Spoil:
    """Change keys of a JSON file; `...` deletes one."""

    def spoil(folder: Path) -> None:
        path = folder / name
        values = {**(json.loads(path.read_text()) if path.exists() else {}), **changes}
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))

    return spoil


def replace_weights(name: str, content: bytes) -> Spoil:
    """Only `name` holds the UNet's weights."""

    def spoil(folder: Path) -> None:
        (folder / UNET).unlink()
        (folder / name).write_bytes(content)

    return spoil


def cut(size: int) -> Spoil:
    """Keep `size` bytes of the UNet's weights (negative: all but so many)."""

    def spoil(folder: Path) -> None:
        path = folder / UNET
        path.write_bytes(path.read_bytes()[:size])

    return spoil


def shards(place: str) -> Spoil:
    """An index that puts the UNet's weights in `place`, which exists two folders up under any reading."""

    def spoil(folder: Path) -> None:
        good = (folder / UNET).read_bytes()
        for outside in (folder / "x.safetensors", folder.parent / "x.safetensors"):
            outside.write_bytes(good)
        (folder / "unet" / "inside.bin").write_bytes(torch_zip())
        keys = read_header(folder / UNET).tensors
        (folder / UNET).unlink()
        index = {"metadata": {}, "weight_map": dict.fromkeys(keys, place)}
        (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))

    return spoil


def several(*spoils: Spoil) -> Spoil:
    def spoil(folder: Path) -> None:
        for one in spoils:
            one(folder)

    return spoil


def pipe(folder: Path) -> None:
    (folder / UNET).unlink()
    os.mkfifo(folder / UNET)


def endless_device(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / UNET).symlink_to("/dev/zero")


def folder_instead(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / UNET).mkdir()


CASES: dict[str, tuple[Spoil, str]] = {
    # pickles under every name
    "bin only": (replace_weights("unet/diffusion_pytorch_model.bin", torch_zip()), "pickled"),
    "ckpt only": (replace_weights("unet/diffusion_pytorch_model.ckpt", pickled()), "pickled"),
    "pt only": (replace_weights("unet/diffusion_pytorch_model.pt", torch_zip()), "pickled"),
    "zip named safetensors": (write(UNET, torch_zip()), "pickled"),
    "pickle 2 named safetensors": (write(UNET, pickled(2)), "pickled"),
    "pickle 4 named safetensors": (write(UNET, pickled(4)), "pickled"),
    "pickle 5 named safetensors": (write(UNET, pickled(5)), "pickled"),
    "pickle 0 named safetensors": (write(UNET, pickled(0)), "not a safetensors"),
    "pickle in the text encoder": (write("text_encoder/model.safetensors", torch_zip()), "pickled"),
    "pickle in the autoencoder": (write("vae/diffusion_pytorch_model.safetensors", pickled()), "pickled"),
    "pickle as fp16 variant": (
        replace_weights("unet/diffusion_pytorch_model.fp16.safetensors", pickled()),
        "pickled",
    ),
    # other content
    "GGUF": (write(UNET, b"GGUF" + b"\0" * 64), "GGUF"),
    "HDF5": (write(UNET, b"\x89HDF\r\n\x1a\n" + b"\0" * 64), "HDF5"),
    "LFS pointer": (write(UNET, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "LFS"),
    "web page": (write(UNET, b"<!DOCTYPE html><html></html>"), "HTML"),
    "empty file": (write(UNET, b""), "not a safetensors"),
    "pipe": (pipe, "not a plain file"),
    "endless device": (endless_device, "not a plain file"),
    "folder as file": (folder_instead, "not a plain file"),
    # damaged safetensors
    "cut in the length": (cut(5), "not a safetensors"),
    "cut in the header": (cut(500), "cut short"),
    "cut in the data": (cut(-1), "cut short"),
    "bytes behind the end": (lambda folder: (folder / UNET).open("ab").write(b"x"), "after its last"),
    "huge header": (write(UNET, struct.pack("<Q", 2**40) + b"{" + b" " * 64), "header claims"),
    "huge header 2": (write(UNET, struct.pack("<Q", 2**64 - 1) + b"{" + b" " * 64), "header claims"),
    "header no JSON": (write(UNET, tensors_file({}, raw=b"{nonsense" + b" " * 20)), "JSON"),
    "header a list": (write(UNET, tensors_file({}, raw=b"[1, 2, 3, 4]")), "not a safetensors"),
    "header nested deep": (write(UNET, tensors_file({}, raw=b'{"a":' * 20_000 + b"}" * 20_000)), "JSON"),
    "header name twice": (
        write(UNET, tensors_file({}, b"\0" * 8, b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2))),
        "JSON",
    ),
    "offsets backwards": (write(UNET, tensors_file({"a": entry(4, 0)}, b"\0" * 4)), "makes no sense"),
    "offsets negative": (write(UNET, tensors_file({"a": entry(-4, 0)}, b"\0" * 4)), "makes no sense"),
    "offsets overlap": (write(UNET, tensors_file({"a": entry(), "b": entry()}, b"\0" * 4)), "overlap"),
    "offsets leave a gap": (write(UNET, tensors_file({"a": entry(4, 8)}, b"\0" * 8)), "gap"),
    "shape too large": (
        write(UNET, tensors_file({"a": entry(shape=(2**40, 2**40))}, b"\0" * 4)),
        "makes no sense",
    ),
    "unknown dtype": (write(UNET, tensors_file({"a": entry(dtype="PICKLE")}, b"\0" * 4)), "makes no sense"),
    "metadata not text": (write(UNET, tensors_file({"__metadata__": {"a": 1}})), "metadata"),
    # code in the folder
    "pipeline.py": (write("pipeline.py", EVIL), "its own code"),
    "unet code": (
        several(
            write("unet/unet.py", EVIL), setting("unet/config.json", auto_map={"AutoModel": "unet.Evil"})
        ),
        "its own code",
    ),
    "compiled code": (write("unet/unet.pyc", b"\0"), "its own code"),
    "custom pipeline class": (setting("model_index.json", _class_name=["pipeline", "Evil"]), "code"),
    "custom pipeline key": (setting("model_index.json", custom_pipeline="evil"), "code"),
    "unknown pipeline": (setting("model_index.json", _class_name="EvilPipeline"), "does not run"),
    "Flux": (setting("model_index.json", _class_name="FluxPipeline"), "FluxPipeline, which this version"),
    "component from a module": (setting("model_index.json", unet=["evil", "Evil"]), "evil.Evil"),
    "component from os": (setting("model_index.json", unet=["os", "system"]), "os.system"),
    "component of another class": (
        setting("model_index.json", vae=["diffusers", "UNet2DConditionModel"]),
        "as 'vae'",
    ),
    "unknown component": (setting("model_index.json", extra=["transformers", "AutoModel"]), "as 'extra'"),
    "scheduler from a module": (
        setting("model_index.json", scheduler=["evil", "EvilScheduler"]),
        "as 'scheduler'",
    ),
    "component not a pair": (setting("model_index.json", unet=["a", "b", "c"]), "pair"),
    "safety checker of another class": (
        setting("model_index.json", safety_checker=["evil", "Evil"]),
        "evil.Evil",
    ),
    # code by config keys
    **{
        f"{key} in {name}": (setting(name, **{key: value}), "t2i runs|asks for|chooses|names a kernel")
        for name in ("unet/config.json", "text_encoder/config.json", "tokenizer/tokenizer_config.json")
        for key, value in {
            "auto_map": {"AutoModel": "evil--evil.Evil"},
            "trust_remote_code": True,
            "attn_implementation": "evil/kernel",
            "_attn_implementation": "evil/kernel:main",
            "_attn_implementation_internal": "evil/kernel",
            "kernel_config": {"a": "evil/kernel"},
            "nested": {"deep": [{"auto_map": {"a": "b"}}]},
            "Trust_Remote_Code": "yes",
        }.items()
    },
    "quantised": (setting("unet/config.json", quantization_config={"quant_method": "evil"}), "quantised"),
    "unet of another class": (setting("unet/config.json", _class_name="Evil"), "'Evil'"),
    "unet class a list": (setting("unet/config.json", _class_name=["evil", "Evil"]), "does not load"),
    "encoder architecture": (setting("text_encoder/config.json", architectures=["Evil"]), "'Evil'"),
    "encoder model type": (setting("text_encoder/config.json", model_type="llama"), "llama"),
    "tokenizer class": (setting("tokenizer/tokenizer_config.json", tokenizer_class="Evil"), "Evil"),
    "tokenizer file elsewhere": (
        setting("tokenizer/tokenizer_config.json", vocab_file="/etc/passwd"),
        "points to",
    ),
    # configs that take the machine down
    "a billion layers": (setting("text_encoder/config.json", num_hidden_layers=10**9), "out of bounds"),
    "a billion layers in a block": (
        setting("unet/config.json", layers_per_block=[10**9] * 2),
        "out of bounds",
    ),
    "endless width": (setting("unet/config.json", block_out_channels=[10**12] * 2), "out of bounds"),
    "endless list": (setting("unet/config.json", block_out_channels=[32] * 10_000), "entries"),
    "layers in layers": (
        setting("unet/config.json", layers_per_block=60, transformer_layers_per_block=60),
        "out of bounds",
    ),
    "config no JSON": (write("unet/config.json", b"{"), "JSON"),
    "config not UTF-8": (write("unet/config.json", b"\xff\xfe{}"), "JSON"),
    "config nested deep": (write("unet/config.json", b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "JSON"),
    "config with NaN": (write("vae/config.json", b'{"scaling_factor": NaN}'), "JSON"),
    "index a list": (write("model_index.json", b"[]"), "JSON object"),
    "no config": (lambda folder: (folder / "vae" / "config.json").unlink(), "no such file"),
    "no scheduler": (
        lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(),
        "no such file",
    ),
    "no tokenizer": (
        lambda folder: (folder / "tokenizer" / "tokenizer.json").unlink(),
        "neither tokenizer.json",
    ),
    "tokenizer damaged": (
        write("tokenizer/tokenizer.json", b'{"model": {"type": "Evil"}}'),
        "cannot be loaded",
    ),
    "bad defaults": (write("t2i.json", b'{"steps": -5}'), "steps = '-5'"),
    "bad family": (write("t2i.json", b'{"family": "../../evil"}'), "family"),
    "inpainting": (setting("unet/config.json", in_channels=9), "not a plain text-to-image"),
    "class labels": (setting("unet/config.json", num_class_embeds=10), "class labels"),
    "no weights": (lambda folder: (folder / UNET).unlink(), "no weights"),
    # shard indexes that point elsewhere
    **{
        f"shard {place!r}": (shards(place), "names the file|lacks the shard")
        for place in (
            "../x.safetensors",
            "../../x.safetensors",
            "/x.safetensors",
            "C:x.safetensors",
            "C:\\x.safetensors",
            "\\\\host\\x.safetensors",
            "..\\x.safetensors",
            "./x.safetensors",
            "unet/../x.safetensors",
            "inside.bin",
            "",
            "~/x.safetensors",
            "x.safetensors\0",
            "file:///x.safetensors",
            ".x.safetensors",
        )
    },
}


@pytest.fixture
def guarded(tmp_path, monkeypatch, no_network):
    """Fail the test if anything unpickles, connects, or runs code from below `tmp_path`."""
    canary = tmp_path / "canary"
    monkeypatch.setenv(CANARY, str(canary))

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a pickle was loaded")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, never)
    watched.clear()
    watching[:] = [str(tmp_path)]
    yield
    watching.clear()
    assert watched == [] and not canary.exists()


def refusal(path: Path) -> T2IError:
    """The error of trying to load `path`: at most two short lines of text, quickly."""
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        load_model(resolve_model(str(path)))
    assert time.monotonic() - started < 20  # includes importing the libraries once
    error = caught.value
    assert error.exit_code == 4 and 10 < len(error.message) < 400
    assert "\n" not in error.message + error.hint and "Traceback" not in error.message
    assert error.message.startswith(str(path)), "the model as it was called"
    return error


@pytest.mark.parametrize("name", CASES)
def test_a_spoiled_folder_is_refused(name, tiny_sd1, copy_model, guarded):
    spoil, reason = CASES[name]
    folder = copy_model(tiny_sd1)
    spoil(folder)
    error = refusal(folder)
    assert re.search(reason, f"{error.message} {error.hint}"), error.message


FILES = {
    "a.ckpt": (pickled(), "pickled"),
    "b.bin": (torch_zip(), "pickled"),
    "c.pt": (torch_zip(), "pickled"),
    "d.pth": (b"", "pickled"),
    "e.safetensors": (torch_zip(), "pickled"),
    "f.safetensors": (pickled(4), "pickled"),
    "g.safetensors": (b"\0" * 100, "not a safetensors"),
    "h.safetensors": (tensors_file({}), "not a Stable"),
    "i.txt": (b"hello, this is no model at all", "not a safetensors"),
    "j.safetensors": (tensors_file({"a": entry(0, 400, shape=(100,))}, b"\0" * 7), "cut short"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_single_file_is_refused(name, tmp_path, guarded):
    content, reason = FILES[name]
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path / name)
    assert reason in error.message


def test_the_good_folder_loads_under_the_same_guard(tiny_sd1, copy_model, guarded):
    assert load_model(resolve_model(str(copy_model(tiny_sd1)))).family.name == "sd1"


def test_what_real_folders_carry_is_accepted(tiny_sd1, copy_model, guarded):
    """Pickles beside safetensors, a safety checker, old harmless keys: never opened, no reason to refuse."""
    folder = copy_model(tiny_sd1)
    write("unet/diffusion_pytorch_model.bin", torch_zip())(folder)
    write("safety_checker/pytorch_model.bin", torch_zip())(folder)
    setting(
        "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPFeatureExtractor"],
        tokenizer=["transformers", "CLIPTokenizerFast"],
    )(folder)
    setting("text_encoder/config.json", _attn_implementation_autoset=True, _name_or_path="openai/clip")(
        folder
    )
    setting("tokenizer/tokenizer_config.json", name_or_path="openai/clip", special_tokens_map_file="./x")(
        folder
    )
    assert load_model(resolve_model(str(folder)))


def test_random_damage_to_a_header_never_hangs_or_escapes(tiny_sd1, tmp_path):
    """Flips and cuts in the first bytes give a header or a ModelError, never another exception."""
    import random

    good = (tiny_sd1 / UNET).read_bytes()
    header = 8 + struct.unpack("<Q", good[:8])[0]
    generator = random.Random(5)
    path = tmp_path / "m.safetensors"
    for _ in range(300):
        spoiled = bytearray(good)
        for _ in range(generator.randint(1, 4)):
            spoiled[generator.randrange(header)] = generator.randrange(256)
        if generator.random() < 0.3:
            del spoiled[generator.randrange(len(spoiled)) :]
        path.write_bytes(spoiled)
        try:
            read_header(path)
        except ModelError as error:
            assert "\n" not in error.message


@pytest.mark.parametrize("name", ["a.safetensors", "model-00001-of-00002.safetensors", "_x.1.safetensors"])
def test_plain_file_names_pass(name):
    assert check_file_name(name, ".safetensors", "index") == name


@pytest.mark.parametrize(
    "name", ["a..safetensors", "a\n.safetensors", "é.safetensors", 3, None, ["a"], "a" * 300]
)
def test_odd_file_names_do_not(name):
    with pytest.raises(ModelError):
        check_file_name(name, ".safetensors", "index")
