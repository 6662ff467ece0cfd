"""Train the judge on fresh renderings and write its weights and figures.

    python examples/pocket/train_recogniser.py --work work/recogniser
    python examples/pocket/train_recogniser.py --work runs/quick --quick      ten glyphs, a minute

Its training scenes hold every combination, those held out from pocket included, and no picture that pocket
made; nothing of it flows back into pocket. WORK keeps the renderings, a log and a checkpoint: the same
command goes on where it was stopped, and arrives at the same weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from glyphs import DEFAULT_FONT, GlyphSource
from judging import judge_plans
from mixtures import MIXTURES, TEN, Mixture
from recogniser_examples import UNKNOWN, Examples, Targets, examples, targets_of
from safetensors import safe_open
from safetensors.torch import save_file
from spoiling import empty_some, move, spoil
from suite import drawn_plans, held_out_plans, vocabulary
from torch import Tensor
from torch.nn import functional as F

from t2i import durable
from t2i.catalog import ASSETS
from t2i.evaluation.recogniser import Recogniser, load_recogniser, save_recogniser
from t2i.evaluation.recogniser_network import Answers

FOLDER = ASSETS / "recogniser"
TEN_FONT = Path(__file__).parents[2] / "tests" / "pocket" / "ten-glyphs.ttf"
WOBBLE_PX = 1.2  # at 64 px
WARM_UP = 0.05  # share of the steps
SHARES = {"centres": 1.0, "concepts": 1.0, "colours": 0.5, "background": 0.2, "style": 0.2}
"""Weight of each part of the loss."""


@dataclass(frozen=True)
class Course:
    """How to train.

    Attributes:
        steps: Number of updates.
        batch_size: Pictures per update.
        scenes: How many renderings to hold in memory (49 kB each); each is spoilt anew every time.
        learning_rate: Peak; it rises over the first twentieth and falls to 0 along a cosine.
        save_every: Steps between checkpoints.
    """

    steps: int = 9000
    batch_size: int = 64
    scenes: int = 40_000
    learning_rate: float = 3e-3
    save_every: int = 250

    def rate(self, step: int) -> float:
        """Learning rate of this update, counted from 0."""
        warm_up = max(1, round(WARM_UP * self.steps))
        if step < warm_up:
            return self.learning_rate * (step + 1) / warm_up
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (self.steps - warm_up)))


QUICK = Course(steps=150, batch_size=32, scenes=2000, learning_rate=4e-3)


def new_judge(widths: tuple[int, int, int] = Recogniser.own_widths) -> Recogniser:
    """An untrained judge with the classes of the vocabulary that `suite.py` writes."""
    words: dict[str, Any] = vocabulary()
    return Recogniser(
        tuple(words["concepts"]), tuple(words["backgrounds"]), words["colours"], words["styles"], widths
    )


def centre_loss(logits: Tensor, centres: Tensor) -> Tensor:
    """Focal loss of the map of centres, per centre.

    Args:
        logits: (B, 16, 16).
        centres: Same shape, 1 at centres and less around them; what is near a centre is blamed less.

    Source: CenterNet, arXiv:1904.07850, eq. (1), with alpha = 2 and beta = 4.
    """
    p = logits.sigmoid()
    is_centre = centres >= 1
    right = (1 - p) ** 2 * F.logsigmoid(logits)
    wrong = (1 - centres) ** 4 * p**2 * F.logsigmoid(-logits)
    return -torch.where(is_centre, right, wrong).sum() / is_centre.sum().clamp(min=1)


def losses(answers: Answers, targets: Targets, background: Tensor, style: Tensor) -> dict[str, Tensor]:
    """Every part of the loss, not yet weighted; what is `UNKNOWN` counts nowhere."""

    def named(logits: Tensor, classes: Tensor) -> Tensor:
        total = F.cross_entropy(logits.float(), classes, ignore_index=UNKNOWN, reduction="sum")
        return total / (classes != UNKNOWN).sum().clamp(min=1)

    return {
        "centres": centre_loss(answers.centres.float(), targets.centres),
        "concepts": named(answers.concepts, targets.concepts),
        "colours": named(answers.colours, targets.colours),
        "background": named(answers.background, background),
        "style": named(answers.style, style),
    }


def batch_of(data: Examples, rows: Tensor, device: torch.device) -> tuple[Tensor, Targets, Tensor, Tensor]:
    """Spoilt pictures (B, 3, 128, 128), -1...1, and what they show."""
    pixels = data.pictures[rows].to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    background, style = data.backgrounds[rows].to(device), data.styles[rows].to(device)
    pixels, things, emptied = empty_some(pixels, data.things[rows].to(device))
    background[emptied], style[emptied] = UNKNOWN, UNKNOWN
    pixels, things = move(pixels, things, WOBBLE_PX)
    return spoil(pixels), targets_of(things), background, style


class Checkpoint:
    """The state of a training, one safetensors file.

    Args:
        path: Its place.
        course: Another course is not gone on with.
    """

    def __init__(self, path: Path, course: Course) -> None:
        self.path, self.course = path, json.dumps(asdict(course))

    def save(self, step: int, model: Recogniser, optimizer: torch.optim.AdamW) -> None:
        """Write the state after `step` updates."""
        state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for index, values in optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{index}.{name}": tensor for name, tensor in values.items()}
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        metadata = {"step": str(step), "course": self.course}
        durable.write_with(self.path, lambda temporary: save_file(plain, temporary, metadata=metadata))

    def load(self, model: Recogniser, optimizer: torch.optim.AdamW) -> int:
        """Read the state, if there is one; returns the number of updates made.

        Raises:
            SystemExit: It is of another course.
        """
        if not self.path.exists():
            return 0
        with safe_open(self.path, "pt") as file:
            metadata = file.metadata()
            if metadata["course"] != self.course:
                raise SystemExit(
                    f"{self.path} is of another course, {metadata['course']}; choose another --work"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n[:6] == "model."})
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, index, *rest = name.split(".")
            if kind == "optimizer":
                state.setdefault(int(index), {})[rest[0]] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(metadata["step"])


def train(
    model: Recogniser,
    data: Examples,
    course: Course,
    checkpoint: Checkpoint,
    log: Callable[[dict[str, float]], None],
    stop_after: int | None = None,
) -> int:
    """Train a judge, from a checkpoint if there is one.

    Args:
        model: Is changed; its device is used.
        data: What to learn from.
        course: How.
        checkpoint: Written now and then and at the end.
        log: Called with the loss and its parts every 50 steps.
        stop_after: Make at most so many updates now; None for all.

    Returns:
        The number of updates made in all.
    """
    device = next(model.parameters()).device
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=course.learning_rate, weight_decay=0.02)
    first = step = checkpoint.load(model, optimizer)
    last = course.steps if stop_after is None else min(course.steps, first + stop_after)
    started = time.monotonic()
    while step < last:
        torch.manual_seed(step)  # what a step sees depends on its number alone, so a resumed run is the same
        rows = torch.randint(len(data.pictures), (course.batch_size,))
        pixels, targets, background, style = batch_of(data, rows, device)
        optimizer.param_groups[0]["lr"] = course.rate(step)
        with torch.autocast(device.type, torch.bfloat16):
            answers = model(pixels.contiguous(memory_format=torch.channels_last))
        parts = losses(answers, targets, background, style)
        loss = torch.stack([SHARES[name] * part for name, part in parts.items()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 50 == 0 or step == last:
            rate = (step - first) * course.batch_size / (time.monotonic() - started)
            told = {name: round(part.item(), 4) for name, part in parts.items()}
            log({"step": step, "loss": round(loss.item(), 4), **told, "pictures_per_s": round(rate, 1)})
        if step % course.save_every == 0 or step == last:
            checkpoint.save(step, model, optimizer)
    return step


def main() -> None:
    """Read the command line, train, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    usual = Course()
    parser.add_argument("--work", type=Path, required=True, help="folder for renderings, log and checkpoint")
    parser.add_argument("--steps", type=int, default=usual.steps, help="number of updates")
    parser.add_argument("--batch-size", type=int, default=usual.batch_size, help="pictures per update")
    parser.add_argument("--scenes", type=int, default=usual.scenes, help="renderings held in memory")
    parser.add_argument("--learning-rate", type=float, default=usual.learning_rate, help="its peak")
    parser.add_argument("--stop-after", type=int, help="make at most so many updates now, and no weights")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that render")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda"
    )
    parser.add_argument("--copies", type=int, default=3, help="renderings of each question for the figures")
    parser.add_argument("--output", type=Path, help=f"weights; default: {FOLDER.name} in the package")
    parser.add_argument("--quick", action="store_true", help="ten glyphs, few steps; writes into WORK")
    options = parser.parse_args()
    course = Course(options.steps, options.batch_size, options.scenes, options.learning_rate)
    mixture: Mixture = MIXTURES["pocket"]
    font, output = DEFAULT_FONT, options.output or FOLDER / "recogniser.safetensors"
    if options.quick:
        course, mixture, font = QUICK, replace(mixture, concepts=TEN), TEN_FONT
        output = options.output or options.work / "recogniser.safetensors"
    options.work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    data = examples(course.scenes, options.work / "scenes", mixture, font, options.workers)
    print(f"{len(data.pictures)} renderings, {time.monotonic() - started:.0f} s", flush=True)

    def log(values: dict[str, float]) -> None:
        line = json.dumps(values)
        print(line, flush=True)
        with (options.work / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    torch.manual_seed(0)
    model = new_judge().to(options.device)
    checkpoint = Checkpoint(options.work / "checkpoint.safetensors", course)
    if train(model, data, course, checkpoint, log, options.stop_after) < course.steps:
        return
    save_recogniser(model, output)
    judge = load_recogniser(output)  # measured as stored, not as trained
    plans = drawn_plans(mixture, 10) if options.quick else held_out_plans()
    record = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": "renderings of all combinations, held-out ones included; no generated picture",
        "training": asdict(course),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "renderings": judge_plans(judge, plans, GlyphSource(font), 1 if options.quick else options.copies),
    }
    durable.write_json(output.with_suffix(".json"), record)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
