"""How much a picture changes with the size of the batch that it is drawn in.

    python examples/bench/batch_shapes.py [--model pocket] [--dtype bf16] [--device cpu]

Draws eight pictures alone and in batches of two, four and eight, same seeds, and prints the share of values
(pixel × channel) that differ and the largest difference. README quotes its output.
"""

from __future__ import annotations

import argparse

import numpy as np

from t2i.config import GenerateConfig
from t2i.pipeline import generate, load

PROMPT, COUNT = "a dog to the left of a red apple on a blue background", 8


def pictures(config: GenerateConfig, batch_size: int) -> np.ndarray:
    """Eight pictures, (8, H, W, 3) as int16 so that differences keep their sign."""
    sized = config.replace(batch_size=batch_size)
    drawn = sorted(generate(sized, load(sized)), key=lambda picture: picture.index)
    return np.stack([picture.pixels for picture in drawn]).astype(np.int16)


def main() -> None:
    """Read the command line and print a line for each batch size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--dtype", default="bf16", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    config = GenerateConfig(
        (PROMPT,), model=options.model, dtype=options.dtype, device=options.device, seed=0, num_images=COUNT
    )
    alone = pictures(config, 1)
    for batch_size in (2, 4, COUNT):
        difference = np.abs(pictures(config, batch_size) - alone)
        share = 100 * (difference > 0).mean()
        print(
            f"{options.dtype}, batch of {batch_size}: {share:.3f} % of values differ, "
            f"by at most {difference.max()}/255",
            flush=True,
        )


if __name__ == "__main__":
    main()
