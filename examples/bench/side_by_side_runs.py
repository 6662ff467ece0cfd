"""One training on either side, in a process of its own, for `train_side_by_side.py`.

python side_by_side_runs.py ours FILE ARGUMENTS...        t2i ARGUMENTS; its seconds go to FILE
python side_by_side_runs.py theirs SCRIPT ARGUMENTS...    a script of Diffusers
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import runpy
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from side_by_side_inputs import learned_numbers

SCRIPTS = {"full": "train_text_to_image.py", "lora": "train_text_to_image_lora.py"}
RATES = {"full": "1e-5", "lora": "1e-4"}
RANK, TARGETS = 16, ("to_q", "to_k", "to_v", "to_out.0")  # the layers that Diffusers' script adapts
CACHING = (
    ("t2i.training", "load_data"),
    ("t2i.methods.denoising", "cached_latents"),
    ("t2i.methods.denoising", "cached_prompts"),
)
STEP = ("t2i.training.stage", "Stage", "_one_step")
NEVER = "1000000"  # steps between checkpoints and between samples


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        training_s: From the begin of the first step to the end of the last.
        caching_s: What was computed once before it.
        whole_s: The command.
        loss: Mean over the steps; each side draws noise of its own.
        learned: Numbers in what was made: the weights of the UNet, or the factors of the LoRA.
    """

    training_s: float
    caching_s: float
    whole_s: float
    loss: float
    learned: int

    @property
    def seconds(self) -> float:
        """What counts."""
        return self.training_s + self.caching_s


@dataclass(frozen=True)
class Bench:
    """What both sides are told; `folder` is for what they make."""

    folder: Path
    scripts: Path
    model: Path
    data: Path
    resolution: int
    pictures: int
    batch_size: int
    epochs: int
    workers: int

    @property
    def steps(self) -> int:
        """Of one training."""
        return self.images // self.batch_size

    @property
    def images(self) -> int:
        """That one training sees, each as often as there are epochs."""
        return self.pictures * self.epochs

    def ours(self, method: str, precision: str, also: str = "") -> Run:
        """Train with t2i, with an empty cache."""
        out, told = self.folder / "ours", self.folder / "ours.json"
        lora = ["--rank", str(RANK), *(part for name in TARGETS for part in ("--target-modules", name))]
        whole_s, _ = self._run("ours", str(told), [
            "train", "--method", method, "--model", str(self.model), "--dataset", str(self.data),
            "--output", str(out), "--resolution", str(self.resolution),
            "--batch-size", str(self.batch_size), "--epochs", str(self.epochs),
            "--mixed-precision", precision, "--seed", "0",
            "--learning-rate", RATES[method], "--lr-scheduler", "constant", "--lr-warmup-steps", "0",
            "--snr-gamma", "0", "--caption-dropout", "0", "--report-to", "none", "--log-steps", "1",
            "--checkpointing-steps", NEVER, "--sample-steps", NEVER, "--sampling-steps", "1",
            "--ema-decay", "0", "--memorisation-samples", "0",
            *(lora if method == "lora" else ()), *shlex.split(also),
        ])  # fmt: skip
        seconds = json.loads(told.read_text())
        lines = (out / method / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines]
        made = learned_numbers(out / ("lora.safetensors" if method == "lora" else "model/unet"))
        shutil.rmtree(out)
        return Run(**seconds, whole_s=whole_s, loss=statistics.mean(losses), learned=made)

    def theirs(self, method: str, precision: str) -> Run:
        """Train with Diffusers' script; its progress bar tells when the first step begins, the last ends."""
        out = self.folder / "theirs"
        whole_s, heard = self._run("theirs", str(self.scripts / SCRIPTS[method]), [
            "--pretrained_model_name_or_path", str(self.model), "--train_data_dir", str(self.data),
            "--output_dir", str(out), "--resolution", str(self.resolution), "--center_crop",
            "--train_batch_size", str(self.batch_size), "--num_train_epochs", str(self.epochs),
            "--mixed_precision", precision, "--seed", "0",
            "--learning_rate", RATES[method], "--lr_scheduler", "constant", "--lr_warmup_steps", "0",
            "--adam_beta2", "0.99", "--checkpointing_steps", NEVER,
            "--dataloader_num_workers", str(self.workers),
            *(("--rank", str(RANK)) if method == "lora" else ()),
        ])  # fmt: skip
        bars = [(moment, text) for moment, text in heard if "Steps:" in text]
        last = f" {self.steps}/{self.steps} ["
        ends = [moment for moment, text in bars if last in text.rpartition("Steps:")[2]]
        if not ends:
            raise SystemExit("Diffusers' script showed no progress bar that ends: is it of another version?")
        told = re.findall(r" (\d+)/\d+ \[[^]\r]*step_loss=([^,\]]+)", "".join(text for _, text in heard))
        losses = {int(step): float(loss) for step, loss in told}  # the first time it shows the loss before
        made = learned_numbers(out / ("pytorch_lora_weights.safetensors" if method == "lora" else "unet"))
        shutil.rmtree(out)
        return Run(ends[0] - bars[0][0], 0.0, whole_s, statistics.mean(losses.values()), made)

    def _run(self, side: str, what: str, arguments: Sequence[str]) -> tuple[float, list[tuple[float, str]]]:
        """Seconds of a command, and what it said on stderr and when."""
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(self.folder / "hf")}
        line = [sys.executable, __file__, side, what, *arguments]
        began, heard = time.monotonic(), list[tuple[float, str]]()
        with subprocess.Popen(
            line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        ) as running:
            assert running.stderr is not None
            while chunk := os.read(running.stderr.fileno(), 1 << 16):
                heard.append((time.monotonic(), chunk.decode(errors="replace")))
        if running.returncode:
            tail = "".join(text for _, text in heard)[-3000:]
            raise SystemExit(f"{tail}\nfailed: {shlex.join(line)}")
        return time.monotonic() - began, heard


def inside(side: str, what: str, arguments: Sequence[str]) -> None:
    """One command, in this process.

    Args:
        side: "ours" is `t2i ARGUMENTS`, "theirs" a script of Diffusers.
        what: The script, or for ours the file that seconds are written to.
        arguments: Of the command.
    """
    if side == "theirs":
        if not has_torchvision():
            import datasets  # noqa: F401 (they all look for torchvision now, and go on without it)
            import diffusers  # noqa: F401
            import transformers
            from stand_in_transforms import stand_in

            transformers.utils.is_torchvision_available()
            stand_in()
        sys.argv = [what, *arguments]
        runpy.run_path(what, run_name="__main__")
        return
    from t2i.__main__ import main as t2i

    caching, steps = watch()
    sys.argv = ["t2i", *arguments]
    try:
        t2i()
    finally:
        if steps:
            seconds = {
                "caching_s": sum(end - begin for spans in caching for begin, end in spans),
                "training_s": steps[-1][1] - steps[0][0],
            }
            Path(what).write_text(json.dumps(seconds))


Spans = list[tuple[float, float]]


def watch() -> tuple[list[Spans], Spans]:
    """Have t2i note when it caches and when it makes a step."""
    caching = [timed(importlib.import_module(module), name) for module, name in CACHING]
    return caching, timed(getattr(importlib.import_module(STEP[0]), STEP[1]), STEP[2])


def timed(owner: Any, name: str) -> Spans:
    """Have a function note when it begins and ends, in the list that is returned."""
    inner, spans = getattr(owner, name), Spans()

    def noting(*values: Any, **named: Any) -> Any:
        began = time.monotonic()
        result = inner(*values, **named)
        spans.append((began, time.monotonic()))
        return result

    setattr(owner, name, noting)
    return spans


def has_torchvision() -> bool:
    """Whether it is installed."""
    return importlib.util.find_spec("torchvision") is not None


if __name__ == "__main__":
    inside(sys.argv[1], sys.argv[2], sys.argv[3:])
