"""What `t2i sweep` varies and where its sheets go; how the pictures look is `GenerateConfig`'s."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from t2i.config.batch import BatchConfig
from t2i.config.fields import Config, option
from t2i.errors import UsageError


def _same(name: str) -> Any:
    """A field with the default, choices and help that `t2i batch` has for it."""
    found = next(item for item in fields(BatchConfig) if item.name == name)
    return field(default=found.default, metadata=found.metadata)


@dataclass(frozen=True)
class SweepConfig(Config):
    """One `t2i sweep` run."""

    axis: tuple[str, ...] = option(
        (), "NAME=VALUE,VALUE…, an option of this command; up to 3 times: columns, rows, sheets"
    )
    output: str | None = option(
        None, "folder of the pictures, sheets, sweep.csv and sweep.html; needed", "-o", "--outdir"
    )
    wait: bool = _same("wait")
    overwrite: bool = option(False, "replace files in the folder that no sweep made")
    metadata: str = _same("metadata")
    json: bool = _same("json")
    dry_run: bool = _same("dry_run")
    verbose: bool = _same("verbose")
    offline: bool = _same("offline")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.output:
            raise UsageError("--output: a folder for the pictures is needed", "for example -o sweep/")

    def as_batch(self) -> BatchConfig:
        """The same as `t2i batch` would be told it: a sweep is drawn as one."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "axis"}
        return BatchConfig(no_report=True, **own)
