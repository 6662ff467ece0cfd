"""A ControlNet's folder and the picture it follows, checked before anything of them is loaded.

The folder is one that Diffusers' `ControlNetModel.save_pretrained` and `t2i train --method controlnet` write.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.config import GenerateConfig
from t2i.config.controls import check_controls
from t2i.errors import ModelError, StorageError, T2IError
from t2i.hashes import hash_files
from t2i.weights.layout import Weights, find_weights
from t2i.weights.places import find_folder
from t2i.weights.safety import check_sizes, read_config, refuse_pickle_name, refuse_python_files

# What must be as in the UNet, with Diffusers' default for configs that do not say.
SHAPES: dict[str, Any] = {
    "in_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1280,
    "addition_embed_type": None,
    "projection_class_embeddings_input_dim": None,
}
EMBEDDING_WIDTHS = (16, 32, 96, 256)  # default of `conditioning_embedding_out_channels`
NOT_GIVEN = (
    "class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type",
    "global_pool_conditions",
)  # fmt: skip


@dataclass(frozen=True)
class ControlNetFolder:
    """A checked ControlNet folder.

    Attributes:
        path: Where it is.
        config: Of the network.
        weights: Its files.
    """

    path: Path
    config: Mapping[str, Any]
    weights: Weights

    @property
    def name(self) -> str:
        """The folder's own name."""
        return os.path.basename(os.path.abspath(self.path))

    @property
    def files(self) -> dict[str, Path]:
        """Name → every file that is read."""
        index = [self.weights.index] if self.weights.index else []
        return {file.name: file for file in (self.path / "config.json", *index, *self.weights.files)}


@dataclass(frozen=True)
class ControlUse:
    """What steers one picture.

    Attributes:
        folder: The ControlNet.
        image: The picture that it follows.
        size: Upright width and height of that, pixels.
        scale: Of what the ControlNet adds.
        kind: What is made of the picture first; None = nothing.
        hashes: SHA-256 of the files in `files`.
    """

    folder: ControlNetFolder
    image: Path
    size: tuple[int, int]
    scale: float
    kind: str | None
    hashes: Mapping[str, str]

    @property
    def shown(self) -> str:
        """ "controlnet edges x0.8"."""
        return f"controlnet {self.folder.name} x{self.scale:g}"

    @property
    def files(self) -> dict[str, Path]:
        """Name → file: "controlnet/config.json", "control image"; no names of this machine's folders."""
        return control_files(self.folder, self.image)

    @property
    def network_hashes(self) -> dict[str, str]:
        """SHA-256 of the files of the ControlNet, by their names in its folder."""
        return {name: self.hashes[f"controlnet/{name}"] for name in self.folder.files}

    def recorded(self) -> dict[str, Any]:
        """What a recipe holds of it."""
        return {
            "controlnet": self.folder.name,
            "files": self.network_hashes,
            "scale": self.scale,
            "image": self.image.name,
            "image_sha256": self.hashes["control image"],
            "image_size": list(self.size),
            "resampling": "lanczos",
            "kind": self.kind,
        }

    def identity(self) -> list[Any]:
        """What tells it from others, by content."""
        return ["controlnet", dict(self.hashes), float(self.scale), self.kind]

    def line(self) -> str:
        """For a person, before anything is loaded."""
        made = f"the {self.kind} of " if self.kind else ""
        return f"{self.shown}: follows {made}{self.image.name} ({self.size[0]}x{self.size[1]})"


def find_control(config: GenerateConfig) -> ControlUse | None:
    """Find and check the ControlNet and the picture of a config. Reads headers, no tensors, no pixels.

    Raises:
        UsageError: One without the other.
        ModelError: There is no such folder, or it is no ControlNet.
        StorageError: There is no such picture.
        DatasetError: It is no picture.
    """
    check_controls(config.controlnet, config.control_image, config.control_scale, config.control_kind)
    if config.controlnet is None or config.control_image is None:
        return None
    folder = inspect_controlnet(find_folder(config.controlnet, "controlnets", "--controlnet"))
    image, size = _measured(config.control_image)
    hashes = hash_files(control_files(folder, image))
    return ControlUse(folder, image, size, config.control_scale, config.control_kind, hashes)


def control_files(folder: ControlNetFolder, image: Path) -> dict[str, Path]:
    """Name → file of everything that is read; see `ControlUse.files`."""
    return {f"controlnet/{name}": file for name, file in folder.files.items()} | {"control image": image}


def inspect_controlnet(path: Path) -> ControlNetFolder:
    """Check a ControlNet's folder: no code, no pickles, the known class, whole files.

    Raises:
        ModelError: Anything else.
    """
    if not path.is_dir():
        refuse_pickle_name(path)
        raise ModelError(f"{path} is a file", "a ControlNet is a folder with config.json and its weights")
    refuse_python_files(path)
    if not (path / "config.json").exists():
        inside = [path / name for name in ("parts/controlnet", "controlnet") if (path / name).is_dir()]
        hint = f"did you mean {inside[0]}?" if inside else "it has no config.json"
        raise ModelError(f"{path} is not the folder of a ControlNet", hint)
    config = read_config(path / "config.json")
    kind = config.get("_class_name")
    if kind != "ControlNetModel":
        raise ModelError(f"{path} holds a {str(kind)[:60]}, not a ControlNet that t2i runs (ControlNetModel)")
    for name in NOT_GIVEN:
        if config.get(name) not in (None, False):
            raise ModelError(f"{path}: {name} = {str(config[name])[:60]!r} asks for what t2i does not do")
    weights = find_weights(path, "diffusion_pytorch_model")
    check_sizes(path / "config.json", config, len(weights.tensors))
    return ControlNetFolder(path, config, weights)


def check_fits(folder: ControlNetFolder, unet: Mapping[str, Any], vae: Mapping[str, Any], model: str) -> None:
    """Refuse a ControlNet of another kind of model, by the configs.

    Args:
        folder: The ControlNet.
        unet: Config of the model's UNet.
        vae: Config of its autoencoder.
        model: Its name, for the message.

    Raises:
        ModelError: Naming what differs.
    """
    hint = "a ControlNet works only with the kind of model that it was trained on"
    for name, usual in SHAPES.items():
        own, needed = (_plain(config.get(name, usual)) for config in (folder.config, unet))
        if own != needed:
            raise ModelError(f"{folder.path}: its {name} is {str(own)[:60]}, that of {model} {needed}", hint)
    widths = folder.config.get("conditioning_embedding_out_channels", EMBEDDING_WIDTHS)
    levels = len(vae.get("block_out_channels", EMBEDDING_WIDTHS))
    if not isinstance(widths, (list, tuple)) or len(widths) != levels:
        raise ModelError(
            f"{folder.path}: it does not shrink its picture by {2 ** (levels - 1)}, as {model} does", hint
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _measured(text: str) -> tuple[Path, tuple[int, int]]:
    """The control picture of an option, and its upright size."""
    from t2i.dataset.decoding import measure

    path = Path(text).expanduser()
    try:
        if not path.exists():
            raise StorageError(f"--control-image {text}: there is no such picture")
        return path, measure(path)
    except (OSError, ValueError) as error:  # a name too long for the system
        raise StorageError(f"--control-image {text[:80]}: there is no such picture") from error
    except T2IError as error:
        raise error.named("--control-image") from error
