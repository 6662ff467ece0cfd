"""How long `t2i --help` takes beside `import torch`, and a whole cold `t2i generate`, with its peak memory.

    python examples/bench/startup.py

Prints the median of five runs of each, in seconds and in processor seconds (which other programs disturb
less), and the peak resident memory of the last in MB.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

RUNS = 5


def seconds(command: Sequence[str]) -> str:
    """Median wall time and processor time of a command."""
    taken, computed = [], []
    for _ in range(RUNS):
        began, before = time.monotonic(), processor_seconds()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        taken.append(time.monotonic() - began)
        computed.append(processor_seconds() - before)
    return f"{statistics.median(taken):6.2f} s, {statistics.median(computed):6.2f} s of a processor"


def processor_seconds() -> float:
    """What all commands so far have used, user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Time the three commands."""
    t2i = [sys.executable, "-m", "t2i"]
    print(f"import torch          {seconds([sys.executable, '-c', 'import torch'])}")
    print(f"t2i --help            {seconds([*t2i, '--help'])}")
    with tempfile.TemporaryDirectory() as folder:
        picture = os.path.join(folder, "corgi.png")
        draw = [*t2i, "generate", "a corgi playing a trumpet", "--seed", "0", "-o", picture, "--overwrite"]
        print(f"t2i generate (pocket) {seconds(draw)}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"peak memory           {peak:6.0f} MB")


if __name__ == "__main__":
    main()
