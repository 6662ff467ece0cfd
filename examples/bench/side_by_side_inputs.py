"""The model and the pictures that `train_side_by_side.py` gives to both sides, made from nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path

WIDTHS = {"unet": (320, 640, 1280, 1280), "vae": (128, 256, 512, 512), "text": 768}  # Stable Diffusion 1.5
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "pink", "brown", "orange", "purple")


def save_quarter(folder: Path, part: int = 4) -> None:
    """Save Stable Diffusion 1.5 with one `part`-th of its widths and random weights, for 256 pixels.

    Depth, width of a head, tokens and the factor of the autoencoder are those of the real one; so UNet,
    autoencoder and text encoder take about the same shares of a step.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from t2i.weights import resolve_model, save_folder

    packaged = resolve_model("pocket").path
    assert packaged is not None
    tokenizer = CLIPTokenizer.from_pretrained(packaged, subfolder="tokenizer", model_max_length=77)
    torch.manual_seed(0)
    width = WIDTHS["text"] // part
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=12,
        num_attention_heads=12 // part,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vae = AutoencoderKL(
        block_out_channels=tuple(width // part for width in WIDTHS["vae"]),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=32 // part,
        sample_size=256,
    )
    unet = UNet2DConditionModel(
        block_out_channels=tuple(width // part for width in WIDTHS["unet"]),
        cross_attention_dim=width,
        attention_head_dim=8 // part,  # Diffusers' name; it is the number of heads
        norm_num_groups=32 // part,
        sample_size=32,
    )
    schedule = {
        "_class_name": "PNDMScheduler",
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "skip_prk_steps": True,
        "steps_offset": 1,
    }
    save_folder(
        folder,
        unet=unet,
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler_config=schedule,
    )


def save_pictures(folder: Path, count: int, side: int) -> None:
    """Draw `count` JPEG files of `side` pixels with captions that all differ, as an imagefolder."""
    from PIL import Image, ImageDraw, ImageFilter

    folder.mkdir()
    lines = []
    for number in range(count):
        draw, (ground, thing) = random.Random(number), random.Random(number).sample(COLOURS, 2)
        picture = Image.effect_noise((side, side), 60).convert("RGB")
        picture = Image.blend(picture, Image.new("RGB", picture.size, ground), 0.7)
        left, top = (draw.randrange(side // 2) for _ in range(2))
        ImageDraw.Draw(picture).ellipse([left, top, left + side // 2, top + side // 2], fill=thing)
        name = f"{number:05d}.jpg"
        picture.filter(ImageFilter.GaussianBlur(1)).save(folder / name, quality=90)
        text = f"a {thing} ball on a {ground} background, number {number}"
        lines.append(json.dumps({"file_name": name, "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def learned_numbers(made: Path) -> int:
    """How many numbers a safetensors file, or the files of a folder, hold."""
    from safetensors import safe_open

    total = 0
    for file in [made] if made.is_file() else sorted(made.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            for name in opened.keys():
                count = 1
                for size in opened.get_slice(name).get_shape():
                    count *= size
                total += count
    return total
