"""What `t2i batch` costs beyond the networks, and whether its memory grows.

    python examples/bench/batch_overhead.py [--prompts 1000] [--rounds 4] [--model pocket] [--batch-size 16]

Compares `t2i batch` (recipes, PNG files, manifest, report) with a bare loop of text encoder, UNet and VAE at
the same size of batch, number format, threads and scheduler, which writes nothing. Rounds of both follow each
other, so that a machine that changes its speed changes both. Start-up and the first batch are left out of
both. Also prints the resident memory of `t2i batch` at picture 100 and at the last. Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THINGS = ("dog", "cat", "car", "rose", "guitar", "apple", "rabbit", "panda", "bicycle", "trumpet")
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "pink", "brown", "orange", "purple")


def prompts(count: int) -> list[str]:
    """`count` prompts with a thing and a background each."""
    return [f"a {THINGS[k % 10]} on a {COLOURS[k // 10 % 10]} background" for k in range(count)]


def resident_mb(process: int) -> float:
    """Resident memory of a process, MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    raise RuntimeError(f"no VmRSS of process {process}")


def batch(count: int, model: str, batch_size: int) -> tuple[float, float, float]:
    """Run `t2i batch` once: seconds per picture, and MB resident at picture 100 and at the last."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.txt"
        file.write_text("\n".join(prompts(count)) + "\n")
        line = [sys.executable, "-m", "t2i", "batch", str(file), "-o", f"{folder}/out", "-m", model, "--json"]
        line += ["--batch-size", str(batch_size)]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        times: list[float] = []
        early = late = 0.0
        for event in map(json.loads, process.stdout):
            if event["event"] != "done":
                continue
            times.append(time.monotonic())
            if len(times) == min(100, count):
                early = resident_mb(process.pid)
            if len(times) == count:
                late = resident_mb(process.pid)
        if process.wait() != 0 or len(times) != count:
            raise SystemExit(f"t2i batch ended with {process.returncode} and {len(times)} pictures")
    return (times[-1] - times[batch_size - 1]) / (count - batch_size), early, late


def bare(count: int, model_name: str, batch_size: int) -> float:
    """Seconds per picture of the networks alone, in this process."""
    import torch

    from t2i.config import GenerateConfig
    from t2i.devices import apply_runtime, choose_runtime
    from t2i.pipeline import load
    from t2i.schedulers import make_scheduler, set_timesteps
    from t2i.settling import settle

    texts = prompts(count)
    config = GenerateConfig(prompts=tuple(texts), model=model_name, batch_size=batch_size, seed=0)
    model = load(config)
    config = settle(config, model.defaults, model.scheduler_config)
    assert config.steps and config.guidance_scale and config.height and config.width and config.scheduler
    apply_runtime(choose_runtime("cpu", "auto", model.family.name, False))
    shrink = 2 ** (len(model.vae.config.block_out_channels) - 1)
    shape = (model.vae.config.latent_channels, config.height // shrink, config.width // shrink)
    first = time.monotonic()
    with torch.no_grad():
        for start in range(0, count, batch_size):
            if start == batch_size:
                first = time.monotonic()
            some = texts[start : start + batch_size]
            cond = model.family.encode_prompts(some).prompt_embeds
            uncond = model.family.encode_negative_prompts([""] * len(some)).prompt_embeds
            both = torch.cat([uncond, cond])
            scheduler = make_scheduler(config.scheduler, model.scheduler_config)
            set_timesteps(scheduler, config.steps, torch.device("cpu"))
            latents = torch.randn(len(some), *shape) * scheduler.init_noise_sigma
            for timestep in scheduler.timesteps:
                scaled = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
                without, with_it = model.unet(scaled, timestep, both).sample.chunk(2)
                guided = without + config.guidance_scale * (with_it - without)
                latents = scheduler.step(guided, timestep, latents).prev_sample
            model.vae.decode(latents / model.vae.config.scaling_factor).sample.clamp(-1, 1)
    return (time.monotonic() - first) / (count - batch_size)


def main() -> None:
    """Read the command line and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=4, help="times that the two are compared")
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare is not None:
        print(bare(options.bare, options.model, options.batch_size))
        return
    share = options.prompts // options.rounds
    if share < 2 * options.batch_size:
        raise SystemExit("too few prompts: a round needs at least two batches")
    ratios = []
    for _ in range(options.rounds):
        took, early, late = batch(share, options.model, options.batch_size)
        line = [sys.executable, __file__, "--bare", str(share), "--model", options.model]
        line += ["--batch-size", str(options.batch_size)]
        alone = float(subprocess.run(line, check=True, stdout=subprocess.PIPE, env=os.environ).stdout)
        ratios.append(took / alone)
        print(f"batch {took:.3f} s, bare {alone:.3f} s a picture: {took / alone:.3f} times", flush=True)
    print(f"median of {options.rounds}: {statistics.median(ratios):.3f} times")
    took, early, late = batch(options.prompts, options.model, options.batch_size)
    print(
        f"{options.prompts} prompts: {took:.3f} s a picture; memory at picture 100 {early:.0f} MB,", end=" "
    )
    print(f"at the last {late:.0f} MB: {100 * (late / early - 1):+.1f} %")


if __name__ == "__main__":
    main()
