"""Render the captioned scenes that pocket learns from.

    python examples/pocket/render.py OUT --scenes 160000 --size 64 --seed 0
    python examples/pocket/render.py OUT --scenes 4000 --mixture quick --font tests/pocket/ten-glyphs.ttf

OUT becomes a folder of captioned pictures for `t2i train --dataset OUT`: PNG files in sub-folders of at most
5000, `metadata.jsonl` (file_name, text), and `scenes.jsonl` (what is where, for the curious).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import composing
import numpy as np
from drawing import Painter
from glyphs import DEFAULT_FONT, GlyphSource, all_concepts
from mixtures import MIXTURES
from numpy.typing import NDArray
from PIL import Image

Renderer = Callable[[int], tuple[NDArray[np.uint8], dict[str, Any]]]
"""Number of a scene → its pixels (size, size, 3) and its plain data."""

ALL = "pocket"  # the mixture that is rendered if none is named
PER_FOLDER = 5000
CHUNK = 500  # scenes per piece of work; divides PER_FOLDER


@cache
def renderer(mixture: str, size: int, seed: int, font: Path, only: frozenset[str] | None) -> Renderer:
    """What renders one scene; one per process, so that what it has drawn is remembered.

    Args:
        mixture: A key of `MIXTURES`.
        size: Side of each picture, px.
        seed: Number of the data set.
        font: Noto Color Emoji.
        only: Render these concepts alone; None for all of the mixture.
    """
    glyphs = GlyphSource(font)
    shares, painter = MIXTURES[mixture], Painter(glyphs)
    if only is not None:
        shares = replace(shares, concepts=shares.concepts & only)

    def render_one(index: int) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        scene = composing.scene_at(index, seed, glyphs, size, shares)
        return painter.draw(scene, size), scene.as_json()

    return render_one


def render_chunk(
    start: int,
    output: Path,
    scenes: int,
    size: int,
    seed: int,
    font: Path,
    only: frozenset[str] | None,
    mixture: str,
) -> list[str]:
    """Render scenes `start` to `start + CHUNK` and return their lines for scenes.jsonl, in order."""
    render_one = renderer(mixture, size, seed, font, only)
    folder = output / f"{start // PER_FOLDER:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(start, min(start + CHUNK, scenes)):
        pixels, data = render_one(index)
        name = f"{folder.name}/{index:06d}.png"
        Image.fromarray(pixels).save(output / name, compress_level=1)
        lines.append(json.dumps({"file_name": name, **data}))
    return lines


def render(
    output: Path,
    scenes: int,
    size: int,
    seed: int,
    font: Path = DEFAULT_FONT,
    only: frozenset[str] | None = None,
    mixture: str = ALL,
) -> None:
    """Render a data set with all cores.

    Args:
        output: Folder to make; it must not hold a data set yet.
        scenes: How many pictures.
        size: Side of each picture, px.
        seed: Number of the data set; the same seed gives the same bytes.
        font: Noto Color Emoji.
        only: Render these concepts alone, a subject, an instrument and a vehicle among them; None for all.
        mixture: A key of `MIXTURES`.

    Raises:
        FileExistsError: If `output` already has a metadata.jsonl.
    """
    if (output / "metadata.jsonl").exists():
        raise FileExistsError(f"{output} already holds a data set; name another folder")
    output.mkdir(parents=True, exist_ok=True)
    work = partial(
        render_chunk,
        output=output,
        scenes=scenes,
        size=size,
        seed=seed,
        font=font,
        only=only,
        mixture=mixture,
    )
    starts = range(0, scenes, CHUNK)
    partial_metadata, partial_scenes = output / "metadata.jsonl.part", output / "scenes.jsonl.part"
    with (
        ProcessPoolExecutor(os.cpu_count()) as pool,
        partial_metadata.open("w", encoding="utf-8") as metadata,
        partial_scenes.open("w", encoding="utf-8") as annotations,
    ):
        for lines in pool.map(work, starts):
            for line in lines:
                row = json.loads(line)
                metadata.write(json.dumps({"file_name": row["file_name"], "text": row["text"]}) + "\n")
                annotations.write(line + "\n")
    # Renamed last: a folder with metadata.jsonl is a whole data set.
    partial_scenes.replace(output / "scenes.jsonl")
    partial_metadata.replace(output / "metadata.jsonl")


def main() -> None:
    """Read the command line and render."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="folder to make")
    parser.add_argument("--scenes", type=int, default=60000, help="how many pictures")
    parser.add_argument("--mixture", default=ALL, choices=MIXTURES, help="what to show")
    parser.add_argument("--size", type=int, default=128, help="side of each picture, px")
    parser.add_argument("--seed", type=int, default=0, help="number of the data set")
    parser.add_argument("--font", type=Path, default=DEFAULT_FONT, help="Noto Color Emoji")
    parser.add_argument("--only", nargs="+", metavar="CONCEPT", help="render these concepts alone")
    options = parser.parse_args()
    started = time.monotonic()
    only = frozenset(options.only) if options.only else None
    unknown = sorted((only or frozenset()) - set(all_concepts()))
    if unknown:
        parser.error(f"--only {unknown[0]}: no such concept; concepts.tsv lists them")
    render(options.output, options.scenes, options.size, options.seed, options.font, only, options.mixture)
    print(f"{options.scenes} scenes in {options.output}, {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
