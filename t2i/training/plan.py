"""What a run would do, and what is known of its memory, time and disk; nothing is written.

A figure that nobody has measured is not guessed: it is called unknown, with what would measure it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch
from safetensors import safe_open

from t2i.config import TrainConfig
from t2i.dataset import ImageFolder
from t2i.methods.clip import build_tokenizer, clip_config
from t2i.methods.unet import build_unet
from t2i.methods.vae import build_vae
from t2i.training.class_images import class_files
from t2i.training.costs import guessed_seconds, learning_on_base
from t2i.training.curves import read_metrics
from t2i.training.folder import PARTS, check_folder, goes_on, record_of, stages_of
from t2i.training.inputs import check_inputs
from t2i.training.journal import read_journal
from t2i.training.optimising import check_optimizer
from t2i.training.page import size_text, time_text
from t2i.training.processes import check_processes
from t2i.training.reading import read_dataset
from t2i.training.resuming import FREE_ON_RESUME, RECORDED_ON_RESUME
from t2i.training.stage import pictures_per_step, steps_for
from t2i.training.start import check_start, settled
from t2i.training.trackers import check_trackers
from t2i.training.validation import hold_out
from t2i.weights.safety import read_config

BYTES_EACH = {"adamw": 8, "adamw8bit": 2, "muon": 4}
"""Of the optimizer's state for a weight: two moments in 32 or 8 bits; Muon keeps one of most weights."""
SETS_THE_PACE = (
    "device",
    "compile",
    "num_processes",
    "optimizer",
    "batch_size",
    "gradient_accumulation_steps",
)
"""Settings that may change on resume and change the time of a step."""
SAME_COST = {"epochs", "max_train_steps", "lr_scheduler", "lr_power", "lr_decay", "learning_rate",
             "lr_warmup_steps", "weight_decay", "ema_decay", "seed", "validation_split"}  # fmt: skip
"""Settings that change neither the time nor the memory of a step."""


def plan_run(config: TrainConfig) -> Iterator[str]:
    """Lines for a person about every stage, after the checks that a run begins with.

    Raises:
        T2IError: As `t2i.training.train`, as far as it can be known without decoding a picture.
    """
    config = settled(config)
    check_folder(config)
    check_processes(config)
    check_optimizer(config)
    check_trackers(config)
    check_start(config)
    folder = check_inputs(config, read_dataset(config).without_test())
    held_out = hold_out(folder, config.validation_split, None)
    learnt = len(folder.examples) - len(held_out)
    of_a_pass = sum(one.repeats for number, one in enumerate(folder.examples) if number not in held_out)
    yield f"dataset   {folder.summary()}; {learnt} to learn from, {len(held_out)} held out"
    passes = f" = {config.batch_size} x {config.gradient_accumulation_steps} passes"
    accumulated = passes if config.gradient_accumulation_steps > 1 else ""
    yield f"batch     {pictures_per_step(config)} pictures a step{accumulated}, {config.resolution} px"
    disk = len(folder.examples) * 3 * config.resolution**2
    complete = True
    for stage in stages_of(config):
        steps = steps_for(config, stage, of_a_pass, any(folder.captions()))
        seen = steps * pictures_per_step(config) / of_a_pass
        yield f"{stage:9} {steps} steps, {seen:.3g} passes over the pictures"
        if config.class_prompt is not None:
            missing = sum(not file.exists() for file in class_files(config))
            yield f"          {missing} of {config.num_class_images} class pictures are drawn first"
        count = learning_parameters(config, stage, folder)
        if count is None:
            yield "          parameters that learn: unknown until the base model is loaded"
            complete = False
        else:
            held = count * (4 + 4 + 4 + BYTES_EACH[config.optimizer])
            yield f"          {count:,} parameters learn"
            yield f"          memory: {size_text(held)} for weights, gradients, optimizer and average"
            disk += count * (4 + 4 + BYTES_EACH[config.optimizer]) * (config.checkpoints_total_limit + 1)
            disk += 4 * count * (3 if held_out else 1)  # the result, the best weights and their result
        yield from (f"          {line}" for line in _measured(config, stage, steps, count))
    free = shutil.disk_usage(next(place for place in _upwards(Path(config.output)) if place.is_dir())).free
    more = "" if complete else " and what the parameters that learn take"
    yield f"disk      {size_text(disk)} for pictures, checkpoints, results{more}; {size_text(free)} are free"


def learning_parameters(config: TrainConfig, stage: str, folder: ImageFolder) -> int | None:
    """How many numbers a stage trains; None where only the base model tells.

    Args:
        config: The run.
        stage: One of its stages.
        folder: Its pictures; the captions decide how many tokens there are.
    """
    given = None if config.model is None else Path(config.model)
    with torch.device("meta"):  # shapes alone, no numbers
        if stage == "vae":
            if given is not None and (given / "vae").is_dir() and not config.grow_vae:
                return _stored(given / "vae", ("encoder.", "quant_conv.") if config.freeze_encoder else ())
            return sum(value.numel() for value in build_vae(config).parameters())
        if stage == "clip":
            from transformers import CLIPModel

            captions = folder.captions()
            tokenizer = build_tokenizer(captions, config.vocabulary_size, config.max_tokens)
            model = CLIPModel(clip_config(config, tokenizer))
            return sum(value.numel() for value in model.parameters())
        if stage != "unet":
            return learning_on_base(config, stage, folder)
        start = given if given is not None else Path(config.output) / PARTS
        if (start / "unet").is_dir():
            count = _stored(start / "unet")
        else:
            scratch = config.method == "scratch"
            channels, shrink = config.latent_channels, 2 ** (len(config.vae_channels) - 1)
            width = config.text_width
            if not scratch:
                vae = read_config(start / "vae" / "config.json")
                channels, shrink = vae["latent_channels"], 2 ** (len(vae["block_out_channels"]) - 1)
                width = read_config(start / "text_encoder" / "config.json")["hidden_size"]
            unet = build_unet(config, channels, config.resolution // shrink, width)
            count = sum(value.numel() for value in unet.parameters())
        if config.train_text_encoder:
            if not (start / "text_encoder").is_dir():
                return None
            count += _stored(start / "text_encoder")
        return count


def _measured(config: TrainConfig, stage: str, steps: int, learning: int | None) -> Iterator[str]:
    """Time and memory of the run that is in OUTPUT, if it cost the same a step; else a guess of the time."""
    folder = Path(config.output) / stage
    record, rows = record_of(folder), read_metrics(folder)
    now, free = config.to_dict(), FREE_ON_RESUME | RECORDED_ON_RESUME | SAME_COST
    speeds = [row["images_per_s"] for row in rows if "images_per_s" in row]
    differ = [] if record is None else [
        name for name, value in record.settings.items()
        if (name not in free or name in SETS_THE_PACE) and now.get(name) != value
    ]  # fmt: skip
    if record is None or not speeds or differ:
        guess = guessed_seconds(config, stage, steps, learning)
        if guess is not None:
            yield f"time: about {time_text(guess)} of steps, a guess from the size of the network"
        why = f"{folder} was measured with other {', '.join(differ)}" if differ else "not measured yet"
        more = "" if guess is not None else "time and "
        yield f"{more}memory of activations: unknown, {why} (train a few steps with this --output)"
        return
    done = rows[-1]["step"] if goes_on(config, stage) else 0
    seconds = max(0, steps - done) * pictures_per_step(config) / median(speeds)
    basis = f"{median(speeds):.3g} pictures/s, the median of {len(speeds)} lines of {folder}/metrics.jsonl"
    yield f"time: {time_text(seconds)} for {max(0, steps - done)} steps at {basis}"
    peak = read_journal(folder).get("about", {}).get("peak_memory_bytes")
    if peak:
        yield f"memory: that run held {size_text(peak)} at most, all in all"


def _stored(folder: Path, without: Sequence[str] = ()) -> int:
    """Numbers in the weights of a network on the disk, by the headers of its files."""
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                if not name.startswith(tuple(without)) or not without:
                    count += math.prod(file.get_slice(name).get_shape())
    return count


def _upwards(path: Path) -> Iterator[Path]:
    yield path.resolve()
    yield from path.resolve().parents
