"""A ControlNet beside a loaded model, and away again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from t2i.config.controls import check_control_shape
from t2i.dataset.decoding import decode
from t2i.edges import edges
from t2i.errors import OutOfMemory
from t2i.families.control import Control
from t2i.memory import is_out_of_memory
from t2i.weights.controlnet_files import ControlUse, check_fits
from t2i.weights.loading import load_network

if TYPE_CHECKING:
    from t2i.weights.loading import LoadedModel


def use_control(model: LoadedModel, use: ControlUse | None, tell: Callable[[str], None]) -> None:
    """Make a model follow exactly this picture, or none; see `t2i.weights.adapters.use_adapters`.

    The ControlNet stays in memory until another takes its place, so that pictures with and without it may
    take turns.

    Raises:
        ModelError: It is for another kind of model.
        OutOfMemory: There is no room for it.
    """
    if use is None:
        model.family.control = None
        return
    check_fits(use.folder, model.unet.config, model.vae.config, model.id)
    state = model.adapted
    if state.controlnet is None or state.controlnet[0] != use.network_hashes:
        model.family.control = state.controlnet = None  # two at once may not fit into memory
        state.controlnet = use.network_hashes, _load(model, use)
        tell(use.line())
    model.family.control = Control(state.controlnet[1], _picture_of(use), use.scale)


def _load(model: LoadedModel, use: ControlUse) -> Any:
    """The network, where and in the format that the UNet is in."""
    try:
        network = load_network(use.folder.path, "controlnet", use.folder.weights, model.unet.dtype)
        network.eval().requires_grad_(False).to(model.unet.device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"{use.folder.path} does not fit into memory beside {model.id}", "try --dtype fp16 or bf16"
        ) from error
    if model.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last):
        network.to(memory_format=torch.channels_last)
    network.set_attn_processor(next(iter(model.unet.attn_processors.values())))
    return network


def _picture_of(use: ControlUse) -> Callable[[int, int], Tensor]:
    """(width, height) → the control picture at that size, (1, 3, height, width), 0…1, fp32, on the CPU."""

    def fitted(width: int, height: int) -> Tensor:
        check_control_shape(use.image.name, use.size, width, height)
        pixels = decode(use.image, width, height)
        if use.kind == "edges":
            pixels = edges(pixels)
        return torch.from_numpy(np.ascontiguousarray(pixels)[None]).float() / 255

    return fitted
