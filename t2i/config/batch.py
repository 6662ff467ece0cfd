"""What `t2i batch` does with a prompt file; how the pictures look is `GenerateConfig`'s."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any

from t2i.config.fields import Config, flag_of, option
from t2i.config.generate import SEED_LIMIT
from t2i.config.output import OutputConfig
from t2i.errors import UsageError

MOST_SHARDS = 10_000
MIN_PSNR = 40.0
"""dB. Up to 20 % of the values off by up to 5/255, as in bf16 at another batch shape, are at least 41 dB."""


def _same(name: str) -> Any:
    """A field with the default, choices and help that `t2i generate` has for it."""
    found = next(item for item in fields(OutputConfig) if item.name == name)
    return field(default=found.default, metadata=found.metadata)


@dataclass(frozen=True)
class BatchConfig(Config):
    """One `t2i batch` run."""

    output: str | None = option(
        None, "folder of the pictures and their manifest.jsonl; needed", "-o", "--outdir"
    )
    format: str | None = option(
        None, "kind of file: txt, jsonl, csv, toml or yaml; default: by its suffix, txt for stdin"
    )
    axis: tuple[str, ...] = option(
        (), "draw every line with each value, as steps=20,30; several axes: every combination"
    )
    repeat: int = option(1, "times that each line is drawn, with further seeds", low=1, high=100_000)
    wildcards: str | None = option(None, "folder of the lists that __name__ picks from; default: none")
    run_seed: int | None = option(
        None,
        "what seeds come from that nobody gives; default: the folder's, else drawn, or 0 with --shard or "
        "--expect",
        low=0, high=SEED_LIMIT - 1,
    )  # fmt: skip
    shard: str | None = option(
        None, "draw only part K of N, as 2/8, by the id of each picture; default: everything"
    )
    devices: str | None = option(
        None,
        "draw on these at once, a worker on each, as cuda:0,cuda:1 or cpu,cpu; all: every GPU; "
        "default: one, in this process",
    )
    engine: str = option(
        "processes",
        "what workers are: processes of this machine, or actors of Ray, whose machines may be many",
        choices=("processes", "ray"),
    )
    ray_address: str | None = option(
        None, "running Ray cluster, as auto or 10.0.0.1:6379; default: a local one is started"
    )
    insecure_cluster: bool = option(False, "use a Ray cluster that lets in who has no token")
    fail_fast: bool = option(False, "stop at the first picture that fails")
    max_failures: int | None = option(
        None, "stop when so many pictures have failed; default: go on to the end", low=1, high=1_000_000
    )
    no_report: bool = option(False, "write no report.html and no contact sheets")
    junit: str | None = option(
        None, "also write JUnit XML to this file, a test case for each picture; default: none"
    )
    expect: str | None = option(
        None, "compare with the expected pictures of this .json file, exit 1 if some differ; default: none"
    )
    update_golden: bool = option(False, "make what is drawn the expected pictures of --expect")
    min_psnr: float | None = option(
        None,
        "from here on pictures of another machine count as equal; "
        f"default: what --expect says, {MIN_PSNR:g} in a new one",
        low=0, high=100, unit="dB",
    )  # fmt: skip
    wait: bool = option(False, "wait while another t2i batch works in the folder")
    overwrite: bool = option(False, "replace files in the folder that this batch did not make")
    metadata: str = _same("metadata")
    json: bool = option(False, "print events, one line of JSON each, instead of paths")
    dry_run: bool = option(False, "say what would be drawn, and stop")
    verbose: bool = _same("verbose")
    offline: bool = _same("offline")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.output:
            raise UsageError("--output: a folder for the pictures is needed", "for example -o pictures/")
        if self.fail_fast and self.max_failures not in (None, 1):
            raise UsageError("--fail-fast and --max-failures say different things", "give one of them")
        _ = self.shard_of
        self._check_workers()
        self._check_golden()

    def _check_workers(self) -> None:
        names = [] if self.devices in (None, "all") else str(self.devices).split(",")
        if any(re.fullmatch(r"[a-z]+(:\d+)?", name) is None for name in names):
            raise UsageError(f"--devices {self.devices}: not devices with commas between", "or say all")
        if self.engine == "ray":
            if any(":" in name for name in names):
                raise UsageError(f"--devices {self.devices}: Ray itself picks which GPU", "name no number")
            if self.insecure_cluster and self.ray_address is None:
                raise UsageError("--insecure-cluster is about --ray-address, which is not given")
            return
        for name in ("ray_address", "insecure_cluster"):
            if getattr(self, name) not in (None, False):
                raise UsageError(f"{flag_of(name)} is about --engine ray", "give both or neither")

    def _check_golden(self) -> None:
        if self.expect is None:
            for name in ("update_golden", "min_psnr"):
                if getattr(self, name) not in (None, False):
                    raise UsageError(f"{flag_of(name)} says something about --expect, which is not given")
            return
        if not self.expect.endswith(".json"):
            raise UsageError(f"--expect {self.expect}: not a .json file", "for example --expect golden.json")
        if self.metadata != "full":
            raise UsageError(
                f"--expect needs the recipes that --metadata {self.metadata} leaves out", "leave it away"
            )
        if self.update_golden and self.shard is not None:
            raise UsageError("--update-golden needs all pictures, not those of a --shard", "leave it away")

    @property
    def is_shared(self) -> bool:
        """Whether workers draw, not this process."""
        return self.devices is not None or self.engine == "ray"

    @property
    def most_failures(self) -> int | None:
        """At how many failed pictures to stop; None: never."""
        return 1 if self.fail_fast else self.max_failures

    @property
    def shard_of(self) -> tuple[int, int] | None:
        """`shard` as (K, N), 1 ≤ K ≤ N; None for everything.

        Raises:
            UsageError: Not two such numbers.
        """
        if self.shard is None:
            return None
        found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", self.shard)
        if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MOST_SHARDS:
            raise UsageError(
                f"--shard {self.shard}: not K/N with K from 1 to N and N at most {MOST_SHARDS}",
                "for example --shard 2/8",
            )
        return int(found[1]), int(found[2])
