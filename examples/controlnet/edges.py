"""Train a ControlNet that follows edges, and measure how well it follows those of scenes it never saw.

    python examples/controlnet/edges.py --work work/edges
    python examples/controlnet/edges.py --work work/edges --steps 6000 -- --num-processes 2

Needs t2i installed and the Debian package fonts-noto-color-emoji. Trains on cuttings of pocket's scenes, in
the size of the model, draws the captions of others with the ControlNet (given their edges) and without, and
compares edges: precision, recall and F1, where two edge pixels count as one if they are at most 1 px in 64
apart. Whole scenes would not do: a caption such as "a cat below a panda" foretells most of their edges. Edges
are those of `t2i.edges`, Canny's steps in numpy, as in `t2i train --control-kind edges`.

Stopped at any moment, the same command goes on. WORK gets report.json and report.png (edges, with the
ControlNet, text only); exit code 1 if F1 is below 0.5 or less than twice that of text alone. What stands
behind -- goes to `t2i train`. Both rows are drawn with a guidance of 2: where a map says what to draw, strong
guidance by the text pulls away from it (F1 0.59 at 4, 0.63 at 2; with a control scale of 1.5 0.68).
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "pocket"))  # the scenes are that example's

import numpy as np
import torch
from cuttings import HeldOut, Scenes, edge_mask, make_dataset
from following import following, means_with_intervals, sheet
from glyphs import DEFAULT_FONT
from mixtures import MIXTURES
from numpy.typing import NDArray
from render import ALL

from t2i import images, latents, weights
from t2i.durable import write_bytes, write_json

WANTED_F1, WANTED_RATIO = 0.5, 2.0
SHOWN = 24
ROWS = ("control", "text", "ceiling")  # with the ControlNet, without, and the scene through the autoencoder
SHEET_PROMPTS = 4


def run(*command: str) -> None:
    """Say a command of t2i and run it; end with its exit code if it fails."""
    print(shlex.join(["t2i", *command]), flush=True)
    done = subprocess.run([sys.executable, "-m", "t2i", *command])
    if done.returncode:
        sys.exit(done.returncode)


def train(options: argparse.Namespace, data: Path, side: int) -> Path:
    """Train the ControlNet, or go on; returns its folder."""
    output = options.work / "training"
    first = [json.loads(line)["text"] for line in (data / "metadata.jsonl").read_text().splitlines()]
    prompts = [word for text in first[:SHEET_PROMPTS] for word in ("--sample-prompts", text)]
    resume = ["--resume", "latest"] if any((output / "controlnet" / "checkpoints").glob("*")) else []
    run(
        "train", "--dataset", str(data), "-o", str(output), "--method", "controlnet", "-m", options.model,
        "--control-kind", "edges", "--resolution", str(side), "--steps", str(options.steps),
        "--batch-size", str(options.batch_size), "--learning-rate", str(options.learning_rate),
        "--lr-warmup-steps", "50", "--ema-decay", "0.99", "--caption-dropout", "0.3", "--snr-gamma", "0",
        "--timestep-sampling", "logit_normal", "--logit-mean", "1.0", "--logit-std", "1.5",
        "--checkpointing-steps", "200", "--sample-steps", str(options.steps), "--sampling-steps", "10",
        *prompts, *resume, *options.train_options,
    )  # fmt: skip
    return output / "parts" / "controlnet"


def draw(options: argparse.Namespace, controlnet: Path, held_out: list[HeldOut], side: int) -> Path:
    """Draw each held-out prompt with and without the ControlNet, from one seed; returns the folder."""
    maps, folder = options.work / "edges", options.work / "pictures"
    rows = []
    for number, scene in enumerate(held_out):
        lines = np.repeat(scene.edges[:, :, None].astype(np.uint8) * 255, 3, axis=2)
        images.save(maps / f"{number:03d}.png", lines, None, "none", overwrite=True)
        common = {"prompt": scene.prompt, "seed": number}
        steered = {
            "controlnet": str(controlnet),
            "control-image": str(maps / f"{number:03d}.png"),
            "control-scale": options.control_scale,
        }
        rows += [{**common, **steered, "output": f"control/{number:03d}.png"}]
        rows += [{**common, "output": f"text/{number:03d}.png"}]
    rows.sort(key=lambda row: row["output"])  # what shares its settings stands together
    prompts = options.work / "prompts.jsonl"
    write_bytes(prompts, "".join(json.dumps(row) + "\n" for row in rows).encode(), overwrite=True)
    run(
        "batch",
        str(prompts),
        "-o",
        str(folder),
        "-m",
        options.model,
        "--size",
        f"{side}x{side}",
        "--guidance-scale",
        str(options.guidance_scale),
        "--overwrite",
    )
    return folder


def through_autoencoder(model: str, held_out: list[HeldOut]) -> list[NDArray[np.uint8]]:
    """The scenes as the model's autoencoder gives them back: what no picture can do better than."""
    vae = weights.load_model(weights.resolve_model(model)).vae
    given = []
    for scene in held_out:
        pixels = torch.from_numpy(scene.pixels.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1)
        given.append(latents.to_uint8(latents.decode(vae, latents.encode(vae, pixels)))[0])
    return given


def measure(
    pictures: dict[str, list[NDArray[np.uint8]]], held_out: list[HeldOut], side: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures of each row of pictures, and those of each held-out scene."""
    headline = max(1, side // 64)
    found = {
        tolerance: {
            name: [
                following(edge_mask(pixels), scene.edges, tolerance)
                for pixels, scene in zip(pictures[name], held_out, strict=True)
            ]
            for name in ROWS
        }
        for tolerance in range(2 * headline + 1)
    }
    f1 = {name: [one.f1 for one in found[headline][name]] for name in ROWS}
    ends = {
        name: {
            "precision": round(float(np.mean([one.precision for one in row])), 4),
            "recall": round(float(np.mean([one.recall for one in row])), 4),
        }
        for name, row in found[headline].items()
    }
    figures = {
        "tolerance_px": headline,
        "f1": means_with_intervals(f1, ("control", "text")),
        "precision_and_recall": ends,
        "f1_by_tolerance_px": {
            tolerance: {name: round(float(np.mean([one.f1 for one in row])), 4) for name, row in rows.items()}
            for tolerance, rows in found.items()
        },
    }
    scenes = [
        {"prompt": scene.prompt, "seed": number, **{name: round(f1[name][number], 4) for name in ROWS}}
        for number, scene in enumerate(held_out)
    ]
    return figures, scenes


def report(
    options: argparse.Namespace,
    scenes: Scenes,
    figures: dict[str, Any],
    found: list[dict[str, Any]],
    pictures: dict[str, list[NDArray[np.uint8]]],
) -> bool:
    """Write report.json and report.png, print the table; whether what is wanted was reached."""
    f1, count = figures["f1"], len(found)
    reached = f1["control"]["mean"] >= WANTED_F1 and f1["ratio"]["mean"] >= WANTED_RATIO
    trained = ("scenes", "steps", "batch_size", "learning_rate", "train_options")
    drawn = ("guidance_scale", "control_scale")
    write_json(
        options.work / "report.json",
        {
            "model": Path(options.model).name,
            "side_px": scenes.side,
            "mixture": scenes.mixture,
            "training": {name: getattr(options, name) for name in trained},
            "drawing": {name: getattr(options, name) for name in drawn},
            "held_out": count,
            "wanted": {"f1": WANTED_F1, "ratio": WANTED_RATIO, "reached": reached},
            **figures,
            "scenes": found,
        },
    )
    rows = []
    for number, scene in enumerate(found[:SHOWN]):
        lines = images.read_pixels(options.work / "edges" / f"{number:03d}.png")
        told = f"{scene['control']:.2f} | {scene['text']:.2f}  {scene['prompt']}"
        rows.append(((lines, pictures["control"][number], pictures["text"][number]), told))
    paper = np.asarray(sheet(rows, ("edges", "with the ControlNet", "text only")))
    images.save(options.work / "report.png", paper, None, "none", overwrite=True)
    print(f"edge F1 of {count} held-out scenes, tolerance {figures['tolerance_px']} px, 95 % interval")
    for name, row in f1.items():
        print(f"{name:8} {row['mean']:6.3f}   {row['low']:.3f} ... {row['high']:.3f}")
    print(f"wanted: control >= {WANTED_F1}, ratio >= {WANTED_RATIO}: {'' if reached else 'not '}reached")
    return reached


def main() -> None:
    """Render, train, draw, measure, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of everything that is made")
    parser.add_argument("--model", default="pocket", help="base, as in `t2i generate --model`")
    parser.add_argument("--mixture", default=ALL, choices=MIXTURES, help="what the scenes show")
    parser.add_argument("--scenes", type=int, default=3000, help="pictures to train on")
    parser.add_argument("--held-out", type=int, default=48, help="scenes to measure with")
    parser.add_argument(
        "--steps", type=int, default=4000, help="training steps; with more, the same command goes on"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="pictures per step")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak")
    parser.add_argument("--guidance-scale", type=float, default=2.0, help="of all pictures")
    parser.add_argument("--control-scale", type=float, default=1.5, help="of those with the ControlNet")
    parser.add_argument("--font", type=Path, default=DEFAULT_FONT, help="Noto Color Emoji")
    parser.add_argument("--only", nargs="+", metavar="CONCEPT", help="scenes of these concepts alone")
    parser.add_argument("train_options", nargs="*", metavar="-- OPTION", help="further ones of `t2i train`")
    options = parser.parse_args()
    defaults = weights.resolve_model(options.model).defaults
    side = min(defaults.width, defaults.height)
    scenes = Scenes(options.mixture, side, options.font, frozenset(options.only) if options.only else None)
    data = make_dataset(scenes, options.scenes, options.work)
    held_out = scenes.held_out(options.held_out)
    folder = draw(options, train(options, data, side), held_out, side)
    pictures = {
        name: [images.read_pixels(folder / name / f"{number:03d}.png") for number in range(len(held_out))]
        for name in ("control", "text")
    }
    pictures["ceiling"] = through_autoencoder(options.model, held_out)
    figures, rows = measure(pictures, held_out, side)
    sys.exit(0 if report(options, scenes, figures, rows, pictures) else 1)


if __name__ == "__main__":
    main()
