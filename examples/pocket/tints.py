"""Owns the colours that things can take ("a blue car"): which things, which colours, and how.

A tint replaces the thing's main colour and keeps its light and shade; other parts (tyres, eyes, leaves) stay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TINTS: dict[str, tuple[int, int, int]] = {
    "red": (224, 38, 40),
    "orange": (250, 136, 24),
    "yellow": (252, 216, 44),
    "green": (44, 164, 70),
    "blue": (40, 98, 224),
    "purple": (136, 66, 192),
    "pink": (252, 142, 190),
    "brown": (132, 82, 46),
    "white": (244, 244, 244),
    "black": (46, 46, 50),
}
"""Name to the main colour that a thing takes, red, green, blue in 0...255."""

TINTABLE = frozenset({
    "dog", "cat", "rabbit", "mouse", "horse", "unicorn", "elephant", "pig", "sheep", "llama", "camel",
    "bear", "fox", "wolf", "monkey", "kangaroo", "bat", "chicken", "chick", "swan", "flamingo", "frog",
    "snake", "dragon", "dinosaur", "whale", "dolphin", "octopus", "crab", "poodle", "turtle", "rose",
    "tulip", "hibiscus", "mushroom", "tree", "egg", "pepper", "doughnut", "grapes", "car", "bus",
    "racing car", "scooter", "bicycle", "skateboard", "roller skate", "helicopter", "rocket",
    "flying saucer", "sailboat", "canoe", "guitar", "violin", "saxophone", "trumpet", "drum",
    "teddy bear", "balloon", "yo-yo", "die", "robot", "ghost", "alien", "pumpkin", "crown", "top hat",
    "umbrella", "key", "lock", "light bulb", "candle", "book", "telephone", "pencil", "bomb", "bell",
    "trophy", "backpack", "dress", "t-shirt", "boot", "high heel", "gem", "magnet", "chair", "teacup",
    "star", "cloud", "lightning", "snowflake", "house", "castle", "tent",
})  # fmt: skip
"""Concepts that are still themselves in every colour; chosen by eye."""

NATURAL: dict[str, str] = {
    "backpack": "red", "balloon": "red", "bat": "brown", "bear": "brown", "bell": "yellow",
    "bicycle": "purple", "bomb": "black", "book": "red", "bus": "white", "camel": "yellow",
    "candle": "white", "car": "red", "chicken": "white", "cloud": "white", "crown": "yellow",
    "die": "white", "dinosaur": "green", "doughnut": "brown", "dragon": "green", "dress": "blue",
    "drum": "red", "flamingo": "pink", "fox": "orange", "ghost": "white", "grapes": "purple",
    "guitar": "red", "helicopter": "yellow", "high heel": "red", "house": "white", "key": "yellow",
    "light bulb": "yellow", "lightning": "yellow", "llama": "white", "lock": "orange", "magnet": "red",
    "mouse": "white", "mushroom": "orange", "pencil": "yellow", "pepper": "orange", "poodle": "white",
    "pumpkin": "orange", "rabbit": "white", "racing car": "red", "rocket": "purple", "roller skate": "blue",
    "rose": "red", "sailboat": "orange", "saxophone": "yellow", "scooter": "blue", "sheep": "white",
    "skateboard": "black", "star": "yellow", "swan": "white", "teddy bear": "brown", "telephone": "red",
    "tent": "orange", "top hat": "black", "trophy": "yellow", "trumpet": "yellow", "tulip": "pink",
    "umbrella": "blue", "unicorn": "white", "violin": "orange", "yo-yo": "red",
}  # fmt: skip
"""Thing → the tint that it nearly has by nature: drawn as it is, it has that colour too.

Everything of which a tint changes less than `NEARLY_THE_SAME`, of 255, on average; a test holds it to that.
"""
NEARLY_THE_SAME = 24

BIN = 16  # of 255: grain of the search for the main colour


def main_colour(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Find the colour that covers most of a thing.

    Args:
        pixels: (height, width, 4), red, green, blue, alpha, 0...255.

    Returns:
        (3,), 0...255.
    """
    solid = pixels[pixels[..., 3] > 200][:, :3]
    bins = (solid // BIN).astype(np.int64)
    codes = (bins[:, 0] * 16 + bins[:, 1]) * 16 + bins[:, 2]
    winner = np.bincount(codes, minlength=16**3).argmax()
    return solid[codes == winner].mean(axis=0)


def _brightness(colours: NDArray[np.float32]) -> NDArray[np.float32]:
    return colours @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _likeness(colours: NDArray[np.float32], main: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much a pixel is light or shade of the main colour, 0...1; (height, width)."""
    hue = colours - colours.mean(axis=-1, keepdims=True)
    main_hue = main - main.mean()
    strength, main_strength = np.linalg.norm(hue, axis=-1), np.linalg.norm(main_hue)
    if main_strength > 30:  # a coloured thing: pixels of a like hue
        cosine = (hue @ main_hue) / (strength * main_strength + 1e-3)
        return np.clip((cosine - 0.78) / 0.12, 0, 1) * np.clip((strength / main_strength - 0.10) / 0.15, 0, 1)
    ratio = _brightness(colours) / _brightness(main)  # a gray or white one: gray pixels that are not dark
    return np.clip((45 - strength) / 15, 0, 1) * np.clip((ratio - 0.45) / 0.15, 0, 1)


def tint(picture: Image.Image, colour: str) -> Image.Image:
    """Give a thing another colour.

    Args:
        picture: RGBA.
        colour: A key of `TINTS`.

    Returns:
        RGBA picture of the same size and alpha.
    """
    pixels = np.asarray(picture, dtype=np.float32)
    main = main_colour(pixels)
    target = np.array(TINTS[colour], dtype=np.float32)
    share = _likeness(pixels[..., :3], main)[..., None]
    light = (_brightness(pixels[..., :3]) / np.maximum(_brightness(main), 1))[..., None]
    shaded = np.where(
        light <= 1, target * light, target + (255 - target) * np.clip((light - 1) * 0.6, 0, 0.6)
    )
    result = pixels.copy()
    result[..., :3] += (shaded - result[..., :3]) * share
    return Image.fromarray(np.clip(result + 0.5, 0, 255).astype(np.uint8), "RGBA")
