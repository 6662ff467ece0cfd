"""What a LoRA file is, by its header: format, layers, ranks, and what model it was made for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from t2i.errors import ModelError
from t2i.weights.safety import SAFETENSORS_ONLY, Header, read_header, refuse_pickle_name

KOHYA = re.compile(r"lora_(unet|te|te1|te2)_(.+?)\.(lora_down\.weight|lora_up\.weight|alpha|dora_scale)")
FACTOR = re.compile(  # PEFT's names, and what Diffusers and its training scripts used before
    r"(.+?)(?:\.processor)?[._](lora_A|lora_B|lora\.down|lora\.up|lora_linear_layer\.down|lora_linear_layer\.up"
    r"|lora_magnitude_vector)(?:\.default)?(?:\.weight|\.bias)?"
)
PARTS = {"unet": "unet", "te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
PREFIX = re.compile(r"(?:base_model\.model\.)?(?:(unet|text_encoder|text_encoder_2|transformer)\.)?")
OTHER_KINDS = {".hada_w": "a LoHa", ".lokr_w": "a LoKr", ".oft_": "an OFT", ".lora_mid": "a LoRA in CP form"}
TEXT_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL"}
BASE_KEYS = ("t2i.base", "modelspec.architecture", "ss_base_model_version", "ss_sd_model_name", "base_model")
READS_TEXT = re.compile(r"attn2[._](?:processor[._])?to[._][kv]")


@dataclass(frozen=True)
class LoraFile:
    """A checked LoRA file.

    Attributes:
        path: Where it is.
        format: "peft" (also older names of Diffusers) or "kohya".
        is_dora: It has magnitudes (Liu et al. 2024, arXiv:2402.09353).
        layers: Network → number of adapted layers, as the file calls the networks.
        ranks: Every rank that occurs, smallest first.
        base: What model it is for, as far as the file says; or "".
        metadata: Of its header.
    """

    path: Path
    format: str
    is_dora: bool
    layers: Mapping[str, int]
    ranks: tuple[int, ...]
    base: str
    metadata: Mapping[str, str]

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.name

    @property
    def format_in_words(self) -> str:
        """ "peft", or "kohya, DoRA"."""
        return self.format + (", DoRA" if self.is_dora else "")


def inspect_lora(path: Path) -> LoraFile:
    """Read the header of a LoRA file.

    Raises:
        ModelError: Missing, no safetensors, damaged, no LoRA, or of a kind that is not read.
    """
    header = read_adapter_header(path)
    layers: dict[str, set[str]] = {}
    ranks: set[int] = set()
    kohya = False
    for key, (_, shape) in header.tensors.items():
        found = KOHYA.fullmatch(key)
        if found is not None:
            part, module, what = PARTS[found[1]], found[2], found[3]
            kohya = True
        else:
            found = FACTOR.fullmatch(key)
            if found is None:
                continue
            prefix = PREFIX.match(found[1])
            assert prefix is not None
            part, module, what = prefix[1] or "unet", found[1][prefix.end() :], found[2]
        layers.setdefault(part, set()).add(module)
        if "down" in what or what == "lora_A":
            if len(shape) < 2:
                raise ModelError(f"{path}: {key} has the shape {list(shape)}, which is no factor of a LoRA")
            ranks.add(shape[0])
    for mark, kind in OTHER_KINDS.items():
        if any(mark in key for key in header.tensors):
            raise ModelError(f"{path} is {kind}, which t2i does not read", "convert it to a plain LoRA")
    if not ranks:
        kind = "is no LoRA: none of its tensors is a factor of one"
        raise ModelError(
            f"{path} {kind}", "a whole model is given with --model, an embedding with --embedding"
        )
    return LoraFile(
        path,
        "kohya" if kohya else "peft",
        any("dora_scale" in key or "magnitude" in key for key in header.tensors),
        {part: len(modules) for part, modules in sorted(layers.items())},
        tuple(sorted(ranks)),
        _base(header),
        header.metadata,
    )


def read_adapter_header(path: Path) -> Header:
    """The header of a file that was named for `--lora` or `--embedding`.

    Raises:
        ModelError: Missing, a folder, no safetensors, or damaged.
    """
    if path.is_dir():
        raise ModelError(f"{path} is a folder", "name a .safetensors file in it")
    refuse_pickle_name(path)
    header = read_header(path)
    if not header.tensors:
        raise ModelError(f"{path} holds no tensors", SAFETENSORS_ONLY)
    return header


def _base(header: Header) -> str:
    """What the metadata says, else what the width of the text embeddings tells."""
    for key in BASE_KEYS:
        if header.metadata.get(key):
            return header.metadata[key][:100]
    if any(
        key.startswith(("transformer.", "lora_transformer", "diffusion_model.")) for key in header.tensors
    ):
        return "a transformer such as Flux or Stable Diffusion 3"
    widths = {
        shape[1]
        for key, (_, shape) in header.tensors.items()
        if READS_TEXT.search(key) and ("down" in key or "lora_A" in key) and len(shape) == 2
    }
    width = next(iter(widths)) if len(widths) == 1 else 0
    return TEXT_WIDTHS.get(width, f"text embeddings of width {width}" if width else "")
