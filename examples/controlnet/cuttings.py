"""The pictures of this example: cuttings of pocket's scenes, some to train on and some held out."""

from __future__ import annotations

import json
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "pocket"))  # the scenes are that example's

import numpy as np
from following import Mask
from numpy.typing import NDArray
from PIL import Image
from render import renderer

from t2i import images
from t2i.durable import write_bytes
from t2i.edges import edges

TRAINING_SEED, HELD_OUT_SEED = 51, 52  # numbers of two sets of scenes that have nothing in common
DRAWN_LARGER, SMALLEST_WINDOW = 1.5, 0.6  # scenes are drawn so much larger; a window has this share or more
LEAST_EDGES = 0.01  # share of a held-out picture's pixels: an empty map asks for nothing


class HeldOut(NamedTuple):
    """A scene that is never trained on.

    Attributes:
        prompt: Its caption.
        pixels: uint8, (side, side, 3).
        edges: Its edges, (side, side).
    """

    prompt: str
    pixels: NDArray[np.uint8]
    edges: Mask


def edge_mask(pixels: NDArray[np.uint8]) -> Mask:
    """Edge pixels of a picture (H, W, 3): (H, W)."""
    return edges(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[0] > 0


@dataclass(frozen=True)
class Scenes:
    """What is drawn.

    Attributes:
        mixture: A key of `MIXTURES`.
        side: Of the pictures, px.
        font: Noto Color Emoji.
        only: These concepts alone; None for all of the mixture.
    """

    mixture: str
    side: int
    font: Path
    only: frozenset[str] | None

    def cutting(self, number: int, seed: int) -> tuple[NDArray[np.uint8], str]:
        """A square window of scene `number` of set `seed`, (side, side, 3), and the caption of the scene."""
        whole = round(self.side * DRAWN_LARGER)
        pixels, told = renderer(self.mixture, whole, seed, self.font, self.only)(number)
        rng = random.Random(f"cutting {seed}:{number}")
        window = whole * rng.uniform(SMALLEST_WINDOW, 1)
        left, top = rng.uniform(0, whole - window), rng.uniform(0, whole - window)
        cut = Image.fromarray(pixels).resize(
            (self.side, self.side), Image.Resampling.LANCZOS, (left, top, left + window, top + window)
        )
        return np.asarray(cut), str(told["text"])

    def write(self, number: int, folder: Path) -> str:
        """Save a training picture; returns its line of metadata.jsonl."""
        pixels, text = self.cutting(number, TRAINING_SEED)
        name = f"{number:06d}.png"
        images.save(folder / name, pixels, None, "none", overwrite=True)
        return json.dumps({"file_name": name, "text": text}) + "\n"

    def held_out(self, count: int) -> list[HeldOut]:
        """The first `count` cuttings of another set that have edges to follow."""
        found, number = list[HeldOut](), 0
        while len(found) < count:
            pixels, text = self.cutting(number, HELD_OUT_SEED)
            mask = edge_mask(pixels)
            if mask.mean() >= LEAST_EDGES:
                found.append(HeldOut(text, pixels, mask))
            number += 1
        return found


def make_dataset(scenes: Scenes, count: int, work: Path) -> Path:
    """The training pictures, made once; returns their folder, whole where it has metadata.jsonl."""
    folder = work / f"scenes-{scenes.mixture}-{scenes.side}-{count}"
    if not (folder / "metadata.jsonl").exists():
        with ProcessPoolExecutor() as pool:
            lines = list(pool.map(partial(scenes.write, folder=folder), range(count), chunksize=50))
        write_bytes(folder / "metadata.jsonl", "".join(lines).encode())
    return folder
