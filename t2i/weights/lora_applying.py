"""LoRAs in a loaded model: layers of PEFT around the modules that a file names, and away again.

The model's own weights are never changed. Each LoRA is an adapter of its own, whose scale can be set again
without touching anything else. Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from t2i.errors import ModelError
from t2i.weights.adapters import LoraUse
from t2i.weights.lora_files import LoraFile
from t2i.weights.lora_reading import LoraLayer, read_lora
from t2i.weights.lora_saving import TEXT_PREFIX

if TYPE_CHECKING:
    from t2i.weights.loading import LoadedModel


def use_loras(model: LoadedModel, uses: Sequence[LoraUse], tell: Callable[[str], None]) -> None:
    """Make a model carry exactly these LoRAs; see `t2i.weights.adapters.use_adapters`.

    Raises:
        ModelError: A LoRA does not fit the model.
    """
    state = model.adapted
    if list(state.loras) != [use.sha256 for use in uses]:
        refused = next((state.refused[use.sha256] for use in uses if use.sha256 in state.refused), None)
        if refused is not None:
            raise refused
        remove_loras(model)
        try:
            for use in uses:
                tell(_add(model, use))
        except BaseException:
            remove_loras(model)
            raise
    scales = {use.sha256: use.scale for use in uses}
    if scales != state.scales:
        _set_scales(model, scales)


def remove_loras(model: LoadedModel) -> None:
    """Take all LoRAs out again; the modules are then the very objects that they were."""
    from diffusers.utils.peft_utils import recurse_remove_peft_layers

    for network in _networks(model).values():
        if model.adapted.loras and hasattr(network, "peft_config"):
            recurse_remove_peft_layers(network)
            del network.peft_config
    model.adapted.loras.clear()
    model.adapted.scales.clear()


def _networks(model: LoadedModel) -> dict[str, Any]:
    encoders = zip(("text_encoder", "text_encoder_2"), model.family.parts.text_encoders, strict=False)
    return {"unet": model.unet, **dict(encoders)}


def _add(model: LoadedModel, use: LoraUse) -> str:
    """Add one LoRA, and say so in a line."""
    networks = _networks(model)
    if not model.adapted.loras and any(hasattr(network, "peft_config") for network in networks.values()):
        raise ValueError("the model carries adapters that t2i did not put there")
    try:
        layers, left = read_lora(use.file, model.unet.config)
        modules = {part: dict(network.named_modules()) for part, network in networks.items()}
        placed: dict[str, dict[str, LoraLayer]] = {}
        strangers = list(left)
        for layer in layers:
            name = _find_module(layer, modules.get(layer.part, {}))
            if name is None:
                strangers.append(layer.keys[0])
                continue
            _check_shapes(use.file, layer, modules[layer.part][name], model.id)
            placed.setdefault(layer.part, {})[name] = layer
        if not placed:
            raise ModelError(
                _no_match(use.file, strangers, model), "use it with the kind of model it was made for"
            )
    except ModelError as error:
        model.adapted.refused[use.sha256] = error
        raise
    adapter = f"lora{len(model.adapted.loras)}"
    model.adapted.loras[use.sha256] = adapter  # from here on it can be removed
    for part, found in placed.items():
        _inject(networks[part], adapter, found)
    fitting, every = sum(map(len, placed.values())), len(layers) + len(left)
    line = f"{use.shown}: {fitting} of {every} layers"
    return line + (f"; {model.id} has no place for the others, as {strangers[0]}" if strangers else "")


def _find_module(layer: LoraLayer, modules: Mapping[str, Any]) -> str | None:
    """The name of a layer's module in this network: CLIP encoders have `text_model.` in it, or not."""
    bare = layer.module.removeprefix(TEXT_PREFIX)
    for name in (layer.module, bare, TEXT_PREFIX + bare):
        module = modules.get(name)
        if isinstance(getattr(module, "base_layer", module), (nn.Linear, nn.Conv2d)):
            return name
    return None


def _check_shapes(file: LoraFile, layer: LoraLayer, module: Any, model: str) -> None:
    """Refuse factors that do not fit their module.

    Raises:
        ModelError: Naming key and shapes.
    """
    weight = getattr(module, "base_layer", module).weight
    out, inner = weight.shape[:2]
    ones = (1,) * (weight.ndim - 2)
    wanted = (layer.rank, inner, *weight.shape[2:]), (out, layer.rank, *ones)
    for key, value, shape in zip(layer.keys, (layer.down, layer.up), wanted, strict=True):
        if tuple(value.shape) != shape:
            raise ModelError(
                f"{file.path}: {key} has the shape {list(value.shape)}, {model} needs {list(shape)}",
                "it was made for another kind of model" + (f": {file.base}" if file.base else ""),
            )


def _no_match(file: LoraFile, strangers: Sequence[str], model: LoadedModel) -> str:
    made_for = f"it was made for {file.base}" if file.base else f"it has layers such as {strangers[0][:100]}"
    kind = f"{model.id}, a model of the family {model.family.name}"
    return f"{file.path}: none of its {len(strangers)} layers is one of {kind}; {made_for}"


def _inject(network: Any, adapter: str, layers: Mapping[str, LoraLayer]) -> None:
    """Wrap modules in PEFT's layers, and give these the tensors of the file."""
    from peft import LoraConfig, inject_adapter_in_model

    rank = Counter(layer.rank for layer in layers.values()).most_common(1)[0][0]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern={f"^{name}": layer.rank for name, layer in layers.items() if layer.rank != rank},
        target_modules=list(layers),
        use_dora=any(layer.magnitude is not None for layer in layers.values()),
        lora_bias=any(layer.bias is not None for layer in layers.values()),
        inference_mode=True,
    )
    keys = {f"{name}.lora_A.weight": layer.down for name, layer in layers.items()}
    # On "meta" PEFT draws no random numbers, which are a training's, and fills nothing that is replaced here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there are several adapters
        inject_adapter_in_model(config, network, adapter, low_cpu_mem_usage=True, state_dict=keys)
    modules = dict(network.named_modules())
    for name, layer in layers.items():
        _fill(modules[name], adapter, layer)
    network.eval()


def _fill(module: Any, adapter: str, layer: LoraLayer) -> None:
    base = module.get_base_layer().weight

    def parameter(value: Tensor) -> nn.Parameter:
        return nn.Parameter(value.to(base.device, base.dtype), requires_grad=False)

    module.lora_A[adapter].weight = parameter(layer.down)
    module.lora_B[adapter].weight = parameter(layer.up)
    if module.lora_B[adapter].bias is not None:
        bias = layer.bias if layer.bias is not None else torch.zeros(layer.up.shape[0])
        module.lora_B[adapter].bias = parameter(bias)
    magnitudes = module.lora_magnitude_vector
    if layer.magnitude is not None:
        shape = (1, -1, *(1,) * (base.ndim - 2)) if base.ndim > 2 else (-1,)
        magnitudes[adapter].weight = parameter(layer.magnitude.reshape(shape))
    elif adapter in magnitudes:  # a plain layer among those of a DoRA
        del magnitudes[adapter]
        module.lora_variant.pop(adapter)
    module.scaling[adapter] = layer.scale
    module.lora_scale_of_file = {**getattr(module, "lora_scale_of_file", {}), adapter: layer.scale}


def _set_scales(model: LoadedModel, scales: Mapping[str, float]) -> None:
    """Set how strong each LoRA is; one of scale 0 computes nothing."""
    state = model.adapted
    named = {state.loras[sha]: scale for sha, scale in scales.items()}
    active = [adapter for adapter, scale in named.items() if scale != 0]
    for network in _networks(model).values():
        for module in network.modules():
            own = getattr(module, "lora_scale_of_file", None)
            if own is None:
                continue
            module.set_adapter(active, inference_mode=True)
            for adapter, scale in own.items():
                module.scaling[adapter] = scale * named[adapter]
    state.scales.clear()
    state.scales.update(scales)
