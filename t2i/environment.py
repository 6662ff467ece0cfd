"""What must be decided before torch, diffusers, transformers or huggingface_hub are imported.

These libraries read their switches once, at import. A door calls `prepare` first. Standard library only.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
NOISY_LIBRARIES = r"(torch|diffusers|transformers|accelerate|peft|huggingface_hub|safetensors)(\..*)?$"


def prepare(offline: bool = False, quiet: bool = True) -> None:
    """Set the environment of this process for the libraries that are about to be imported.

    No code from model folders is ever run. A verbosity that the user already set is kept.

    Args:
        offline: Never ask the network (`HF_HUB_OFFLINE`). False leaves what the user set.
        quiet: Keep the libraries' own log lines, warnings and progress bars out of stderr.
    """
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts; equal bits need it
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants = sys.modules.get("huggingface_hub.constants")
        if constants is not None:  # imported before us, by a program that uses t2i as a library
            constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    if quiet:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        warnings.filterwarnings("ignore", module=NOISY_LIBRARIES)


@contextmanager
def collecting_later() -> Iterator[None]:
    """Search for no garbage while libraries are imported and a model is loaded: nearly all of it stays.

    The searches take a tenth of a cold start. What is there at the end is never searched again, so this is
    for doors, which own their process.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def is_offline() -> bool:
    """Whether the user or `prepare` forbade the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


@contextmanager
def no_network() -> Iterator[None]:
    """Keep the Hub's client offline for a while, also where it is imported already."""
    from huggingface_hub import constants

    before = os.environ.get("HF_HUB_OFFLINE"), constants.HF_HUB_OFFLINE
    os.environ["HF_HUB_OFFLINE"], constants.HF_HUB_OFFLINE = "1", True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before[1]
        if before[0] is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before[0]


def silence_loaded_libraries() -> None:
    """Switch off log lines and progress bars of the libraries that are imported by now."""
    for name in ("diffusers.utils.logging", "transformers.utils.logging"):
        logging = sys.modules.get(name)
        if logging is not None:
            logging.set_verbosity_error()
            logging.disable_progress_bar()
