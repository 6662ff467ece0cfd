"""Looking at model files before any library opens them.

Every switch for "safe" loading in this field had a way around it, so nothing here trusts a name or a flag:
weights are safetensors by content, JSON files are read and searched for what asks to run code, and only
known classes are ever made. Standard library only.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from t2i.errors import ModelError

HEADER_LIMIT = 32 * 1024**2
JSON_LIMIT = 64 * 1024**2
LARGEST_NUMBER = 1_000_000
LONGEST_LIST = 64

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip

CONTENT = (  # first bytes → what the file is
    (b"PK\x03\x04", "a zip archive as torch.save writes it: pickled data"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"version https://git-lfs", "a Git LFS pointer: the weights themselves were not downloaded"),
    (b"<!DOCTYPE", "an HTML page: the download failed"),
    (b"<html", "an HTML page: the download failed"),
)
PICKLE_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth", ".pkl", ".pickle")
SAFETENSORS_ONLY = "t2i reads .safetensors only; ask the publisher for one, or convert the file elsewhere"

FORBIDDEN_KEYS = {
    "auto_map": "asks for code from the model folder",
    "trust_remote_code": "asks for remote code",
    "custom_pipeline": "asks for a pipeline that is code in the model folder",
    "custom_pipelines": "asks for pipelines that are code in the model folder",
    "_auto_class": "asks for code from the model folder",
    "quantization_config": "asks for a quantised loader",
}


@dataclass(frozen=True)
class Header:
    """What a safetensors file says about itself: tensor name → (dtype, shape), and free metadata."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    metadata: dict[str, str]


def read_header(path: Path) -> Header:
    """Check that a file is whole safetensors by its content, and return its header.

    Raises:
        ModelError: Another kind of file, cut short, or a header that contradicts itself.
    """
    size = regular_file_size(path)
    with _opened(path) as file:
        start = file.read(32)
        _refuse_other_content(path, start)
        length = int.from_bytes(start[:8], "little")
        if size < 10 or length < 2 or start[8:9] != b"{":
            raise ModelError(f"{path} is not a safetensors file", SAFETENSORS_ONLY)
        if length > HEADER_LIMIT:
            raise ModelError(f"{path}: its header claims {length} bytes, at most {HEADER_LIMIT} are allowed")
        if 8 + length > size:
            raise ModelError(f"{path} is cut short inside its header", "download or copy it again")
        file.seek(8)
        text = file.read(length)
    values = parse_json(text, path)
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(item, str) for item in metadata.values()):
        raise ModelError(f"{path}: the metadata in its header is not text")
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    spans = []
    for name, entry in values.items():
        dtype, shape, begin, end = _tensor_entry(path, name, entry)
        tensors[name] = (dtype, shape)
        spans.append((begin, end))
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise ModelError(f"{path}: its header leaves a gap or an overlap at byte {reached}")
        reached = end
    if 8 + length + reached > size:
        raise ModelError(
            f"{path} is cut short: {8 + length + reached} bytes are announced, {size} are there",
            "download or copy it again",
        )
    if 8 + length + reached < size:
        raise ModelError(f"{path} has {size - 8 - length - reached} bytes after its last tensor")
    return Header(tensors, metadata)


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error


def regular_file_size(path: Path) -> int:
    """Size of a plain file (a link to one counts, as the Hub's cache is made of links).

    Raises:
        ModelError: Missing, a folder, a device, a pipe.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no such file, or it cannot be read") from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path} is not a plain file")
    return status.st_size


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder, refused if anything in it asks to run code.

    Raises:
        ModelError: Missing, unreadable, not an object, or with a forbidden key.
    """
    if regular_file_size(path) > JSON_LIMIT:
        raise ModelError(f"{path} is larger than {JSON_LIMIT} bytes")
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    values = parse_json(text, path)
    for key, value in _walk(values):
        reason = _why_forbidden(key, value)
        if reason:
            raise ModelError(f"{path}: the setting {key!r} {reason}", "t2i runs no code from a model")
    return values


def parse_json(text: bytes, path: Path) -> dict[str, Any]:
    """Strict JSON object: UTF-8, no NaN, no name twice, no endless nesting."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ValueError("a name appears twice")
        return values

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        values = json.loads(text.decode(), object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: not valid JSON") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path} is damaged: not a JSON object")
    return values


def check_sizes(path: Path, values: dict[str, Any], tensors: int) -> None:
    """Refuse a network config whose numbers would take the machine down before a weight is read.

    Args:
        path: The config, for the message.
        values: Its contents.
        tensors: How many tensors the network's files hold; it cannot have more layers than that.
    """
    layers = 1
    for key, value in _walk(values):
        items = value if isinstance(value, list) else [value]
        numbers = [abs(item) for item in items if isinstance(item, int) and not isinstance(item, bool)]
        if len(items) > LONGEST_LIST:
            raise ModelError(f"{path}: {key} has {len(items)} entries, more than any known network")
        if any(number > LARGEST_NUMBER for number in numbers):
            raise ModelError(f"{path}: {key} = {str(value)[:40]} is out of bounds")
        if "layers" in key and numbers:
            layers *= max(1, *numbers)
        elif key == "down_block_types":
            layers *= max(1, len(items))
    if layers > tensors:
        raise ModelError(f"{path}: its layers are out of bounds for {tensors} tensors")


def check_file_name(name: Any, suffix: str, where: str) -> str:
    """A file name taken from a JSON file: a plain base name with the right ending, or refused.

    Raises:
        ModelError: A path, a drive, a hidden file, another ending, not text.
    """
    plain = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", name)
    if not plain or ".." in name or not name.endswith(suffix):
        raise ModelError(f"{where} names the file {name!r}; only plain {suffix} names are allowed")
    return str(name)


def refuse_python_files(folder: Path) -> None:
    """Refuse a model folder with Python code in it or in a component's folder."""
    try:
        found = sorted(
            [*folder.glob("*.py"), *folder.glob("*/*.py"), *folder.glob("*.pyc"), *folder.glob("*/*.pyc")]
        )
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}") from error
    if found:
        raise ModelError(
            f"{folder} brings its own code ({found[0].relative_to(folder)}), which t2i never runs",
            "use a model without code, or remove the file if the rest is enough",
        )


def refuse_pickle_name(path: Path) -> None:
    """Refuse a file whose name says pickle, before looking further."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise ModelError(f"{path} holds pickled data, which can run code when opened", SAFETENSORS_ONLY)


def _refuse_other_content(path: Path, start: bytes) -> None:
    if len(start) >= 2 and start[0] == 0x80 and start[1] <= 5 and start[8:9] != b"{":
        raise ModelError(f"{path} holds pickled data, which can run code when opened", SAFETENSORS_ONLY)
    for magic, kind in CONTENT:
        if start.startswith(magic):
            raise ModelError(f"{path} is {kind}", SAFETENSORS_ONLY)


def _tensor_entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, begin and end of one tensor, all checked against each other."""

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48

    problem = ModelError(f"{path}: the header entry of {name[:80]!r} makes no sense")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise problem
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if (
        not isinstance(dtype, str)
        or dtype not in DTYPE_BITS
        or not isinstance(shape, list)
        or len(shape) > 16
    ):
        raise problem
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(whole, [*shape, *offsets])):
        raise problem
    if offsets[1] - offsets[0] != math.prod(shape) * DTYPE_BITS[dtype] // 8:
        raise problem
    return dtype, tuple(shape), offsets[0], offsets[1]


def _why_forbidden(key: str, value: Any) -> str:
    """Why a config entry is refused, or ""."""
    name = key.lower()
    if name in FORBIDDEN_KEYS and value not in (None, False):
        return FORBIDDEN_KEYS[name]
    if "attn_implementation" in name and not isinstance(value, bool) and value is not None:
        return "chooses attention code, which can be fetched from elsewhere"
    if "kernel" in name and "/" in json.dumps(value):
        return "names a kernel to fetch"
    return ""


def _walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, value) at any depth."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
