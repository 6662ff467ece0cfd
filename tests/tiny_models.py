"""Tiny random models made in code, in Diffusers layout.

They have the shape of the real families (scheduler configs, encoders, factor of the autoencoder) and a
fraction of their width: nothing is downloaded, a picture takes milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

WORDS = "a the of in on and dog cat corgi trumpet drum red blue pink background playing riding left".split()
BOS, EOS = "<|startoftext|>", "<|endoftext|>"

SCALED_LINEAR = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULER_CONFIGS: dict[str, dict[str, Any]] = {
    "sd1": {
        "_class_name": "PNDMScheduler", **SCALED_LINEAR, "num_train_timesteps": 1000, "clip_sample": False,
        "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
    },
    "sd2": {
        "_class_name": "DDIMScheduler", **SCALED_LINEAR, "num_train_timesteps": 1000, "clip_sample": False,
        "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
        "prediction_type": "v_prediction",
    },
    "sdxl": {
        "_class_name": "EulerDiscreteScheduler", **SCALED_LINEAR, "num_train_timesteps": 1000,
        "clip_sample": False, "interpolation_type": "linear", "prediction_type": "epsilon",
        "sample_max_value": 1.0, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
        "timestep_spacing": "leading", "trained_betas": None, "use_karras_sigmas": False,
    },
    "pocket": {
        "_class_name": "DDIMScheduler", **SCALED_LINEAR, "num_train_timesteps": 1000, "clip_sample": False,
        "set_alpha_to_one": True, "steps_offset": 1, "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
    },
}  # fmt: skip


def byte_characters() -> list[str]:
    """The 256 characters that stand for bytes in a byte-level vocabulary, in GPT-2's order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def vocabulary(words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-pair vocabulary in which every one of `words` is one token.

    True if no word has inside it the first two letters of another ("green" would spoil "background").

    Returns:
        Token → id, and the merges in order.
    """
    letters = byte_characters()
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            pieces[:2] = [pieces[0] + pieces[1]]
            if pair not in merges:
                merges.append(pair)
                tokens.append(pieces[0])
    tokens = list(dict.fromkeys([*tokens, BOS, EOS]))
    return {token: index for index, token in enumerate(tokens)}, merges


def make_tokenizer(max_length: int = 77, words: Sequence[str] = WORDS) -> Any:
    """A CLIPTokenizer whose words are `words` and whose other text falls into bytes."""
    from transformers import CLIPTokenizer

    vocab, merges = vocabulary(words)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)


def make_text_encoder(tokenizer: Any, seed: int, projection: bool = False, **config: Any) -> Any:
    """A random CLIP text encoder of width 32 with two layers (config keys may be overridden)."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **config,
    }
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return kind(CLIPTextConfig(**values)).eval()


def make_unet(seed: int, **config: Any) -> Any:
    """A random UNet with two levels; config keys may be overridden."""
    import torch
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    values: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        **config,
    }
    return UNet2DConditionModel(**values).eval()


def make_vae(seed: int, levels: int = 4, **config: Any) -> Any:
    """A random autoencoder whose latents are 2^(levels-1) times smaller than the picture."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    values: dict[str, Any] = {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": (8,) * (levels - 1) + (16,),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "sample_size": 64,
        "scaling_factor": 0.18215,
        **config,
    }
    return AutoencoderKL(**values).eval()


def make_scheduler_object(name: str) -> Any:
    """The checkpoint's own Diffusers scheduler, from its config."""
    import diffusers

    config = SCHEDULER_CONFIGS[name]
    return getattr(diffusers, config["_class_name"]).from_config(config)


def save_sd1(folder: Path) -> None:
    """A Stable Diffusion 1 in miniature: epsilon, PNDM."""
    from diffusers import StableDiffusionPipeline

    tokenizer = make_tokenizer()
    StableDiffusionPipeline(
        vae=make_vae(1), text_encoder=make_text_encoder(tokenizer, 2), tokenizer=tokenizer, unet=make_unet(3),
        scheduler=make_scheduler_object("sd1"), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def save_sd2(folder: Path) -> None:
    """A Stable Diffusion 2 in miniature: v-prediction, DDIM, linear projections, gelu encoder."""
    from diffusers import StableDiffusionPipeline

    tokenizer = make_tokenizer()
    StableDiffusionPipeline(
        vae=make_vae(11), tokenizer=tokenizer,
        text_encoder=make_text_encoder(tokenizer, 12, hidden_act="gelu"),
        unet=make_unet(13, use_linear_projection=True, attention_head_dim=(2, 4)),
        scheduler=make_scheduler_object("sd2"), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


def save_sdxl(folder: Path) -> None:
    """An SDXL in miniature: two encoders, pooled embedding, six micro-conditioning numbers."""
    from diffusers import StableDiffusionXLPipeline

    tokenizer = make_tokenizer()
    second = make_tokenizer()
    second.pad_token = "!"
    unet = make_unet(
        23, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2), projection_class_embeddings_input_dim=6 * 8 + 32,
        cross_attention_dim=64, attention_head_dim=(2, 4),
    )  # fmt: skip
    StableDiffusionXLPipeline(
        vae=make_vae(21, scaling_factor=0.13025, force_upcast=True),
        text_encoder=make_text_encoder(tokenizer, 22), tokenizer=tokenizer,
        text_encoder_2=make_text_encoder(second, 24, projection=True, hidden_act="gelu"), tokenizer_2=second,
        unet=unet, scheduler=make_scheduler_object("sdxl"),
    ).save_pretrained(folder)  # fmt: skip


def save_smallest_pocket(folder: Path) -> None:
    """`save_pocket` with a single level in each network (factor 2), for tests of hundreds of runs."""
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    save_pocket(folder, {"block_out_channels": (16,), **blocks}, {"num_hidden_layers": 1}, vae_levels=2)


def save_pocket(
    folder: Path,
    unet: Mapping[str, Any] = MappingProxyType({}),
    text_encoder: Mapping[str, Any] = MappingProxyType({}),
    vae_levels: int = 3,
) -> None:
    """pocket in miniature: own tokenizer of 32 places, v-prediction with zero terminal SNR, factor 4."""
    from diffusers import StableDiffusionPipeline

    tokenizer = make_tokenizer(max_length=32)
    StableDiffusionPipeline(
        vae=make_vae(31, levels=vae_levels, scaling_factor=0.9), tokenizer=tokenizer,
        text_encoder=make_text_encoder(tokenizer, 32, **text_encoder),
        unet=make_unet(33, **{"sample_size": 16, **unet}), scheduler=make_scheduler_object("pocket"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    (folder / "tokenizer" / "words.json").write_text(json.dumps(sorted(WORDS)))
    defaults = {
        "family": "pocket",
        "width": 64,
        "height": 64,
        "steps": 5,
        "guidance_scale": 4.0,
        "scheduler": "ddim",
    }
    (folder / "t2i.json").write_text(json.dumps(defaults))
