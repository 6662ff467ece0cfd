"""A dataset of 24 pictures drawn in code, and a config that trains all three stages in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from t2i.config import TrainConfig

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "bar")


def draw(shape: str, colour: str, side: int = 32) -> Image.Image:
    """One shape on gray, (side, side)."""
    picture = Image.new("RGB", (side, side), (128, 128, 128))
    pen = ImageDraw.Draw(picture)
    corner, far = side // 4, side - side // 4
    if shape == "circle":
        pen.ellipse((corner, corner, far, far), fill=colour)
    elif shape == "square":
        pen.rectangle((corner, corner, far, far), fill=colour)
    else:
        pen.rectangle((corner, side // 2 - 2, far, side // 2 + 2), fill=colour)
    return picture


def write_dataset(folder: Path) -> Path:
    """Every shape in every colour, twice, with metadata.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(24):
        shape, colour = SHAPES[index % 3], COLOURS[index // 3 % 4]
        name = f"{index:02d}.png"
        draw(shape, colour).save(folder / name)
        rows.append(json.dumps({"file_name": name, "text": f"a {colour} {shape}"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return folder


SMALL: dict[str, Any] = {
    "method": "scratch",
    "resolution": 32,
    "batch_size": 4,
    "max_train_steps": 6,
    "lr_warmup_steps": 2,
    "checkpointing_steps": 3,
    "sample_steps": 3,
    "log_steps": 1,
    "vae_channels": (8, 16),
    "text_width": 16,
    "text_layers": 1,
    "text_heads": 2,
    "max_tokens": 12,
    "unet_channels": (8, 16),
    "unet_heads": 2,
    "mixed_precision": "no",
    "sampling_steps": 2,
    "sample_prompts": ("a red circle",),
    "device": "cpu",
}


def small_config(dataset: Path, output: Path, **changes: Any) -> TrainConfig:
    """The smallest run that goes through everything; what the method does not look at is left out."""
    method = changes.get("method", SMALL["method"])
    uses = {name: described.only for name, described in TrainConfig.options().items()}
    small = {name: value for name, value in SMALL.items() if not uses[name] or method in uses[name]}
    return TrainConfig(**{**small, "dataset": str(dataset), "output": str(output), **changes})
