"""Checked model files → networks in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i.catalog import Defaults
from t2i.environment import silence_loaded_libraries
from t2i.errors import ModelError, OutOfMemory
from t2i.weights.layout import Layout, Weights, own_defaults
from t2i.weights.safety import parse_json, regular_file_size
from t2i.weights.single_file import SingleFile, file_tokenizer, load_pipeline
from t2i.weights.sources import ModelSource
from t2i.weights.tokenizers import load_tokenizer

if TYPE_CHECKING:
    import torch

    from t2i.families import Family, Parts


@dataclass
class Adapted:
    """What `t2i.weights.adapters` has put into a model, so that it can be taken out again.

    Attributes:
        loras: SHA-256 of each LoRA in the networks → its name there.
        scales: SHA-256 → scale in use.
        refused: SHA-256 → why that LoRA does not fit, so that nobody tries it for every picture.
        tokens: SHA-256 of each textual inversion in use.
        own: The parts of the family without textual inversions, while there are some.
        controlnet: SHA-256 of the files of the ControlNet that is in memory, and the network.
    """

    loras: dict[str, str] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    refused: dict[str, ModelError] = field(default_factory=dict)
    tokens: tuple[str, ...] = ()
    own: Parts | None = None
    controlnet: tuple[dict[str, str], Any] | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        family: How its prompts are encoded and its UNet is called; holds encoders and tokenizers.
        unet: UNet2DConditionModel.
        vae: AutoencoderKL.
        scheduler_config: The checkpoint's own scheduler config.
        id: What recipes call it; never a path of this machine.
        files: Name → every file that was read: weights, configs, tokenizer.
        defaults: What is used when the person says nothing.
        adapted: The LoRAs, textual inversions and ControlNet that it carries now.
    """

    family: Family
    unet: Any
    vae: Any
    scheduler_config: dict[str, Any]
    id: str
    files: Mapping[str, Path]
    defaults: Defaults
    adapted: Adapted = field(default_factory=Adapted, compare=False, repr=False)

    @property
    def denoising(self) -> tuple[Any, ...]:
        """The networks that run in each step."""
        beside = self.adapted.controlnet
        return (self.unet,) if beside is None else (self.unet, beside[1])


def load_model(
    source: ModelSource, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> LoadedModel:
    """Load a model, downloading it first if it is on the Hub.

    Args:
        source: From `resolve_model`.
        device: Where its networks go.
        dtype: Number format of the weights; None = fp32.

    Raises:
        ModelError: Missing, unsafe, damaged, incomplete, or of a kind that this version does not run.
        OutOfMemory: It does not fit.
    """
    import torch

    from t2i.memory import is_out_of_memory

    inspection = source.inspection
    number_format = dtype if dtype is not None else torch.float32
    try:
        with source.named_in_errors():
            if isinstance(inspection.contents, SingleFile):
                vae, parts = _single_file_parts(inspection.contents, number_format)
            else:
                vae, parts = _folder_parts(inspection.contents, number_format)
        for network in (parts.unet, vae, *parts.text_encoders):
            network.eval().requires_grad_(False).to(device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(f"{source.shown} does not fit into memory", "try --dtype fp16 or bf16") from error
    return _loaded(
        inspection.family, parts, vae, inspection.scheduler_config, inspection.id, inspection.files,
        inspection.defaults,
    )  # fmt: skip


def load_vocabulary(source: ModelSource) -> tuple[Any, tuple[str, ...]]:
    """The first tokenizer of a model and the words seen in its training, without its networks.

    Raises:
        ModelError: As `load_model`.
    """
    contents = source.inspection.contents
    if isinstance(contents, SingleFile):
        return file_tokenizer(contents.folder / "tokenizer"), ()
    places = contents.configs["text_encoder"].get("max_position_embeddings", 77)  # as CLIPTextConfig has it
    if not isinstance(places, int):
        config = contents.folder / "text_encoder" / "config.json"
        raise ModelError(f"{config}: max_position_embeddings = {str(places)[:80]!r}")
    with source.named_in_errors():
        tokenizer, _ = load_tokenizer(contents.folder / "tokenizer", places)
        return tokenizer, _known_words(contents.folder)


def assemble(
    family: str,
    unet: Any,
    vae: Any,
    text_encoders: Iterable[Any],
    tokenizers: Iterable[Any],
    scheduler_config: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    known_words: Iterable[str] = (),
    id: str = "in-memory",
) -> LoadedModel:
    """A LoadedModel out of networks that are in memory already (training shows samples this way).

    The networks stay as they are: device, number format, attention, gradients, mode.

    Args:
        family: Row of `t2i.families.FAMILIES`.
        unet: UNet2DConditionModel.
        vae: AutoencoderKL.
        text_encoders: As many as the family has.
        tokenizers: One an encoder.
        scheduler_config: Diffusers scheduler config, with `_class_name`.
        settings: What `t2i.json` would hold.
        known_words: Words seen in training.
        id: What recipes call the model.
    """
    from t2i.families import FAMILIES, Parts

    zeros = family == "sdxl"
    parts = Parts(unet, tuple(text_encoders), tuple(tokenizers), tuple(known_words), zeros)
    base = FAMILIES[family].defaults
    defaults = own_defaults(dict(settings or {}), dict(unet.config), dict(vae.config), base)
    return _loaded(family, parts, vae, scheduler_config, id, {}, defaults)


def match_marks(encoder: Any, tokenizer: Any) -> None:
    """Give a text encoder the end mark of the vocabulary in use.

    Its pooled output is read at the end mark. Old configs say 2, which means "the largest id of the
    prompt": right for CLIP's own vocabulary by luck, wrong for others.
    """
    if len(tokenizer) > encoder.config.vocab_size:
        raise ModelError(
            f"the tokenizer has {len(tokenizer)} tokens and its text encoder {encoder.config.vocab_size}"
        )
    inner = getattr(encoder, "text_model", encoder)
    inner.eos_token_id = tokenizer.eos_token_id


def report_keys(network: str, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Turn weights that do not fit the config into one line.

    Raises:
        ModelError: A key is missing, which would leave random numbers, or is not expected.
    """
    lost = sorted(missing)
    extra = sorted(key for key in unexpected if not key.endswith("position_ids"))
    for kind, keys in (("lacks", lost), ("has unexpected", extra)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise ModelError(
                f"{network} {kind} weights: {', '.join(keys[:3])}{more}",
                "the file and the config belong to different models, or the file is incomplete",
            )


def _loaded(
    family: str,
    parts: Parts,
    vae: Any,
    scheduler_config: Mapping[str, Any],
    id: str,
    files: Mapping[str, Path],
    defaults: Defaults,
) -> LoadedModel:
    from t2i.families import FAMILIES

    kind = FAMILIES[family]
    return LoadedModel(kind(parts), parts.unet, vae, dict(scheduler_config), id, dict(files), defaults)


def _folder_parts(layout: Layout, dtype: torch.dtype) -> tuple[Any, Parts]:
    """Autoencoder, and the rest."""
    from t2i.families import Parts

    networks = {
        name: load_network(layout.folder / name, name, layout.weights[name], dtype)
        for name in layout.networks
    }
    encoders = tuple(networks[name] for name in ("text_encoder", "text_encoder_2") if name in networks)
    tokenizers = []
    for name, encoder in zip(("tokenizer", "tokenizer_2"), encoders, strict=False):
        tokenizer, _ = load_tokenizer(layout.folder / name, encoder.config.max_position_embeddings)
        match_marks(encoder, tokenizer)
        tokenizers.append(tokenizer)
    known_words = _known_words(layout.folder)
    zeros = bool(layout.index.get("force_zeros_for_empty_prompt", "text_encoder_2" in networks))
    return networks["vae"], Parts(networks["unet"], encoders, tuple(tokenizers), known_words, zeros)


def _single_file_parts(file: SingleFile, dtype: torch.dtype) -> tuple[Any, Parts]:
    """Autoencoder, and the rest."""
    from t2i.families import Parts

    pipeline = load_pipeline(file)
    numbers = ("", "_2") if file.family == "sdxl" else ("",)
    encoders = tuple(getattr(pipeline, f"text_encoder{number}") for number in numbers)
    tokenizers = tuple(getattr(pipeline, f"tokenizer{number}") for number in numbers)
    names = ("unet", "vae", "text_encoder", "text_encoder_2")
    for name, network in zip(names, (pipeline.unet, pipeline.vae, *encoders), strict=False):
        empty = [key for key, value in network.state_dict().items() if value.is_meta]
        report_keys(f"{file.path}: {name}", empty, ())
        network.to(dtype)
    for encoder, tokenizer in zip(encoders, tokenizers, strict=True):
        match_marks(encoder, tokenizer)
    return pipeline.vae, Parts(pipeline.unet, encoders, tokenizers, (), file.family == "sdxl")


def load_network(folder: Path, name: str, weights: Weights, dtype: torch.dtype) -> Any:
    """One network by its fixed class; the class named in the folder was checked and is not used.

    Args:
        folder: Its own.
        name: "unet", "vae", "text_encoder", "text_encoder_2" or "controlnet".
        weights: Its files, checked.
        dtype: Number format.

    Raises:
        ModelError: Weights and config do not fit together.
    """
    import diffusers
    import transformers

    from t2i.memory import is_out_of_memory

    silence_loaded_libraries()
    kind = {
        "unet": diffusers.UNet2DConditionModel,
        "vae": diffusers.AutoencoderKL,
        "text_encoder": transformers.CLIPTextModel,
        "text_encoder_2": transformers.CLIPTextModelWithProjection,
        "controlnet": diffusers.ControlNetModel,
    }[name]
    options: dict[str, Any] = {"attn_implementation": "sdpa"} if name.startswith("text_encoder") else {}
    try:
        network, report = kind.from_pretrained(
            str(folder), dtype=dtype, variant=weights.variant, use_safetensors=True,
            local_files_only=True, output_loading_info=True, **options,
        )  # fmt: skip
    except Exception as error:
        if is_out_of_memory(error):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{name} cannot be loaded: {first[:200]}", "its weights and its config do not fit together"
        ) from error
    if report.get("mismatched_keys"):
        raise ModelError(
            f"{name} has weights of another shape: {sorted(map(str, report['mismatched_keys']))[0]}"
        )
    report_keys(name, report["missing_keys"], report["unexpected_keys"])
    return network


def _known_words(folder: Path) -> tuple[str, ...]:
    """The words seen in training; none if the model keeps no list."""
    path = folder / "tokenizer" / "words.json"
    if not path.exists():
        return ()
    regular_file_size(path)
    words = parse_json(b'{"words": ' + path.read_bytes() + b"}", path)["words"]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ModelError("tokenizer/words.json is not a list of words")
    return tuple(words)
