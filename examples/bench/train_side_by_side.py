"""How fast `t2i train` is beside Diffusers' own train_text_to_image.py and train_text_to_image_lora.py.

    python examples/bench/train_side_by_side.py --diffusers-examples DIFFUSERS/examples/text_to_image
        [--model quarter] [--require 1.5] [--json FILE] [--also "--num-processes 2"]

DIFFUSERS is a checkout of Diffusers of about the version that is installed; its scripts also need the package
`datasets`, and run with a stand-in (`stand_in_transforms.py`) where torchvision is not installed. Both sides
get the same model, pictures, captions, batch, precision, optimizer and number of steps, take turns, each in a
process of its own, and neither validates, samples or saves while its time is taken. What t2i computes once,
before the first step, counts: decoded pictures, latents, encoded captions. A table and what each side does go
to stdout, progress to stderr. Exit code 1 where `--require` is not reached.

`--model quarter` (the default) is made here, with random weights: Stable Diffusion 1.5 with a quarter of the
widths and heads of UNet, autoencoder and text encoder, and half the side, 256 pixels; so the shares of the
three in a step are about those of the real one. `pocket`, or a folder that Diffusers loads, can be had too.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from side_by_side_inputs import save_pictures, save_quarter
from side_by_side_runs import RANK, SCRIPTS, TARGETS, Bench, Run, has_torchvision


def compare(
    bench: Bench, method: str, precision: str, also: Sequence[str], repeats: int
) -> list[dict[str, Any]]:
    """Both sides in turns; a row for t2i as it is, and for each of the further options."""
    ours: dict[str, list[Run]] = {options: [] for options in ("", *also)}
    theirs: list[Run] = []
    for repeat in range(repeats):
        turns: list[str | None] = [None, *ours]
        for options in turns[::-1] if repeat % 2 else turns:
            if options is None:
                side, run = "Diffusers", bench.theirs(method, precision)
                theirs.append(run)
            else:
                side, run = f"t2i {options}".strip(), bench.ours(method, precision, options)
                ours[options].append(run)
            seconds = (
                f"{run.caching_s:.1f} + {run.training_s:.1f} s of {run.whole_s:.1f}, loss {run.loss:.3g}"
            )
            print(
                f"{method} {precision} {repeat + 1}/{repeats}, {side}: {seconds}", file=sys.stderr, flush=True
            )
    found = {run.learned for runs in (theirs, *ours.values()) for run in runs}
    if len(found) > 1:
        raise SystemExit(f"the sides did not learn the same: {sorted(found)} numbers in what they made")
    rows = []
    for options, runs in ours.items():
        ratios = [other.seconds / run.seconds for other, run in zip(theirs, runs, strict=True)]
        rows.append({
            "method": method,
            "precision": precision,
            "t2i_options": options,
            "ratio": round(median(theirs, "seconds") / median(runs, "seconds"), 3),
            "ratio_least_most": [round(min(ratios), 3), round(max(ratios), 3)],
            "ratio_without_caching": round(median(theirs, "seconds") / median(runs, "training_s"), 3),
            "t2i_images_per_s": round(bench.images / median(runs, "seconds"), 3),
            "diffusers_images_per_s": round(bench.images / median(theirs, "seconds"), 3),
            "t2i": [asdict(run) for run in runs],
            "diffusers": [asdict(run) for run in theirs],
        })  # fmt: skip
    return rows


def median(runs: Sequence[Run], name: str) -> float:
    """Of an attribute of some runs."""
    return statistics.median(getattr(run, name) for run in runs)


def explanation(bench: Bench, model: str, side: int) -> str:
    """What both sides were given, and what each does."""
    transforms = "torchvision" if has_torchvision() else "a stand-in for torchvision"
    return f"""\
Both: model {model}, {bench.pictures} JPEG pictures of {side} pixels trained at {bench.resolution},
{bench.epochs} epochs in batches of {bench.batch_size}: {bench.steps} steps, {bench.images} images.
AdamW with betas 0.9 and 0.99 and decay 0.01, constant rate, gradients clipped to 1, neither SNR weight
nor caption dropout. LoRA: rank {RANK} in {", ".join(TARGETS)}.

Diffusers: in every epoch each picture is read, decoded, scaled and cut, by {transforms},
and encoded by the autoencoder, and its caption tokenized and encoded. Workers that read beside the
training: {bench.workers}. AdamW is not fused. In bf16 what is frozen is held in bf16, and so is a LoRA.

t2i: each picture is decoded once, latents (the mean, not a draw) and captions are encoded once: the
caching time. AdamW is fused. No average of the weights is kept, as on the other side. In bf16 all weights
stay fp32.

images/s counts caching and the time from the first step to the last. The commands' seconds also have
imports, loading and saving in them, and on t2i's side sample sheets of one denoising step.
"""


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line a row, with a head."""
    columns = "{:26} {:>10} {:>9} {:>9} {:>9} {:>12} {:>9} {:>9}   {}"
    heads = ("t2i im./s", "caching", "training", "command", "Diff. im./s", "training", "command")
    lines = [columns.format("", *heads, "ratio (least to most)")]
    for row in rows:
        ours, theirs = ([Run(**run) for run in row[side]] for side in ("t2i", "diffusers"))
        least, most = row["ratio_least_most"]
        of_ours = [f"{median(ours, name):.1f} s" for name in ("caching_s", "training_s", "whole_s")]
        of_theirs = [f"{median(theirs, name):.1f} s" for name in ("training_s", "whole_s")]
        lines.append(columns.format(
            f"{row['method']} {row['precision']} {row['t2i_options']}".strip(),
            f"{row['t2i_images_per_s']:.2f}", *of_ours,
            f"{row['diffusers_images_per_s']:.2f}", *of_theirs,
            f"{row['ratio']:.2f} ({least:.2f} to {most:.2f})",
        ))  # fmt: skip
    return lines


def main() -> None:
    """Read the command line, compare, print."""
    options = arguments()
    from t2i import durable
    from t2i.weights import resolve_model

    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), Path(options.model)
        if options.model == "quarter":
            model = folder / "quarter"
            save_quarter(model)
        source = resolve_model("pocket" if options.model == "pocket" else str(model))
        assert source.path is not None
        resolution = options.resolution or min(source.defaults.width, source.defaults.height)
        side = options.picture_side or 2 * resolution
        save_pictures(folder / "data", options.pictures, side)
        bench = Bench(
            folder, options.diffusers_examples, source.path, folder / "data", resolution,
            options.pictures, options.batch_size, options.epochs, options.workers,
        )  # fmt: skip
        rows = [
            row
            for method in options.methods
            for precision in options.precisions
            for row in compare(bench, method, precision, options.also, options.repeats)
        ]
        print(explanation(bench, options.model, side), *table(rows), sep="\n")
    if options.json is not None:
        settings = {
            name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()
        }
        about = {"settings": settings, "versions": versions(), "cores": len(os.sched_getaffinity(0))}
        durable.write_json(options.json, {**about, "rows": rows})
    if any(row["ratio"] < (options.require or 0) for row in rows if not row["t2i_options"]):
        raise SystemExit(1)


def versions() -> dict[str, str]:
    """Of what both sides are made of."""
    from importlib.metadata import version

    return {
        name: version(name)
        for name in ("torch", "diffusers", "transformers", "accelerate", "peft", "datasets")
    }


def arguments() -> argparse.Namespace:
    """The options; refused at once where they cannot work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--diffusers-examples", type=Path, required=True, help="examples/text_to_image")
    parser.add_argument("--model", default="quarter", help="quarter, pocket or a folder")
    parser.add_argument("--resolution", type=int, help="pixels; default: the model's")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--picture-side", type=int, help="pixels; default: twice the resolution")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=0, help="Diffusers' --dataloader_num_workers")
    parser.add_argument("--methods", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    parser.add_argument("--precisions", nargs="+", choices=("no", "bf16", "fp16"), default=["no", "bf16"])
    parser.add_argument("--also", action="append", default=[], help="t2i options for a row of their own")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--require", type=float, help="exit code 1 where a ratio is below it")
    parser.add_argument("--json", type=Path, help="also write every figure to this file")
    options = parser.parse_args()
    for script in SCRIPTS.values():
        if not (options.diffusers_examples / script).is_file():
            parser.error(
                f"{options.diffusers_examples} has no {script}: give examples/text_to_image of Diffusers"
            )
    if importlib.util.find_spec("datasets") is None:
        parser.error("Diffusers' scripts need the package datasets: pip install datasets")
    if min(options.pictures, options.batch_size, options.epochs, options.repeats) < 1:
        parser.error("--pictures, --batch-size, --epochs and --repeats are at least 1")
    if options.pictures % options.batch_size:
        parser.error(
            "--pictures has to be a multiple of --batch-size, so that both sides make the same steps"
        )
    return options


if __name__ == "__main__":
    main()
