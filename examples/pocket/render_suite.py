"""Render what the suite of `t2i eval` asks for: what a perfect model would draw.

    python examples/pocket/render_suite.py OUT --copies 4 --size 64 --seed 0

OUT becomes a folder of pictures and their prompts (metadata.jsonl: file_name, text) for `t2i eval`, as
--images or --reference. Another seed gives other sizes, places and shades of the same scenes.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from glyphs import DEFAULT_FONT, GlyphSource
from judging import render_plans
from PIL import Image
from suite import held_out_plans, question_of


def render_suite(output: Path, copies: int, size: int, seed: int, font: Path = DEFAULT_FONT) -> int:
    """Render every question of the suite.

    Args:
        output: Folder to make.
        copies: Pictures of each prompt.
        size: Side of each picture, px.
        seed: Number of the set of pictures.
        font: Noto Color Emoji.

    Returns:
        How many pictures there are.

    Raises:
        FileExistsError: If `output` already holds pictures.
    """
    if (output / "metadata.jsonl").exists():
        raise FileExistsError(f"{output} already holds pictures; name another folder")
    output.mkdir(parents=True, exist_ok=True)
    plans, glyphs, rows = held_out_plans(), GlyphSource(font), []
    prompts = [question_of(plan).prompt for plan in plans]
    for copy in range(copies):
        pictures = render_plans(plans, glyphs, seed * copies + copy, size)
        for number, (pixels, prompt) in enumerate(zip(pictures, prompts, strict=True)):
            name = f"{number:04d}-{copy}.png"
            Image.fromarray(pixels).save(output / name, compress_level=1)
            rows.append(json.dumps({"file_name": name, "text": prompt}) + "\n")
    # Renamed last: a folder with metadata.jsonl is whole.
    partial = output / "metadata.jsonl.part"
    partial.write_text("".join(rows), encoding="utf-8")
    os.replace(partial, output / "metadata.jsonl")
    return len(rows)


def main() -> None:
    """Read the command line and render."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, help="folder to make")
    parser.add_argument("--copies", type=int, default=4, help="pictures of each prompt")
    parser.add_argument("--size", type=int, default=64, help="side of each picture, px")
    parser.add_argument("--seed", type=int, default=0, help="number of the set of pictures")
    parser.add_argument("--font", type=Path, default=DEFAULT_FONT, help="Noto Color Emoji")
    options = parser.parse_args()
    count = render_suite(options.output, options.copies, options.size, options.seed, options.font)
    print(f"{count} pictures in {options.output}")


if __name__ == "__main__":
    main()
