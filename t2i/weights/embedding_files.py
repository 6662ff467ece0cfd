"""What a textual inversion file is, by its header: its token, how many vectors, for which text encoders.

A textual inversion is a few rows for a text encoder's table of token embeddings, and the token that stands
for them in a prompt. Source: Gal et al. 2022, arXiv:2208.01618, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from t2i.errors import ModelError
from t2i.weights.lora_files import FACTOR, KOHYA, read_adapter_header

NAMELESS = "emb_params"  # of AUTOMATIC1111, whose token is the file's name
SDXL_KEYS = ("clip_l", "clip_g")
MOST_VECTORS = 512
LONGEST_TOKEN = 100


@dataclass(frozen=True)
class EmbeddingFile:
    """A checked textual inversion file.

    Attributes:
        path: Where it is.
        format: "diffusers" ({token: vectors}), "a1111" ({"emb_params": vectors}), "sdxl" (clip_l, clip_g).
        token: What stands in prompts.
        keys: The tensors, one for each text encoder.
        vectors: How many, the same for each encoder.
        widths: Of the vectors of each tensor.
    """

    path: Path
    format: str
    token: str
    keys: tuple[str, ...]
    vectors: int
    widths: tuple[int, ...]

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.name


def inspect_embedding(path: Path) -> EmbeddingFile:
    """Read the header of a textual inversion file.

    Raises:
        ModelError: Missing, no safetensors, damaged, or no textual inversion.
    """
    header = read_adapter_header(path)
    keys: tuple[str, ...]
    shapes = {key: shape for key, (_, shape) in header.tensors.items()}
    if any(KOHYA.fullmatch(key) or FACTOR.fullmatch(key) for key in shapes):
        raise ModelError(f"{path} is a LoRA, not a textual inversion", f"give it with --lora {path}")
    if set(shapes) == set(SDXL_KEYS):
        format, keys, token = "sdxl", SDXL_KEYS, path.stem
    elif len(shapes) == 1:
        (key,) = keys = tuple(shapes)
        format, token = ("a1111", path.stem) if key == NAMELESS else ("diffusers", key)
    else:
        raise ModelError(
            f"{path} is no textual inversion: it holds {len(shapes)} tensors",
            "one holds a tensor by the name of its token, emb_params, or clip_l and clip_g",
        )
    for key in keys:
        if len(shapes[key]) not in (1, 2) or 0 in shapes[key]:
            raise ModelError(f"{path}: {key[:80]} has the shape {list(shapes[key])}, not (vectors, width)")
    counts = {shapes[key][0] if len(shapes[key]) == 2 else 1 for key in keys}
    if len(counts) > 1:
        raise ModelError(f"{path}: clip_l and clip_g have different numbers of vectors")
    if max(counts) > MOST_VECTORS:
        raise ModelError(f"{path} has {max(counts)} vectors, at most {MOST_VECTORS} are read")
    if not token.strip() or token != token.strip() or len(token) > LONGEST_TOKEN or not token.isprintable():
        raise ModelError(
            f"{path}: {token[:LONGEST_TOKEN]!r} cannot be a token", "rename the file or its tensor"
        )
    return EmbeddingFile(path, format, token, keys, max(counts), tuple(shapes[key][-1] for key in keys))
