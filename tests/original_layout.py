"""Narrow Stable Diffusion models with the real architecture, written as single files in the original layout.

A real file is 4 GB; the names of its tensors do not depend on the width. This writes what the original
training code would have written, from Diffusers models, so that loading can be compared tensor by tensor.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from t2i.weights.single_file import CONFIGS

UNET_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm": "ln_final", "encoder.layers": "transformer.resblocks", "layer_norm1": "ln_1",
    "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def write_original(root: Path, family: str) -> tuple[Path, Path, dict[str, Any]]:
    """Make a narrow model of a family and write it as one file.

    Returns:
        The file, the config folder (its parent holds it under the family's name), and the parts
        {"unet", "vae", "encoders"} that were written.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    configs = root / "configs" / family
    shutil.copytree(CONFIGS / family, configs)
    widths = {"unet": 16, "vae": 8}
    encoders: list[Any] = []
    torch.manual_seed(7)
    cross = 0
    for number, kind in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)):
        path = configs / f"text_encoder{number}" / "config.json"
        if path.exists():
            width = 16 if number == "" else 32
            changes = {
                "hidden_size": width,
                "intermediate_size": 32,
                "num_attention_heads": 2,
                "projection_dim": width,
            }
            encoders.append(kind(CLIPTextConfig(**change(path, {**changes, "num_hidden_layers": 2}))).eval())
            cross += width
    unet_path = configs / "unet" / "config.json"
    blocks = len(json.loads(unet_path.read_text())["block_out_channels"])
    changes = {
        "block_out_channels": [widths["unet"]] * blocks, "norm_num_groups": 4, "cross_attention_dim": cross,
        "attention_head_dim": 2, "sample_size": 8,
    }  # fmt: skip
    if family == "sdxl":
        changes |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + 32}
    change(unet_path, changes)
    vae_path = configs / "vae" / "config.json"
    change(vae_path, {"block_out_channels": [widths["vae"]] * 4, "norm_num_groups": 4})
    unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(str(unet_path.parent))).eval()
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(str(vae_path.parent))).eval()
    state = {f"model.diffusion_model.{key}": value for key, value in original_unet(unet).items()}
    state |= {f"first_stage_model.{key}": value for key, value in original_vae(vae).items()}
    for number, encoder in enumerate(encoders):
        state |= original_encoder(encoder, family, number)
    path = root / f"{family}.safetensors"
    save_file({key: value.contiguous().clone() for key, value in state.items()}, str(path))
    return path, configs, {"unet": unet, "vae": vae, "encoders": encoders}


def change(path: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Change values of a JSON file and return it."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(values))
    return values


def original_unet(unet: Any) -> dict[str, torch.Tensor]:
    """Diffusers UNet names → CompVis names."""
    layers = unet.config.layers_per_block
    result = {}
    for key, value in unet.state_dict().items():
        stem, _, kind = key.rpartition(".")
        if stem in UNET_ENDS:
            result[f"{UNET_ENDS[stem]}.{kind}"] = value
            continue
        side, block, part, index, rest = re.fullmatch(  # type: ignore[union-attr]
            r"(down_blocks|up_blocks|mid_block)\.?(\d*)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)",
            key,
        ).groups()
        i, j = int(block or 0), int(index)
        if part == "resnets":
            name, _, tail = rest.rpartition(".")
            rest = f"{UNET_RESNET[name]}.{tail}"
        if side == "mid_block":
            place = f"middle_block.{2 * j if part == 'resnets' else 1}"
        elif side == "down_blocks":
            number = (layers + 1) * i + j + 1 if part != "downsamplers" else (layers + 1) * (i + 1)
            place = f"input_blocks.{number}.{1 if part == 'attentions' else 0}"
            rest = rest.replace("conv.", "op.", 1) if part == "downsamplers" else rest
        else:
            number = (layers + 1) * i + (j if part != "upsamplers" else layers)
            has_attention = hasattr(unet.up_blocks[i], "attentions")
            slot = {"resnets": 0, "attentions": 1, "upsamplers": 2 if has_attention else 1}[part]
            place = f"output_blocks.{number}.{slot}"
        result[f"{place}.{rest}"] = value
    return result


def original_vae(vae: Any) -> dict[str, torch.Tensor]:
    """Diffusers autoencoder names → CompVis names."""
    levels = len(vae.config.block_out_channels)
    result = {}
    for key, value in vae.state_dict().items():
        name = key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        for theirs, ours in (
            ("group_norm", "norm"),
            ("to_q", "q"),
            ("to_k", "k"),
            ("to_v", "v"),
            ("to_out.0", "proj_out"),
        ):
            name = name.replace(f"attn_1.{theirs}", f"attn_1.{ours}")
        name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(
            r"up_blocks\.(\d)\.resnets\.(\d)", lambda f: f"up.{levels - 1 - int(f[1])}.block.{f[2]}", name
        )
        name = re.sub(
            r"up_blocks\.(\d)\.upsamplers\.0", lambda f: f"up.{levels - 1 - int(f[1])}.upsample", name
        )
        linear = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        result[name] = value[:, :, None, None] if linear else value
    return result


def original_encoder(encoder: Any, family: str, number: int) -> dict[str, torch.Tensor]:
    """A CLIP text encoder under OpenAI's names (SD1, first of SDXL) or OpenCLIP's (SD2, second of SDXL)."""
    inner = getattr(encoder, "text_model", encoder)
    if family == "sd1" or (family == "sdxl" and number == 0):
        prefix = (
            "cond_stage_model.transformer." if family == "sd1" else "conditioner.embedders.0.transformer."
        )
        return {f"{prefix}text_model.{key}": value for key, value in inner.state_dict().items()}
    prefix = "cond_stage_model.model." if family == "sd2" else "conditioner.embedders.1.model."
    result: dict[str, torch.Tensor] = {}
    state = inner.state_dict()
    for key, value in state.items():
        if "self_attn.q_proj" in key:  # OpenCLIP keeps query, key and value in one matrix
            rows = [state[key.replace("q_proj", name)] for name in ("q_proj", "k_proj", "v_proj")]
            name = key.replace("self_attn.q_proj.", "attn.in_proj_")
        elif "self_attn.k_proj" in key or "self_attn.v_proj" in key:
            continue
        else:
            rows, name = [value], key
        for theirs, ours in OPEN_CLIP.items():
            name = name.replace(theirs, ours)
        result[prefix + name] = torch.cat(rows)
    width = inner.config.hidden_size
    projection = (
        encoder.text_projection.weight.T if hasattr(encoder, "text_projection") else torch.zeros(width, width)
    )
    result[prefix + "text_projection"] = projection
    return result
