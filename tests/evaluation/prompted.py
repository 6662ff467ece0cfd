"""The prompts that the evaluation is tested with, and folders of pictures that claim to show them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

PROMPTS = {
    "a dog on a red background": ("single", ("dog",), None, "red"),
    "a rose on a blue background": ("single", ("rose",), None, "blue"),
    "a car on a green background": ("single", ("car",), None, "green"),
    "a panda on a yellow background": ("single", ("panda",), None, "yellow"),
    "a cat and a guitar on a white background": ("pair", ("cat", "guitar"), "and", "white"),
    "a rabbit above a car on a purple background": ("pair", ("rabbit", "car"), "above", "purple"),
}
"""Prompt → the plan of a scene that shows it."""


def write_folder(folder: Path, prompts: Sequence[str], pictures: Sequence[np.ndarray]) -> Path:
    """A folder of pictures with a metadata.jsonl."""
    folder.mkdir(parents=True)
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as file:
        for number, (prompt, pixels) in enumerate(zip(prompts, pictures, strict=True)):
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")
            file.write(json.dumps({"file_name": f"{number:03d}.png", "text": prompt}) + "\n")
    return folder
