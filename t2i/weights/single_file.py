"""Single `.safetensors` checkpoints in the original layout of Stable Diffusion 1, 2 and XL.

The file holds weights only; configs and vocabulary come from inside t2i, so nothing is ever looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.catalog import ASSETS
from t2i.environment import no_network, silence_loaded_libraries
from t2i.errors import ModelError
from t2i.weights.safety import Header, read_config, read_header
from t2i.weights.tokenizers import CLIP_MERGES, make_clip_tokenizer

CONFIGS = ASSETS / "configs"
UNET = "model.diffusion_model."
FIRST_CONVOLUTION = UNET + "input_blocks.0.0.weight"
PART_PREFIXES = {
    "autoencoder": ("first_stage_model.", "vae."),
    "text encoder": ("cond_stage_model.", "conditioner.embedders."),
}
OTHER_KINDS = (  # part of a key → what such a file is
    ("lora_", "a LoRA, not a whole model"),
    (".lora_A.", "a LoRA, not a whole model"),
    (".lora_down.", "a LoRA, not a whole model"),
    ("joint_blocks.", "a Stable Diffusion 3 model"),
    ("double_blocks.", "a Flux model"),
    ("control_model.", "a ControlNet, not a whole model"),
    ("input_hint_block.", "a ControlNet, not a whole model"),
    ("string_to_param", "a textual inversion, not a whole model"),
    ("emb_params", "a textual inversion, not a whole model"),
)


def detect_family(header: Header, name: str) -> str:
    """sd1, sd2 or sdxl, from the tensors of the file.

    Raises:
        ModelError: Another kind of model, or a part is missing.
    """
    keys = header.tensors
    if FIRST_CONVOLUTION not in keys:
        for part, kind in OTHER_KINDS:
            if any(part in key for key in keys):
                raise ModelError(f"{name} is {kind}, which this version does not run")
        raise ModelError(
            f"{name} is not a Stable Diffusion 1, 2 or XL checkpoint",
            "give a whole checkpoint in the original layout, or a Diffusers folder",
        )
    channels = keys[FIRST_CONVOLUTION][1][1:2]
    if channels != (4,):
        raise ModelError(f"{name} is an inpainting or editing model, which cannot draw from text alone")
    for part, prefixes in PART_PREFIXES.items():
        if not any(key.startswith(prefixes) for key in keys):
            raise ModelError(f"{name} has no {part}", "only whole checkpoints can be loaded")
    if any(key.startswith("conditioner.embedders.1.model.") for key in keys):
        return "sdxl"
    if any(key.startswith("conditioner.embedders.0.model.") for key in keys):
        raise ModelError(f"{name} is an SDXL refiner, which does not start from text")
    if any(key.startswith("cond_stage_model.model.") for key in keys):
        return "sd2"
    return "sd1"


def scheduler_changes(header: Header, family: str, name: str) -> dict[str, Any]:
    """What the file says about its training that its family's scheduler config does not.

    Some files mark v-prediction and zero terminal SNR by empty tensors, some in their metadata. Stable
    Diffusion 2 was published both ways with the same tensors: a name or resolution that says 512 or
    "base" means epsilon.
    """
    changes: dict[str, Any] = {}
    said = header.metadata.get("modelspec.prediction_type", "").lower()
    if "v_pred" in header.tensors or said.startswith("v"):
        changes["prediction_type"] = "v_prediction"
    elif said.startswith("epsilon"):
        changes["prediction_type"] = "epsilon"
    elif family == "sd2":
        resolution = header.metadata.get("modelspec.resolution", "")
        base = resolution.startswith("512") or "base" in name.lower() or "512" in name
        changes["prediction_type"] = "epsilon" if base else "v_prediction"
    if "ztsnr" in header.tensors:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return changes


@dataclass(frozen=True)
class SingleFile:
    """A checked checkpoint file with the configs that go with it.

    Attributes:
        path: The file.
        folder: Config folder in Diffusers layout, inside t2i.
        family: sd1, sd2 or sdxl.
        configs: "unet" and "vae" → config.
        scheduler_config: The family's, with what the file says about its training.
        settings: What `t2i.json` would say, where the file differs from its family.
        files: Name → every file that loading reads.
    """

    path: Path
    folder: Path
    family: str
    configs: dict[str, dict[str, Any]]
    scheduler_config: dict[str, Any]
    settings: dict[str, Any]
    files: dict[str, Path]


def read_single_file(path: Path, configs: Path | None = None) -> SingleFile:
    """Check one checkpoint file by its header, and find the configs it needs.

    Args:
        path: The file.
        configs: Config folder in Diffusers layout; None = the one of the file's family inside t2i.

    Raises:
        ModelError: Not such a file.
    """
    header = read_header(path)
    family = detect_family(header, str(path))
    folder = configs if configs is not None else CONFIGS / family
    changes = scheduler_changes(header, family, path.name)
    settings = {}
    if family == "sd2" and changes.get("prediction_type") == "epsilon":
        settings = {"width": 512, "height": 512}
    files = {path.name: path, "clip_vocabulary/merges.txt.gz": CLIP_MERGES}
    for item in sorted(folder.rglob("*.json")):
        files[f"configs/{family}/{item.relative_to(folder).as_posix()}"] = item
    scheduler = read_config(folder / "scheduler" / "scheduler_config.json")
    networks = {name: read_config(folder / name / "config.json") for name in ("unet", "vae")}
    return SingleFile(path, folder, family, networks, {**scheduler, **changes}, settings, files)


def load_pipeline(file: SingleFile) -> Any:
    """A Diffusers pipeline with the file's weights, made without asking the network for anything.

    Weights stay in the file's number format: a cast would fail on missing ones before they can be named.
    What is missing is left on the device "meta".

    Raises:
        ModelError: Weights of shapes that do not fit the family.
    """
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    from t2i.memory import is_out_of_memory

    silence_loaded_libraries()
    given: dict[str, Any] = {"feature_extractor": None, "image_encoder": None}
    if file.family != "sdxl":
        given |= {"safety_checker": None, "requires_safety_checker": False}
    for number in ("", "_2") if file.family == "sdxl" else ("",):
        given[f"tokenizer{number}"] = file_tokenizer(file.folder / f"tokenizer{number}")
    kind = StableDiffusionXLPipeline if file.family == "sdxl" else StableDiffusionPipeline
    try:
        with no_network():  # local_files_only alone may still reach for it
            pipeline = kind.from_single_file(
                str(file.path), config=str(file.folder), local_files_only=True, **given
            )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        lost = _missing_keys(file) if "meta tensor" in str(error) else []
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = f"{lost[0]} is missing" if lost else first[:200]
        raise ModelError(f"{file.path} cannot be loaded: {reason}", "the file may be incomplete") from error
    return pipeline


def _missing_keys(file: SingleFile) -> list[str]:
    """Weights of UNet and autoencoder that the file lacks, for the message of a load that failed."""
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.loaders import single_file_utils
    from safetensors.torch import load_file

    checkpoint = load_file(file.path)
    lost = []
    for name, kind, convert in (
        ("unet", UNet2DConditionModel, single_file_utils.convert_ldm_unet_checkpoint),
        ("vae", AutoencoderKL, single_file_utils.convert_ldm_vae_checkpoint),
    ):
        with init_empty_weights():
            wanted = kind.from_config(file.configs[name]).state_dict()
        present = convert(dict(checkpoint), config=file.configs[name])
        lost += [f"{name}: {key}" for key in wanted if key not in present]
    return lost


def file_tokenizer(folder: Path) -> Any:
    """The tokenizer that a config folder describes, with the vocabulary inside t2i."""
    values = read_config(folder / "tokenizer_config.json")
    return make_clip_tokenizer(values["pad_token"], values["model_max_length"])
