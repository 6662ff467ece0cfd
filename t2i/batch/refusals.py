"""What no run on this machine can draw of a prompt file whose every value is allowed: found before it begins.

A device that is not here, steps that a scheduler has not, a prompt that no recipe has room for, options
that do not go together. Reads no weights, and imports torch only where a line names a device, a scheduler
or steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from t2i import recipes, weights
from t2i.batch.plan import BatchJob, plan_batch
from t2i.config import GenerateConfig
from t2i.errors import ModelError, T2IError, UsageError
from t2i.promptfiles import Entry, Mistake, PromptFileError
from t2i.recipes import MAX_RECIPE_BYTES
from t2i.settling import check_steps, settle

SHORT = MAX_RECIPE_BYTES // 16
"""Characters of a prompt that surely fit: JSON writes one in at most six bytes, and the settings are few."""


def find_refusals(
    entries: Iterable[Entry], jobs: Iterable[BatchJob], metadata: str, is_shared: bool = False
) -> list[Mistake]:
    """Each of them once, with its first line; without a line where it is about all of them.

    Args:
        entries: Of the prompt file.
        jobs: Their pictures; what planning them has met counts where it is about options.
        metadata: As `images.save` has it.
        is_shared: Whether workers draw, each on a device of its own.
    """
    lines: dict[tuple[str, str], dict[int, None]] = {}
    known: dict[GenerateConfig, T2IError | None] = {}
    every: set[int] = set()
    for entry in entries:
        every.add(entry.line)
        settings = entry.config.replace(prompts=(), negative_prompt="", seed=None, num_images=1)
        if settings not in known:
            known[settings] = _refusal(settings, is_shared)
        for error in (known[settings], _too_long(entry.config) if metadata == "full" else None):
            if error is not None:
                lines.setdefault((error.message, error.hint), {})[entry.line] = None
    for job in jobs:
        if isinstance(job.problem, UsageError):
            lines.setdefault((job.problem.message, job.problem.hint), {})[job.line] = None
    return [_mistake(message, hint, sorted(found), len(every)) for (message, hint), found in lines.items()]


def with_refusals(error: PromptFileError, folder: Path, metadata: str, is_shared: bool) -> PromptFileError:
    """The mistakes of a prompt file, and what would be refused of its other lines: all in one go.

    Args:
        error: Of reading the file.
        folder: Where the pictures would go; nothing in it is looked at.
        metadata: As `find_refusals` has it.
        is_shared: As `find_refusals` has it.
    """
    jobs: Sequence[BatchJob] = ()
    try:
        jobs = plan_batch(error.entries, {}, folder, overwrite=True)
    except T2IError:
        pass  # told when the file is right: it is about the folder or the model
    found = find_refusals(error.entries, jobs, metadata, is_shared)
    return PromptFileError(error.source, [*error.mistakes, *found])


def _refusal(config: GenerateConfig, is_shared: bool) -> T2IError | None:
    """Why settings cannot be drawn with here; what is wrong with a model is told elsewhere."""
    try:
        if config.device != "auto" and is_shared:
            return UsageError(f"--device {config.device}: --devices decides that", "leave one of them away")
        if config.device != "auto":
            from t2i.devices import pick_device

            pick_device(config.device)
        source = weights.resolve_model(config.model)
        if source.path is not None and (config.steps, config.scheduler) != (None, None):
            scheduler_config = source.inspection.scheduler_config
            check_steps(settle(config, source.defaults, scheduler_config), scheduler_config)
    except ModelError:
        return None
    except T2IError as error:
        return error
    return None


def _too_long(config: GenerateConfig) -> T2IError | None:
    """Why the recipe of a picture has no room for its prompts."""
    if len(config.prompts[0]) + len(config.negative_prompt) <= SHORT:
        return None
    try:
        recipes.check_fits(config)
    except T2IError as error:
        return error
    return None


def _mistake(message: str, hint: str, lines: list[int], of: int) -> Mistake:
    if len(lines) == of > 1:
        return Mistake(None, message, hint)
    more = f" (and {len(lines) - 1} more lines)" if len(lines) > 2 else f" (and line {lines[-1]})"
    return Mistake(lines[0], message + (more if len(lines) > 1 else ""), hint)
