"""What `t2i batch` costs beyond the networks, and whether its memory grows.

    python examples/bench/batch_overhead.py [--prompts 1000] [--block 64] [--model pocket] [--batch-size 16]

Compares `t2i batch` (recipes, PNG files, manifest) with a bare loop of text encoder, UNet and VAE that writes
nothing: the same prepared model, size of batch, number format, threads, scheduler and steps, the prompts of a
batch in one call of the encoder, the empty prompt encoded once, inference mode, no garbage collection. Both
processes stay alive and take turns, a block of pictures each, the other one stopped (SIGSTOP), so that a
machine that changes its speed changes both. Start-up, the first batches and the last two are left out; what
follows the last picture (report, contact sheets) is told by itself. Progress goes to stderr, one line of JSON
to stdout. Linux; models with one CLIP text encoder.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

THINGS = ("dog", "cat", "car", "rose", "guitar", "apple", "rabbit", "panda", "bicycle", "trumpet")
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "pink", "brown", "orange", "purple")
EVERY = 100  # pictures between two looks at the memory
MOST_RATIO, MOST_CHANGE = 1.05, 3.0  # of the times; of the memory since the first look, in percent
WARM_BATCHES = 2


def prompts(count: int) -> list[str]:
    """`count` prompts with two things and a background each; the first thousand differ."""
    return [
        f"a {THINGS[k % 10]} above a {THINGS[k // 100 % 10]} on a {COLOURS[k // 10 % 10]} background"
        for k in range(count)
    ]


class Runner:
    """A process that can be stopped, and prints a line of JSON for each picture or each batch.

    Attributes:
        made: Pictures so far.
        memory_mb: Pictures → resident memory, at every `EVERY`th picture.
    """

    def __init__(self, line: Sequence[str]) -> None:
        self.made, self.memory_mb = 0, dict[int, float]()
        self.said = tempfile.TemporaryFile()
        self.process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=self.said, text=True)
        self.process.send_signal(signal.SIGSTOP)  # until it is its turn
        self.lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def run_until(self, count: int) -> float:
        """Let it run until `count` pictures are made; returns the seconds that took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGCONT)
        while self.made < count:
            line = self.lines.get()
            if line is None:
                self.said.seek(0)
                sys.stderr.buffer.write(self.said.read())
                raise SystemExit(f"{self.process.args} ended after {self.made} pictures")
            event = json.loads(line)
            if event["event"] == "failed":
                raise SystemExit(f"a picture failed: {event['error']}")
            self.made += {"done": 1, "batch": event.get("pictures", 0)}.get(event["event"], 0)
            if event["event"] == "done" and self.made % EVERY == 0:
                self.memory_mb[self.made] = self._resident_mb()
        self.process.send_signal(signal.SIGSTOP)
        return time.monotonic() - began

    def finish(self) -> float:
        """Let it end; returns the seconds that took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGCONT)
        if self.process.wait() != 0:
            raise SystemExit(f"{self.process.args} ended with {self.process.returncode}")
        return time.monotonic() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # stopped or not
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def _resident_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1000
        raise RuntimeError("no VmRSS")


def bare(count: int, model_name: str, batch_size: int) -> None:
    """The networks alone, in this process; prints a line after each batch."""
    import gc

    import torch

    from t2i.config import GenerateConfig
    from t2i.devices import apply_runtime, choose_runtime
    from t2i.families.prompts import prompt_chunks
    from t2i.latents import latent_size
    from t2i.pipeline import load
    from t2i.schedulers import make_scheduler, set_timesteps
    from t2i.settling import settle

    texts = prompts(count)
    config = GenerateConfig(model=model_name)
    model = load(config)
    config = settle(config, model.defaults, model.scheduler_config)
    assert config.steps and config.guidance_scale and config.height and config.width
    apply_runtime(choose_runtime("auto", "auto", model.family.name))
    device, dtype = model.unet.device, model.unet.dtype
    (tokenizer,), (encoder,) = model.family.parts.tokenizers, model.family.parts.text_encoders
    shape = (model.vae.config.latent_channels, *latent_size(model.vae, config.width, config.height))
    scheduler = make_scheduler(config.scheduler, model.scheduler_config)

    def encode(some: Sequence[str]) -> torch.Tensor:
        ids = torch.tensor([prompt_chunks(tokenizer, text, 1)[0] for text in some], device=device)
        return encoder(ids)[0].to(dtype)

    gc.collect()
    gc.freeze()
    gc.disable()
    with torch.inference_mode():
        empty = encode([""])
        for start in range(0, count, batch_size):
            some = texts[start : start + batch_size]
            both = torch.cat([empty.expand(len(some), -1, -1), encode(some)])
            set_timesteps(scheduler, config.steps, device)
            latents = torch.randn(len(some), *shape).to(device, dtype) * scheduler.init_noise_sigma
            for timestep in scheduler.timesteps:
                scaled = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
                output = model.unet(scaled, timestep, encoder_hidden_states=both, return_dict=False)[0]
                without, with_it = output.chunk(2)
                guided = without + config.guidance_scale * (with_it - without)
                latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
            model.vae.decode(latents / model.vae.config.scaling_factor, return_dict=False)[0].cpu()
            print(json.dumps({"event": "batch", "pictures": len(some)}), flush=True)


def compare(count: int, model: str, batch_size: int, block: int) -> dict[str, object]:
    """Both, in turns."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        file = Path(folder) / "prompts.txt"
        file.write_text("\n".join(prompts(count)) + "\n")
        common = ["--model", model, "--batch-size", str(batch_size)]
        line = [sys.executable, "-m", "t2i", "batch", str(file), "-o", f"{folder}/out", "--json", *common]
        beside = [sys.executable, __file__, "--bare", str(count), *common]
        drawing, alone = (running.enter_context(Runner(one)) for one in (line, beside))
        made = WARM_BATCHES * batch_size
        seconds: dict[Runner, list[float]] = {drawing: [], alone: []}
        turns = [drawing, alone]
        for runner in turns:
            runner.run_until(made)
        while made + block <= count - 2 * batch_size:  # those are told of at once, at the end
            made += block
            for runner in turns:
                seconds[runner].append(runner.run_until(made))
            turns.reverse()
            ratio = seconds[drawing][-1] / seconds[alone][-1]
            shown = [f"{one[-1] / block:.4f}" for one in seconds.values()]
            print(
                f"{made}: batch {shown[0]}, bare {shown[1]} s a picture: {ratio:.3f} times", file=sys.stderr
            )
        last = drawing.run_until(count)
        tail = drawing.finish()
        ratios = [mine / bare for mine, bare in zip(*seconds.values(), strict=True)]
        ratio, memory = statistics.median(ratios), drawing.memory_mb
        changes = {number: 100 * (used / memory[min(memory)] - 1) for number, used in memory.items()}
        return {
            "prompts": count,
            "model": model,
            "batch_size": batch_size,
            "cores": len(os.sched_getaffinity(0)),
            "blocks": len(ratios),
            "block": block,
            "batch_s": round(statistics.median(seconds[drawing]) / block, 5),
            "bare_s": round(statistics.median(seconds[alone]) / block, 5),
            "ratio_median": round(ratio, 4),
            "ratio_holds": ratio <= MOST_RATIO,
            "ratio_quartiles": [round(at, 4) for at in statistics.quantiles(ratios, n=4)[::2]],
            "ratio_least_most": [round(min(ratios), 4), round(max(ratios), 4)],
            "ratio_of_sums": round(sum(seconds[drawing]) / sum(seconds[alone]), 4),
            "last_pictures_s": round(last, 2),
            "after_last_picture_s": round(tail, 2),
            "memory_mb": {number: round(used, 1) for number, used in memory.items()},
            "memory_change_percent": {number: round(change, 2) for number, change in changes.items()},
            "memory_holds": max(map(abs, changes.values())) <= MOST_CHANGE if len(changes) > 1 else None,
        }


def main() -> None:
    """Read the command line and print a line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument(
        "--block", type=int, default=64, help="pictures of a turn, a multiple of --batch-size"
    )
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare is not None:
        bare(options.bare, options.model, options.batch_size)
        return
    if options.block % options.batch_size or not options.block:
        raise SystemExit("--block has to be a multiple of --batch-size")
    if options.prompts < 2 * options.block + (WARM_BATCHES + 2) * options.batch_size:
        raise SystemExit("too few prompts: two blocks and four batches are needed")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nobody is left stopped
    print(json.dumps(compare(options.prompts, options.model, options.batch_size, options.block)))


if __name__ == "__main__":
    main()
