"""CLIP tokenizers: from a model folder, or from the vocabulary that ships inside t2i."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path
from typing import Any

from t2i.catalog import ASSETS
from t2i.errors import ModelError
from t2i.weights.safety import parse_json, read_config, regular_file_size

CLIP_MERGES = ASSETS / "clip_vocabulary" / "merges.txt.gz"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
MARKS = ("<|startoftext|>", "<|endoftext|>")


def byte_characters() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level vocabularies, in vocabulary order.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2: bytes
    that are printable stand for themselves, the others follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(256 - len(printable))]


@functools.cache
def clip_vocabulary() -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """OpenAI CLIP's 49,408 tokens with their ids, and its merges in order."""
    lines = gzip.decompress(CLIP_MERGES.read_bytes()).decode().splitlines()
    merges = tuple((left, right) for left, _, right in (line.partition(" ") for line in lines))
    letters = byte_characters()
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges), *MARKS]
    return {token: index for index, token in enumerate(tokens)}, merges


def make_clip_tokenizer(pad_token: str = "<|endoftext|>", max_length: int = 77) -> Any:
    """The tokenizer of Stable Diffusion 1, 2 and XL, made in memory.

    Args:
        pad_token: "<|endoftext|>" for CLIP ViT-L, "!" for the OpenCLIP encoders.
        max_length: Places of a chunk, marks included.
    """
    from transformers import CLIPTokenizer

    vocab, merges = clip_vocabulary()
    return CLIPTokenizer(
        vocab=dict(vocab), merges=list(merges), pad_token=pad_token, model_max_length=max_length
    )


def load_tokenizer(folder: Path, places: int) -> tuple[Any, list[str]]:
    """The CLIPTokenizer of a model folder.

    Args:
        folder: The tokenizer's own folder.
        places: Places of the text encoder; a tokenizer that claims more is held to it.

    Returns:
        The tokenizer and the names of the files that it came from.

    Raises:
        ModelError: Files missing or damaged, or marks that are not in the vocabulary.
    """
    from transformers import CLIPTokenizer

    present = check_tokenizer(folder)
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        raise ModelError(f"{folder} cannot be loaded: {str(error).splitlines()[0][:200]}") from error
    for role, mark in (("begin", tokenizer.bos_token_id), ("end", tokenizer.eos_token_id)):
        if mark is None:
            raise ModelError(f"{folder} has no {role} mark in its vocabulary")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.model_max_length = min(tokenizer.model_max_length, places)
    return tokenizer, present


def check_tokenizer(folder: Path) -> list[str]:
    """Check the files of a tokenizer's folder without making it, and name those that are there.

    Raises:
        ModelError: Files missing or damaged, or a config that asks for code.
    """
    present = [name for name in TOKENIZER_FILES if (folder / name).exists()]
    for name in present:
        if name == "merges.txt":
            regular_file_size(folder / name)
        elif name == "tokenizer_config.json":
            check_tokenizer_config(folder / name)
        else:
            parse_json(_bytes_of(folder / name), folder / name)
    if "tokenizer.json" not in present and not {"vocab.json", "merges.txt"} <= set(present):
        raise ModelError(f"{folder} has neither tokenizer.json nor vocab.json with merges.txt")
    return present


def check_tokenizer_config(path: Path) -> None:
    """Refuse a tokenizer config that asks for code or for files outside its folder."""
    values = read_config(path)
    for key in ("tokenizer_file", "vocab_file", "merges_file"):
        value = values.get(key)
        if value is not None and value not in TOKENIZER_FILES:
            raise ModelError(f"{path}: {key} points to {str(value)[:80]!r}")
    name = values.get("tokenizer_class", "CLIPTokenizer")
    if name not in ("CLIPTokenizer", "CLIPTokenizerFast"):
        raise ModelError(f"{path} asks for a {str(name)[:80]}; only CLIPTokenizer is loaded")


def _bytes_of(path: Path) -> bytes:
    regular_file_size(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
