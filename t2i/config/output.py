"""Where pictures go and what is said meanwhile; none of it changes a pixel."""

from __future__ import annotations

from dataclasses import dataclass

from t2i.config.fields import Config, option


@dataclass(frozen=True)
class OutputConfig(Config):
    """The options that every command which draws has in common."""

    output: str | None = option(
        None,
        "file, folder/ or template such as pics/{index:05d}-{seed}-{slug}; default: {slug}-{seed}.png here",
        "-o", "--outdir",
    )  # fmt: skip
    overwrite: bool = option(False, "replace files of the same name")
    grid: bool = option(False, "also save one sheet of all pictures")
    metadata: str = option(
        "full",
        "what a picture says about itself: its recipe, only that a model made it, or nothing",
        choices=("full", "minimal", "none"),
    )
    json: bool = option(False, "print one line of JSON per picture instead of its path")
    dry_run: bool = option(False, "say what would be drawn and written, and stop")
    verbose: bool = option(False, "say what was chosen and why, and show the libraries' warnings", "-v")
    offline: bool = option(False, "never use the network")
