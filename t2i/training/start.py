"""What a stage starts from: parts of a model, a checkpoint; refused at once where it cannot be had."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from t2i import checkpoints, weights
from t2i.catalog import DEFAULT_MODEL
from t2i.config import TrainConfig
from t2i.config.train import OWN_PARTS
from t2i.config.train_methods import SNR_GAMMA
from t2i.devices import EXACT_FAMILIES, pick_device
from t2i.errors import ModelError
from t2i.methods import METHODS
from t2i.methods.lora import add_adapter
from t2i.schedulers import is_flow
from t2i.training.folder import CHECKPOINTS, PARTS, stages_of
from t2i.training.resuming import check_resumable
from t2i.weights.clip_model import load_clip
from t2i.weights.safety import read_config

SMALL_BATCH = 8  # pictures per step on pocket; large models take one


def settled(config: TrainConfig) -> TrainConfig:
    """The config with what its base model says where nothing was given: size, guidance, batch, rate, steps.

    Raises:
        ModelError: There is no such model, or it cannot be used.
    """
    if config.method in OWN_PARTS:
        return config
    source = base_of(config)
    defaults, small = source.defaults, source.family in EXACT_FAMILIES
    method = METHODS[config.method]
    rate = method.pocket_learning_rate if small else method.default_learning_rate
    found = {
        "resolution": min(defaults.width, defaults.height),
        "batch_size": SMALL_BATCH if small else 1,
        "learning_rate": rate,
        "guidance_scale": defaults.guidance_scale,
        "sampling_steps": defaults.steps,
        "max_train_steps": method.pocket_steps if small and config.epochs is None else None,
        "snr_gamma": 0.0 if is_flow(source.inspection.scheduler_config) else SNR_GAMMA,
    }
    uses = {name: described.only for name, described in config.options().items()}
    wanted = [name for name in found if not uses[name] or config.method in uses[name]]
    return config.replace(**{name: found[name] for name in wanted if getattr(config, name) is None})


def base_of(config: TrainConfig) -> weights.ModelSource:
    """The base model of a run, checked.

    Raises:
        ModelError: There is no such model, or it cannot be used.
    """
    source = weights.fetch_model(weights.resolve_model(config.model or DEFAULT_MODEL, config.offline))
    _ = source.inspection
    return source


def base_key(source: weights.ModelSource) -> str:
    """Changes with any file that a base model is loaded from, hexadecimal."""
    digests = weights.hash_files(source.files)
    told = "".join(f"{name} {digests[name]}\n" for name in sorted(digests))
    return hashlib.sha256(told.encode()).hexdigest()


def check_start(config: TrainConfig) -> None:
    """Refuse a run whose model or checkpoint is missing or does not fit, before the dataset is decoded.

    Raises:
        ModelError: Then. Shapes that do not fit show only when the parts are loaded.
    """
    if config.method not in OWN_PARTS:
        configs = getattr(base_of(config).inspection.contents, "configs", {})  # of a single file: SD's own
        _check_factor(config, configs.get("vae", {}))
        _check_targets(config, configs["unet"])
        _check_checkpoint(config, config.method)
        return
    there = set() if config.model is None else _parts_of_use(Path(config.model), stages_of(config))
    if "vae" in there and config.method in ("scratch", "vae") and not config.grow_vae:
        _check_factor(config, read_config(Path(str(config.model)) / "vae" / "config.json"))
    if config.method == "scratch":
        return  # each stage builds on those before it
    builds_on, own = METHODS[config.method].builds_on, Path(config.output) / PARTS
    if config.model is None and builds_on and own.is_dir():
        there = weights.find_parts(own)
    for name in builds_on:
        if name not in there:
            raise ModelError(
                f"--method {config.method} needs a trained {name}, and {config.model or own} has none",
                "train it first (--method vae, --method clip) or use --method scratch",
            )
    if "vae" in builds_on:
        _check_factor(config, read_config(Path(config.model or own) / "vae" / "config.json"))
    _check_checkpoint(config, config.method)


def _check_targets(config: TrainConfig, unet: Mapping[str, Any]) -> None:
    """Refuse layers that the UNet has not.

    Raises:
        UsageError: Then.
    """
    if not config.target_modules:
        return
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):  # names alone, no numbers
        network = UNet2DConditionModel.from_config(dict(unet)).requires_grad_(False)
        add_adapter(network, config.target_modules, config)


def _check_factor(config: TrainConfig, vae: Mapping[str, Any]) -> None:
    """Refuse pictures that an autoencoder cannot shrink evenly; without widths there is nothing to check."""
    shrink = 2 ** max(0, len(vae.get("block_out_channels", ())) - 1)
    if config.resolution % shrink:
        below = config.resolution // shrink * shrink
        near = [str(side) for side in (below, below + shrink) if side >= shrink]
        raise ModelError(
            f"--resolution {config.resolution}: this VAE shrinks pictures by {shrink}",
            f"give a multiple of it, such as {' or '.join(near)}",
        )


def start_parts(config: TrainConfig, stage: str) -> dict[str, Any]:
    """The parts that a stage builds on or begins with: of --model, or those that this run has trained."""
    if stage not in OWN_PARTS:
        source = base_of(config)
        return {"base": weights.load_model(source), "base_key": base_key(source)}
    builds_on = METHODS[stage].builds_on
    seen: dict[str, Any] = {}
    if stage == "vae" and config.perceptual_model is not None:
        device = pick_device(config.device)
        seen["clip model"] = load_clip(config.perceptual_model, "--perceptual-model", device)
    found = {} if config.model is None else weights.load_parts(Path(config.model))
    own = Path(config.output) / PARTS
    if builds_on and own.is_dir() and (config.model is None or config.method == "scratch"):
        found |= weights.load_parts(own, only=builds_on)
    return found | seen


def _check_checkpoint(config: TrainConfig, stage: str) -> None:
    if config.resume is None:
        return
    if config.resume != "latest":
        chosen = Path(config.resume)
        check_resumable(chosen, checkpoints.load_state(chosen), config, stage)
        return
    folder = Path(config.output) / stage / CHECKPOINTS
    if checkpoints.newest_checkpoint(folder)[0] is None:
        raise no_whole_checkpoint(folder)


def no_whole_checkpoint(folder: Path) -> ModelError:
    """The failure of a run that is to be resumed and cannot."""
    return ModelError(f"no whole checkpoint in {folder}", "train anew: --overwrite, no --resume")


def _parts_of_use(model: Path, stages: Sequence[str]) -> set[str]:
    """The parts that a model has; refused if no stage would take any of them."""
    there = weights.find_parts(model)
    methods = [METHODS[stage] for stage in stages]
    wanted = dict.fromkeys(name for method in methods for name in method.builds_on + method.goes_on_with)
    if not there & {*wanted}:
        inner = [model / name for name in ("model", PARTS) if (model / name).is_dir()]
        hint = f"did you mean {inner[0]}?" if inner else "give a model folder, or OUTPUT/parts of a run"
        raise ModelError(f"--model {model} holds no {' or '.join(wanted)}", hint)
    return there
