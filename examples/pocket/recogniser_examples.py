"""Owns what the recogniser learns from: renderings of everything, and what each cell shows."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from backgrounds import BACKGROUNDS
from composing import Scene, scene_at
from drawing import Painter
from glyphs import GlyphSource, all_concepts
from mixtures import Mixture
from safetensors.torch import load_file, save_file
from styles import STYLES
from tints import TINTABLE, TINTS, tint
from torch import Tensor

from t2i import durable
from t2i.evaluation.recogniser import Recogniser
from t2i.evaluation.recogniser_network import NOTHING, OWN_COLOURS

DATA_SEED = 78_000  # far from the seeds with which pocket's scenes are rendered
CHUNK = 500
MOST_THINGS = 5
UNKNOWN = -1  # class of what can't be seen: a colour in a sketch, the background of shuffled tiles
SAME_COLOUR = 12  # of 255: a tint that changes a thing by less than this on average can't be told from none
PX = Recogniser.picture_px
NEAR = 0.2  # a cell belongs to a thing if it is within this share of the thing's sides from its centre
SPREAD = 0.12  # deviation of the peak at a thing's centre, as a share of its sides
CELL_PX = PX / Recogniser.cells


class Examples(NamedTuple):
    """Renderings and what they show.

    Attributes:
        pictures: (N, 128, 128, 3), uint8.
        things: (N, 5, 6): class + 1 (0 = no thing), x, y, width, height in px, class of the colour.
        backgrounds: (N,) classes.
        styles: (N,) classes.
    """

    pictures: Tensor
    things: Tensor
    backgrounds: Tensor
    styles: Tensor


@cache
def natural_colour(concept: str, glyphs: GlyphSource) -> str | None:
    """The colour that a thing has by itself: the tint that leaves it as it is, or None.

    A rose that has been given red and a rose that has been given nothing are the same picture, so they have
    to have the same answer.
    """
    if concept not in TINTABLE:
        return None
    own = np.asarray(glyphs.full(concept), dtype=np.float32)
    solid = own[..., 3] > 200

    def change(colour: str) -> float:
        tinted = np.asarray(tint(glyphs.full(concept), colour), dtype=np.float32)
        return float(np.abs(tinted - own)[solid][:, :3].mean())

    changes = {colour: change(colour) for colour in TINTS}
    nearest = min(changes, key=lambda colour: changes[colour])
    return nearest if changes[nearest] < SAME_COLOUR else None


def things_of(scene: Scene, glyphs: GlyphSource) -> np.ndarray:
    """One scene's rows of `Examples.things`."""
    concepts, colours = list(all_concepts()), list(TINTS)
    rows = np.zeros((MOST_THINGS, 6), dtype=np.float32)
    shows_colours = scene.style is None or STYLES[scene.style].shows_colours
    for row, thing in zip(rows, scene.objects, strict=False):
        colour = thing.colour or natural_colour(thing.concept, glyphs)
        told = OWN_COLOURS if colour is None else 1 + colours.index(colour)
        row[:] = (
            1 + concepts.index(thing.concept),
            *(thing.x, thing.y, thing.width, thing.height),
            told if shows_colours else UNKNOWN,
        )
    return rows


@cache
def _source(font: Path) -> tuple[GlyphSource, Painter]:
    glyphs = GlyphSource(font)
    return glyphs, Painter(glyphs)


def render_examples(start: int, count: int, mixture: Mixture, font: Path, seed: int = DATA_SEED) -> Examples:
    """Render scenes `start` to `start + count`, held-out ones among them."""
    glyphs, painter = _source(font)
    pictures: np.ndarray = np.empty((count, PX, PX, 3), dtype=np.uint8)
    things: np.ndarray = np.empty((count, MOST_THINGS, 6), dtype=np.float32)
    backgrounds, styles = [], []
    for row in range(count):
        scene = scene_at(start + row, seed, glyphs, PX, mixture, allow_held_out=True)
        pictures[row] = painter.draw(scene, PX)
        things[row] = things_of(scene, glyphs)
        backgrounds.append(BACKGROUNDS.index(scene.background))
        styles.append(NOTHING if scene.style is None else 1 + list(STYLES).index(scene.style))
    return Examples(
        torch.from_numpy(pictures), torch.from_numpy(things), torch.tensor(backgrounds), torch.tensor(styles)
    )


def _chunk_file(start: int, folder: Path, mixture: Mixture, font: Path) -> Path:
    """The file with these scenes, rendered now if it is not there."""
    path = folder / f"scenes-{start:07d}.safetensors"
    if not path.exists():
        tensors = render_examples(start, CHUNK, mixture, font)._asdict()
        durable.write_with(path, lambda temporary: save_file(tensors, temporary))
    return path


def examples(count: int, folder: Path, mixture: Mixture, font: Path, workers: int) -> Examples:
    """The first `count` examples (rounded up to whole files), from `folder` as far as they are there.

    49 kB of memory each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = partial(_chunk_file, folder=folder, mixture=mixture, font=font)
    starts = range(0, count, CHUNK)
    if workers > 1:
        with ProcessPoolExecutor(workers) as pool:
            files = list(pool.map(work, starts))
    else:
        files = [work(start) for start in starts]
    return Examples(*(_joined(files, name) for name in Examples._fields))


def _joined(files: list[Path], name: str) -> Tensor:
    def parts() -> Iterator[Tensor]:
        for file in files:
            yield load_file(file)[name].clone()  # the clone lets go of the other tensors of the file

    return torch.cat(list(parts()))


class Targets(NamedTuple):
    """What `Recogniser` should answer, cell by cell.

    Attributes:
        centres: 1 at the cell of a thing's centre, falling to 0 around it, (B, 16, 16).
        concepts: Classes, `UNKNOWN` away from the centres, (B, 16, 16).
        colours: Classes, `UNKNOWN` away from the centres and where no colour is seen, (B, 16, 16).
    """

    centres: Tensor
    concepts: Tensor
    colours: Tensor


def targets_of(things: Tensor) -> Targets:
    """Say for each cell what is in it.

    Args:
        things: (B, K, 6), as in `Examples`.
    """
    cells = Recogniser.cells
    middles = (torch.arange(cells, device=things.device) + 0.5) * CELL_PX
    kind, x, y, width, height, colour = (column[..., None, None] for column in things.unbind(dim=2))
    # A thing whose centre was moved out of the picture is not asked for.
    is_there = (kind > 0) & (x >= 0) & (x < PX) & (y >= 0) & (y < PX)
    dx, dy = (middles[None, None, None, :] - x).abs(), (middles[None, None, :, None] - y).abs()
    half = CELL_PX / 2
    peak = torch.exp(
        -0.5 * ((dx / (SPREAD * width).clamp(min=half)) ** 2 + (dy / (SPREAD * height).clamp(min=half)) ** 2)
    )
    number = torch.arange(cells, device=things.device)
    is_column, is_row = number == (x / CELL_PX).floor(), number[:, None] == (y / CELL_PX).floor()
    centre = is_column & is_row  # one cell, also where two of them meet
    peak = torch.where(centre, 1.0, peak) * is_there
    # At least the cell that holds the centre, however thin the thing is; where two things meet, the nearer.
    near = (dx <= (NEAR * width).clamp(min=half)) & (dy <= (NEAR * height).clamp(min=half)) & is_there
    distance = torch.where(near, dx + dy, torch.inf)
    nearest = distance.argmin(dim=1, keepdim=True)
    nothing = torch.isinf(distance.gather(1, nearest))

    def told(column: Tensor) -> Tensor:
        spread = column.expand(-1, -1, cells, cells).gather(1, nearest)
        return torch.where(nothing, UNKNOWN, spread.long())[:, 0]

    return Targets(peak.amax(dim=1), told(kind - 1), told(colour))
