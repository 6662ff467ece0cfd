"""What is in a Diffusers model folder, checked before anything of it is loaded."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from t2i.catalog import Defaults
from t2i.errors import ModelError
from t2i.weights.safety import (
    SAFETENSORS_ONLY,
    Header,
    check_file_name,
    check_sizes,
    read_config,
    read_header,
    refuse_python_files,
)
from t2i.weights.tokenizers import check_tokenizer

PIPELINES = {"StableDiffusionPipeline": 1, "StableDiffusionXLPipeline": 2}
"""Pipeline class → number of text encoders."""

CLASSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "vae": ("diffusers", ("AutoencoderKL",)),
    "text_encoder": ("transformers", ("CLIPTextModel",)),
    "text_encoder_2": ("transformers", ("CLIPTextModelWithProjection",)),
    "tokenizer": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
    "tokenizer_2": ("transformers", ("CLIPTokenizer", "CLIPTokenizerFast")),
}
NEVER_LOADED: dict[str, tuple[tuple[str, str], ...]] = {
    "safety_checker": (("stable_diffusion", "StableDiffusionSafetyChecker"),),
    "feature_extractor": (("transformers", "CLIPImageProcessor"), ("transformers", "CLIPFeatureExtractor")),
    "image_encoder": (("transformers", "CLIPVisionModelWithProjection"),),
}
WEIGHT_NAMES = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
FAMILY_NAMES = ("sd1", "sd2", "sdxl", "pocket")


@dataclass(frozen=True)
class Weights:
    """The weight files of one network: whole, or in shards with their index."""

    files: tuple[Path, ...]
    index: Path | None
    variant: str | None
    tensors: dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Layout:
    """A checked model folder.

    Attributes:
        folder: The folder.
        pipeline: Class name of `model_index.json`.
        index: Contents of `model_index.json`.
        configs: Network or "scheduler" → its config.
        weights: Network → its files.
        settings: Contents of `t2i.json`, empty if there is none.
    """

    folder: Path
    pipeline: str
    index: dict[str, Any]
    configs: dict[str, dict[str, Any]]
    weights: dict[str, Weights]
    settings: dict[str, Any]

    @property
    def networks(self) -> list[str]:
        """Networks of this model, in loading order."""
        return [name for name in NETWORKS if name in self.configs]


def read_layout(folder: Path) -> Layout:
    """Check a Diffusers folder: no code, no pickles, known classes, whole files.

    Raises:
        ModelError: Anything else; one line that names the file and the reason.
    """
    index_path = folder / "model_index.json"
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ModelError(f"{folder}: no permission to read it")
    if not index_path.exists():
        singles = sorted(folder.glob("*.safetensors"))
        hint = f"did you mean the file {singles[0]}?" if singles else "it needs a model_index.json"
        if (folder / "model" / "model_index.json").exists():  # as training leaves it
            hint = f"did you mean {folder / 'model'}?"
        raise ModelError(f"{folder} is not a Diffusers model folder", hint)
    refuse_python_files(folder)
    index = read_config(index_path)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        raise ModelError("model_index.json asks for a pipeline that is code", "t2i runs no code from a model")
    if pipeline not in PIPELINES:
        raise ModelError(
            f"{folder} is a {pipeline[:80]}, which this version does not run",
            "it runs Stable Diffusion 1, 2 and XL, and pocket",
        )
    _check_components(index)
    configs = {"scheduler": read_config(folder / "scheduler" / "scheduler_config.json")}
    weights = {}
    for name in NETWORKS[: 2 + PIPELINES[pipeline]]:
        configs[name], weights[name] = read_network(folder, name)
        if name.startswith("text_encoder"):
            check_tokenizer(folder / name.replace("text_encoder", "tokenizer"))
    check_unet(configs["unet"], configs["vae"])
    return Layout(folder, pipeline, index, configs, weights, _settings(folder / "t2i.json"))


def read_network(folder: Path, name: str) -> tuple[dict[str, Any], Weights]:
    """Config and weight files of one network of a model folder, checked."""
    path = folder / name / "config.json"
    config = read_config(path)
    _check_class(name, config)
    weights = find_weights(folder / name, WEIGHT_NAMES.get(name, "model"))
    check_sizes(path, config, len(weights.tensors))
    return config, weights


def check_unet(unet: dict[str, Any], vae: dict[str, Any]) -> None:
    """Refuse UNets that expect more than latents, time and text, such as inpainting ones."""
    channels = vae.get("latent_channels", 4)
    if unet.get("in_channels", 4) != channels or unet.get("out_channels", 4) != channels:
        raise ModelError(
            f"the UNet takes {unet.get('in_channels')} channels and the autoencoder makes {channels}:"
            " not a plain text-to-image model",
            "inpainting and upscaling models cannot draw from text alone",
        )
    if unet.get("time_cond_proj_dim") is not None:
        raise ModelError("the UNet wants the guidance scale as an input, which this version does not give")
    if unet.get("class_embed_type") is not None or unet.get("num_class_embeds") is not None:
        raise ModelError("the UNet wants class labels, which this version does not give")
    if unet.get("addition_embed_type") not in (None, "text_time"):
        raise ModelError(
            f"the UNet wants {unet['addition_embed_type']!r} inputs, which this version does not give"
        )


def find_weights(folder: Path, base: str) -> Weights:
    """The safetensors files of one network, fp16 ones if there are no others, all checked by content.

    Raises:
        ModelError: None there, pickles only, a shard missing, or an index that names something else.
    """
    for variant in (None, "fp16"):
        middle = f".{variant}" if variant else ""
        single = folder / f"{base}{middle}.safetensors"
        if single.exists():
            return Weights((single,), None, variant, read_header(single).tensors)
        index = folder / f"{base}.safetensors.index{middle}.json"
        if index.exists():
            return _sharded(folder, index, variant)
    if any(folder.glob("*.bin")) or any(folder.glob("*.ckpt")) or any(folder.glob("*.pt")):
        raise ModelError(f"{folder} has its weights as pickled data only", SAFETENSORS_ONLY)
    raise ModelError(f"{folder} has no weights ({base}.safetensors)", "the download may be incomplete")


def family_of(pipeline: str, unet: dict[str, Any]) -> str:
    """Family of a folder that does not name it itself."""
    if pipeline == "StableDiffusionXLPipeline":
        return "sdxl"
    return "sd2" if unet.get("use_linear_projection") else "sd1"


def own_defaults(
    settings: dict[str, Any], unet: dict[str, Any], vae: dict[str, Any], base: Defaults
) -> Defaults:
    """Defaults of a model outside the catalog: its `t2i.json`, else the size its UNet was made for."""
    factor = 2 ** (len(vae.get("block_out_channels", (0,) * 4)) - 1)
    sample = unet.get("sample_size")
    height, width = (sample, sample) if isinstance(sample, int) else sample if sample else (None, None)
    values = {
        "steps": base.steps,
        "guidance_scale": base.guidance_scale,
        "scheduler": base.scheduler,
        "width": width * factor if width else base.width,
        "height": height * factor if height else base.height,
    }
    names = {item.name for item in fields(Defaults)}
    return Defaults(**{**values, **{key: value for key, value in settings.items() if key in names}})


def _settings(path: Path) -> dict[str, Any]:
    """`t2i.json`, checked; {} if there is none."""
    if not path.exists():
        return {}
    values = read_config(path)

    def number(low: float, high: float, value: Any, kind: type = int) -> bool:
        known = type(value) in (int, kind)  # bool is not a number here
        return known and bool(low <= value <= high)

    checks = {
        "steps": lambda value: number(1, 1000, value),
        "guidance_scale": lambda value: number(1, 100, value, float),
        "scheduler": lambda value: value is None or (isinstance(value, str) and len(value) < 100),
        "width": lambda value: number(8, 8192, value) and value % 8 == 0,
        "height": lambda value: number(8, 8192, value) and value % 8 == 0,
        "family": lambda value: value in FAMILY_NAMES,
    }
    for key, fits in checks.items():
        if key in values and not fits(values[key]):
            raise ModelError(f"t2i.json: {key} = {str(values[key])[:80]!r} cannot be used")
    return values


def _check_components(index: dict[str, Any]) -> None:
    """Every component that `model_index.json` names must be of a class that t2i knows."""
    for name, entry in index.items():
        if not isinstance(entry, (list, dict)):
            continue
        pair = tuple(entry) if isinstance(entry, list) else ()
        if pair == (None, None):
            continue
        shown = ".".join(str(part)[:60] for part in pair) or "something else"
        if len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise ModelError(f"model_index.json: {name[:60]!r} is not a [library, class] pair")
        if name == "scheduler":
            fits = pair[0] == "diffusers" and re.fullmatch(r"[A-Za-z0-9]{1,60}Scheduler", pair[1]) is not None
        elif name in NEVER_LOADED:
            fits = pair in NEVER_LOADED[name]
        else:
            library, classes = CLASSES.get(name, ("", ()))
            fits = pair[0] == library and pair[1] in classes
        if not fits:
            raise ModelError(f"model_index.json asks for {shown} as {name[:60]!r}, which t2i does not load")


def _check_class(name: str, config: dict[str, Any]) -> None:
    library, classes = CLASSES[name]
    if library == "diffusers":
        given = config.get("_class_name", classes[0])
    else:
        architectures = config.get("architectures") or [classes[0]]
        # Some published XL folders call their first encoder by the second's class; keys are checked later.
        given = architectures[0] if isinstance(architectures, list) else architectures
        classes = ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPModel")
        if config.get("model_type", "clip_text_model") not in ("clip_text_model", "clip"):
            raise ModelError(f"{name}/config.json: model_type {str(config['model_type'])[:60]!r} is not CLIP")
    if given not in classes:
        raise ModelError(f"{name}/config.json asks for {str(given)[:80]!r}, which t2i does not load")


def _sharded(folder: Path, index: Path, variant: str | None) -> Weights:
    values = read_config(index)
    places = values.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{index} has no weight map")
    names = sorted({check_file_name(name, ".safetensors", str(index)) for name in places.values()})
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in names:
        if not (folder / name).exists():
            raise ModelError(f"{folder} lacks the shard {name}", "the download may be incomplete")
        header: Header = read_header(folder / name)
        tensors |= header.tensors
    lost = sorted(set(places) - set(tensors))
    if lost:
        raise ModelError(f"{folder}: no shard holds {lost[0]!r}")
    return Weights(tuple(folder / name for name in names), index, variant, tensors)
