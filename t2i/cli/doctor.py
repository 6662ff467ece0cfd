"""`t2i doctor`: what this machine can do and what t2i would choose."""

from __future__ import annotations

import json as json_format
from typing import Annotated, Any

import typer

from t2i import environment


def command(
    device: Annotated[str, typer.Option(help="as in t2i generate", metavar="TEXT")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Say what this machine can do, and what t2i would choose on it."""
    environment.prepare()
    from t2i import devices
    from t2i.pipeline import versions

    small = devices.choose_runtime(device, family="pocket")
    large = devices.choose_runtime(device, family="sd1")
    found: dict[str, Any] = {
        "versions": versions(),
        "small models (pocket)": {"because": small.reason, **small.describe()},
        "large models (sd15, sdxl)": {"because": large.reason, **large.describe()},
        "cpu": {
            "bf16": devices.has_bf16_cpu(),
            "amx": devices.has_amx(),
            "threads": devices.usable_threads(),
        },
        "offline": environment.is_offline(),
    }
    if json:
        print(json_format.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}" if not isinstance(value, dict) else f"{name}:")
        if isinstance(value, dict):
            print("\n".join(f"  {key:<17} {item}" for key, item in value.items()))
