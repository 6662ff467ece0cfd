"""What `t2i schedulers --compare` draws, and where its sheet goes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from t2i.config.fields import Config, check, option
from t2i.config.generate import SEED_LIMIT, GenerateConfig
from t2i.config.output import OutputConfig
from t2i.errors import UsageError

MOST_STEP_COUNTS = 20  # columns of the sheet


def _same(name: str, config: type[Config] = GenerateConfig) -> Any:
    """A field with the default, bounds and help that another config has for it."""
    found = next(item for item in fields(config) if item.name == name)  # type: ignore[arg-type]
    return field(default=found.default, metadata=found.metadata)


@dataclass(frozen=True)
class CompareConfig(Config):
    """One comparison. `None` means not given: the model's own default is used."""

    compare: str | None = option(
        None, "draw this prompt with every scheduler, and compare; default: none, only list them"
    )
    steps: str = option("5,10,25,50", "step counts, separated by commas", "--num-inference-steps")
    scheduler: str | None = option(None, "names, separated by commas; default: all", "--sampler")
    negative_prompt: str = _same("negative_prompt")
    guidance_scale: float | None = _same("guidance_scale")
    seed: int | None = option(
        None, "start noise of every picture; default: drawn, and printed", "-s", low=0, high=SEED_LIMIT - 1
    )
    width: int | None = _same("width")
    height: int | None = _same("height")
    model: str = _same("model")
    device: str = _same("device")
    dtype: str = _same("dtype")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compare is not None and self.compare.startswith("-"):
            raise UsageError(f"--compare {self.compare}: a prompt is needed", 'as in --compare "a red fox"')
        _ = self.step_counts, self.schedulers

    @property
    def step_counts(self) -> tuple[int, ...]:
        """`steps` as numbers, ascending, each once.

        Raises:
            UsageError: Not whole numbers, out of the bounds of `t2i generate --steps`, or too many of them.
        """
        try:
            counts = sorted({int(part) for part in self.steps.split(",")})
        except ValueError as error:
            raise UsageError(
                f"--steps {self.steps}: whole numbers with commas between them are needed",
                "for example --steps 5,10,25",
            ) from error
        for count in counts:
            check("steps", count, GenerateConfig.options()["steps"])
        if len(counts) > MOST_STEP_COUNTS:
            raise UsageError(f"--steps: {len(counts)} step counts, at most {MOST_STEP_COUNTS} make a sheet")
        return tuple(counts)

    @property
    def schedulers(self) -> tuple[str, ...]:
        """`scheduler` as names in the order given; empty where none was given.

        Raises:
            UsageError: A comma without a name.
        """
        names = () if self.scheduler is None else tuple(part.strip() for part in self.scheduler.split(","))
        if not all(names):
            raise UsageError(
                f"--scheduler {self.scheduler!r}: names with commas between them are needed",
                "for example --scheduler ddim,heun; `t2i schedulers` lists all",
            )
        return names

    def drawing(self) -> GenerateConfig:
        """What all pictures of the comparison have in common, as `t2i generate` would be told it."""
        shared = {"negative_prompt", "guidance_scale", "seed", "width", "height", "model", "device", "dtype"}
        prompts = () if self.compare is None else (self.compare,)
        return GenerateConfig(prompts=prompts, **{name: getattr(self, name) for name in shared})


@dataclass(frozen=True)
class CompareOutputConfig(Config):
    """Where the sheet goes and what is printed; none of it changes a pixel."""

    output: str | None = option(
        None, "the sheet with all pictures; default: {slug}-{seed}-schedulers.png here", "-o"
    )
    overwrite: bool = _same("overwrite", OutputConfig)
    json: bool = option(False, "print lines of JSON: one per scheduler, or one per picture of --compare")
    offline: bool = _same("offline", OutputConfig)
