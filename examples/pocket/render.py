"""Render the captioned scenes that pocket learns from.

    python examples/pocket/render.py OUT --scenes 60000 --size 64 --seed 0

OUT becomes a folder of captioned pictures for `t2i train --dataset OUT`: PNG files in sub-folders of at most
5000, `metadata.jsonl` (file_name, text), and `scenes.jsonl` (what is where, for the curious).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from glyphs import DEFAULT_FONT, GlyphSource
from PIL import Image
from scenes import draw, scene_at

PER_FOLDER = 5000
CHUNK = 500  # scenes per piece of work; divides PER_FOLDER


def render_chunk(
    start: int, output: Path, scenes: int, size: int, seed: int, font: Path, only: frozenset[str] | None
) -> list[str]:
    """Render scenes `start` to `start + CHUNK` and return their lines for scenes.jsonl, in order."""
    glyphs = _glyphs(font)
    folder = output / f"{start // PER_FOLDER:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(start, min(start + CHUNK, scenes)):
        scene = scene_at(index, seed, glyphs, size, only=only)
        name = f"{folder.name}/{index:06d}.png"
        Image.fromarray(draw(scene, glyphs, size)).save(output / name, compress_level=1)
        lines.append(json.dumps({"file_name": name, **scene.as_json()}))
    return lines


_opened: dict[Path, GlyphSource] = {}


def _glyphs(font: Path) -> GlyphSource:
    # One font per process, so that its cache of resized glyphs lives as long as the process.
    if font not in _opened:
        _opened[font] = GlyphSource(font)
    return _opened[font]


def render(
    output: Path,
    scenes: int,
    size: int,
    seed: int,
    font: Path = DEFAULT_FONT,
    only: frozenset[str] | None = None,
) -> None:
    """Render a data set with all cores.

    Args:
        output: Folder to make; it must not hold a data set yet.
        scenes: How many pictures.
        size: Side of each picture, px.
        seed: Number of the data set; the same seed gives the same bytes.
        font: Noto Color Emoji.
        only: Render these concepts alone, a subject, an instrument and a vehicle among them; None for all.

    Raises:
        FileExistsError: If `output` already has a metadata.jsonl.
    """
    if (output / "metadata.jsonl").exists():
        raise FileExistsError(f"{output} already holds a data set; name another folder")
    output.mkdir(parents=True, exist_ok=True)
    work = partial(render_chunk, output=output, scenes=scenes, size=size, seed=seed, font=font, only=only)
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
    parser.add_argument("--size", type=int, default=64, help="side of each picture, px")
    parser.add_argument("--seed", type=int, default=0, help="number of the data set")
    parser.add_argument("--font", type=Path, default=DEFAULT_FONT, help="Noto Color Emoji")
    parser.add_argument("--only", nargs="+", metavar="CONCEPT", help="render these concepts alone")
    options = parser.parse_args()
    started = time.monotonic()
    only = frozenset(options.only) if options.only else None
    render(options.output, options.scenes, options.size, options.seed, options.font, only)
    print(f"{options.scenes} scenes in {options.output}, {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
