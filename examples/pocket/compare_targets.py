"""Train one small UNet on each target, v-prediction and rectified flow, and compare what they draw.

    python examples/pocket/compare_targets.py --parts runs/quick --output runs/targets

--parts is the work folder of `make.sh --quick`: its data/ and parts/ (autoencoder, text encoder) are taken
as they are. Everything but the target is the same: pictures, captions, initial weights, order, noise, steps,
learning rate, and the distribution of the noise levels, whose ln σ is that of ln(s / (1−s)). Losses of
different targets cannot be compared, so the pictures are: `t2i eval` judges them by the recogniser and by
FID and KID to the renderings, for several numbers of steps, with a solver of first order (DDIM, which is
Euler's step on a straight path) and one of second order. Stopped at any moment, run it again: each part goes
on from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from suite import lines, questions_of_ten

TARGETS: dict[str, tuple[str, ...]] = {
    "v": ("--prediction-type", "v_prediction", "--zero-terminal-snr"),
    "flow": ("--prediction-type", "flow_prediction"),
}
SAME = (
    "--unet-channels", "48", "--unet-channels", "96", "--batch-size", "64", "--optimizer", "muon",
    "--learning-rate", "0.002", "--lr-warmup-steps", "20", "--lr-decay", "0.6", "--ema-decay", "0.97",
    "--train-text-encoder",
    "--snr-gamma", "0", "--timestep-sampling", "logit_normal", "--logit-mean", "0.5", "--logit-std", "1.4",
    "--sample-steps", "1000000", "--checkpointing-steps", "100", "--memorisation-samples", "0",
    "--report-to", "none",
)  # fmt: skip
SOLVERS = ("ddim", "dpm++2m")
SHARES = ("adherence", "things there", "backgrounds right")
FIGURES = (*SHARES, "FID", "KID", "diversity")

Row = tuple[str, str, int]
"""Target, solver, steps."""


def t2i(*arguments: object) -> None:
    """Run `t2i` to its end; its stdout goes to stderr, which is for progress here."""
    command = [sys.executable, "-m", "t2i", *map(str, arguments)]
    print("+ t2i", *map(str, arguments), file=sys.stderr)
    subprocess.run(command, check=True, stdout=sys.stderr)


def write_prompts(path: Path) -> None:
    """What is asked of both: the suite of the ten things."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(lines(questions_of_ten()), encoding="utf-8")
    os.replace(partial, path)


def train(work: Path, output: Path, target: str, steps: int, seed: int) -> None:
    """Train one UNet; goes on from the newest checkpoint, and does nothing where it is done."""
    asked, kept = json.dumps([*SAME, *TARGETS[target], steps, seed]), output / "asked.json"
    if (output / "unet").is_dir() and not (kept.is_file() and kept.read_text(encoding="utf-8") == asked):
        raise SystemExit(
            f"compare_targets.py: {output} holds a training of other settings; name another --output"
        )
    kept.write_text(asked, encoding="utf-8")
    if (output / "unet" / "done.json").is_file():
        return
    started = any((output / "unet" / "checkpoints").glob("checkpoint-*"))
    t2i(
        "train", "--method", "unet", "--dataset", work / "data", "--model", work / "parts",
        "--resolution", 32, "--output", output, "--steps", steps, "--seed", seed, *SAME, *TARGETS[target],
        *(("--resume", "latest") if started else ("--overwrite",)),
    )  # fmt: skip


def evaluate(work: Path, output: Path, counts: Sequence[int], images: int) -> None:
    """Measure one model with every solver and number of steps; does nothing where that has been done."""
    report, done = output / "eval" / "report.json", output / "unet" / "done.json"
    prompts = output / "prompts.jsonl"
    same_prompts = prompts.is_file() and prompts.read_text(encoding="utf-8") == lines(questions_of_ten())
    if same_prompts and report.is_file() and done.stat().st_mtime < report.stat().st_mtime:
        measured = json.loads(report.read_text())
        asked = [{"scheduler": solver, "steps": steps} for solver in SOLVERS for steps in counts]
        same = [run["settings"] for run in measured["runs"]] == asked
        if same and measured["evaluation"]["num_images"] == images:
            return
    write_prompts(prompts)
    t2i(
        "eval", output / "model", "--prompts", prompts, "--num-images", images, "--reference", work / "data",
        "--reference-limit", 2000, "--validation-rows", 0, "--bootstrap", 40, "--report-pictures", 60,
        "--sweep", f"scheduler={','.join(SOLVERS)}", "--sweep", f"steps={','.join(map(str, counts))}",
        "--output", output / "eval", "--overwrite",
    )  # fmt: skip


def rows_of(reports: dict[str, Sequence[dict[str, Any]]]) -> Iterator[tuple[Row, dict[str, list[float]]]]:
    """The figures of each target, solver and number of steps, one for each seed that has them.

    Args:
        reports: Target → contents of its report.json files, one for each seed, all of the same sweep.
    """
    for target, of_seeds in reports.items():
        for number, run in enumerate(of_seeds[0]["runs"]):
            settings, found = run["settings"], {}
            for name in FIGURES:
                values = [report["runs"][number]["figures"].get(name, {}).get("value") for report in of_seeds]
                found[name] = [value for value in values if value is not None]
            yield (target, settings["scheduler"], settings["steps"]), found


def table(rows: Sequence[tuple[Row, dict[str, list[float]]]]) -> str:
    """A Markdown table: the mean over the seeds, and the lowest and highest where there are several."""
    lines = [f"| target | solver | steps | {' | '.join(FIGURES)} |", "|---|---|--:|" + "--:|" * len(FIGURES)]
    for (target, solver, steps), found in sorted(rows, key=lambda row: (row[0][1], row[0][2], row[0][0])):
        shown = []
        for name in FIGURES:
            values = [100 * value if name in SHARES else value for value in found[name]]
            unit = " %" if name in SHARES else ""
            spread = f" ({min(values):.4g} to {max(values):.4g})" if len(values) > 1 else ""
            shown.append(f"{mean(values):.4g}{unit}{spread}" if values else "not measured")
        lines.append(f"| {target} | {solver} | {steps} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, train, measure, print the table and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", type=Path, required=True, help="work folder with data/ and parts/")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/targets"), help="folder for everything made"
    )
    parser.add_argument(
        "--targets", nargs="+", choices=TARGETS, default=list(TARGETS), help="what to compare"
    )
    parser.add_argument("--steps", type=int, default=340, help="training steps of each UNet")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each target, with seeds 0, 1, …")
    parser.add_argument("--sampling-steps", type=int, nargs="+", default=[10, 20, 50], help="to draw with")
    parser.add_argument("--images", type=int, default=2, help="pictures of each prompt")
    options = parser.parse_args()
    for part in ("data", "parts/vae", "parts/text_encoder"):
        if not (options.parts / part).is_dir():
            parser.error(f"{options.parts} has no {part}; make it with examples/pocket/make.sh --quick")
    if min(options.steps, options.seeds, options.images, *options.sampling_steps) < 1:
        parser.error("--steps, --seeds, --images and --sampling-steps must be at least 1")
    reports: dict[str, list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        for target in options.targets:
            folder = options.output / f"{target}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            train(options.parts, folder, target, options.steps, seed)
            evaluate(options.parts, folder, options.sampling_steps, options.images)
            report = json.loads((folder / "eval" / "report.json").read_text())
            reports.setdefault(target, []).append(report)
    printed = table(list(rows_of(reports)))
    partial = options.output / "table.md.part"
    partial.write_text(printed + "\n", encoding="utf-8")
    os.replace(partial, options.output / "table.md")
    print(printed)


if __name__ == "__main__":
    main()
