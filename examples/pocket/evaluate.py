"""Ask a model for combinations that it never saw, and count what the judge finds.

    python examples/pocket/evaluate.py --model MODEL --output report.json

Writes the report, prints it as a table, and saves a labelled contact sheet beside it (report.png). t2i makes
the pictures and must be installed (or its checkout be on PYTHONPATH).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from glyphs import DEFAULT_FONT, GlyphSource
from judging import (
    Figure,
    Judged,
    Question,
    all_found,
    pair_questions,
    render_answers,
    right_colour,
    right_places,
    right_subject,
    showpiece_questions,
    subject_questions,
)
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from t2i.config import GenerateConfig
from t2i.evaluation.recogniser import Findings, load_recogniser
from t2i.jobs import Job
from t2i.pipeline import generate

COLUMNS, TILE_PX, LABEL_PX = 8, 128, 58

PictureMaker = Callable[[Sequence[str], Sequence[int]], NDArray[np.uint8]]


def make_pictures(model: str, prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
    """Ask a model for one picture per prompt, with the model's own steps, guidance, scheduler and size.

    Args:
        model: What `t2i generate --model` takes: an alias such as pocket, or a folder.
        prompts: N prompts.
        seeds: N seeds; a picture depends on its own seed, not on its neighbours.

    Returns:
        (N, height, width, 3), red, green, blue, 0...255.
    """
    config = GenerateConfig(prompts=tuple(prompts), model=model)
    jobs = [
        Job(index, prompt, index, 0, seed)
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
    ]
    pictures = sorted(generate(config, jobs=jobs), key=lambda picture: picture.index)
    return np.stack([picture.pixels for picture in pictures])


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or none: temporary name, flush to disk, rename."""
    partial = path.with_name(path.name + ".part")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def contact_sheet(
    pictures: NDArray[np.uint8], answers: Sequence[tuple[Question, Findings]], right: Sequence[bool]
) -> bytes:
    """Draw all pictures with prompt and findings; a green frame says right, a red one wrong.

    Args:
        pictures: (N, height, width, 3), 0...255.
        answers: N questions and findings.
        right: N verdicts.

    Returns:
        A PNG file.
    """
    rows = -(-len(pictures) // COLUMNS)
    cell_px = TILE_PX + 12
    sheet = Image.new("RGB", (COLUMNS * cell_px, rows * (TILE_PX + LABEL_PX)), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (pixels, (question, findings), is_right) in enumerate(
        zip(pictures, answers, right, strict=True)
    ):
        x, y = index % COLUMNS * cell_px + 6, index // COLUMNS * (TILE_PX + LABEL_PX) + 4
        picture = Image.fromarray(pixels).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
        pen.rectangle((x - 3, y - 3, x + TILE_PX + 2, y + TILE_PX + 2), fill="green" if is_right else "red")
        sheet.paste(picture, (x, y))
        seen = ", ".join(f"{one.concept} {one.score:.2f}" for one in findings.found) or "nothing"
        label = [*textwrap.wrap(question.prompt, 24)[:2], *textwrap.wrap(f"[{seen}]", 24)[:2]]
        pen.multiline_text((x - 2, y + TILE_PX + 3), "\n".join(label), fill="black", spacing=0)
    file = io.BytesIO()
    sheet.save(file, "png")
    return file.getvalue()


def print_table(of_model: dict[str, Figure], of_renderings: dict[str, Figure]) -> None:
    """Print one line per figure: the model, its 95 % interval, and the ceiling."""
    print(f"{'':28} {'right':>9} {'percent':>8}  {'95 % interval':>15}  {'renderings':>10}")
    for name, row in of_model.items():
        low, high = row["interval_percent"]  # type: ignore[misc]
        count = f"{row['right']}/{row['of']}"
        ceiling = of_renderings[name]["percent"]
        print(f"{name:28} {count:>9} {row['percent']:8.1f}  {low:6.1f} ... {high:5.1f}  {ceiling:10.1f}")


def evaluate(make: PictureMaker, images: int, font: Path = DEFAULT_FONT) -> tuple[dict[str, Any], bytes]:
    """Ask, judge and count.

    Args:
        make: Turns prompts and seeds into pictures (N, height, width, 3), 0...255.
        images: How many prompts of each list to ask, 1...100 (of the showpiece always 16).
        font: Noto Color Emoji, for the ceiling.

    Returns:
        The report, and the contact sheet as a PNG file.
    """
    questions = [*subject_questions()[:images], *pair_questions()[:images], *showpiece_questions()]
    subjects = slice(0, images)
    pairs = slice(images, 2 * images)
    showpiece = slice(pairs.stop, len(questions))
    started = time.monotonic()
    pictures = make([q.prompt for q in questions], [q.seed for q in questions])
    elapsed_s = time.monotonic() - started
    judge = load_recogniser()

    def judged(what: NDArray[np.uint8]) -> Judged:
        answers = list(zip(questions, judge.recognise(what), strict=True))
        return Judged(answers[subjects], answers[pairs], answers[showpiece])

    of_model = judged(pictures)
    of_renderings = judged(render_answers(questions, GlyphSource(font)))
    right = [
        *(right_subject(q, f) and right_colour(q, f) for q, f in of_model.subjects),
        *(right_places(q, f) for q, f in of_model.pairs),
        *(all_found(q, f) for q, f in of_model.showpiece),
    ]
    answers = [*of_model.subjects, *of_model.pairs, *of_model.showpiece]
    report = {
        "figures": of_model.figures(),
        "ceiling_on_true_renderings": of_renderings.figures(),
        "seconds_per_picture": round(elapsed_s / len(questions), 3),
        "pictures": [
            {
                "prompt": question.prompt,
                "seed": question.seed,
                "found": {one.concept: round(one.score, 3) for one in findings.found},
                "background": findings.background,
                "right": verdict,
            }
            for (question, findings), verdict in zip(answers, right, strict=True)
        ],
    }
    return report, contact_sheet(pictures, answers, right)


def main() -> None:
    """Read the command line, evaluate, write the report and the sheet."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="as in `t2i generate --model`")
    parser.add_argument("--output", type=Path, required=True, help="report.json; the sheet goes beside it")
    parser.add_argument("--images", type=int, default=100, help="prompts of each list, 1 to 100")
    parser.add_argument("--font", type=Path, default=DEFAULT_FONT, help="Noto Color Emoji")
    options = parser.parse_args()
    if not 1 <= options.images <= 100:
        parser.error(f"--images is {options.images}; it must be 1 to 100")

    def make(prompts: Sequence[str], seeds: Sequence[int]) -> NDArray[np.uint8]:
        return make_pictures(options.model, prompts, seeds)

    report, sheet = evaluate(make, options.images, options.font)
    report = {"model": Path(options.model).name, **report}
    write_atomically(options.output, (json.dumps(report, indent=2) + "\n").encode())
    write_atomically(options.output.with_suffix(".png"), sheet)
    print_table(report["figures"], report["ceiling_on_true_renderings"])


if __name__ == "__main__":
    main()
