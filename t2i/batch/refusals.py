"""What no run on this machine can draw of a prompt file whose every value is allowed: found before it begins.

A device that is not here, steps that a scheduler has not, a prompt that no recipe has room for. Reads no
weights, and imports torch only where a line names a device, a scheduler or steps.
"""

from __future__ import annotations

from collections.abc import Iterable

from t2i import recipes, weights
from t2i.config import GenerateConfig
from t2i.errors import ModelError, T2IError
from t2i.promptfiles import Entry, Mistake
from t2i.recipes import MAX_RECIPE_BYTES
from t2i.settling import check_steps, settle

SHORT = MAX_RECIPE_BYTES // 16
"""Characters of a prompt that surely fit: JSON writes one in at most six bytes, and the settings are few."""


def find_refusals(entries: Iterable[Entry], metadata: str) -> list[Mistake]:
    """Each of them once, with its first line; without a line where it is about all of them.

    Args:
        entries: Of the prompt file.
        metadata: As `images.save` has it.
    """
    lines: dict[tuple[str, str], list[int]] = {}
    known: dict[GenerateConfig, T2IError | None] = {}
    every: set[int] = set()
    for entry in entries:
        every.add(entry.line)
        settings = entry.config.replace(prompts=(), negative_prompt="", seed=None, num_images=1)
        if settings not in known:
            known[settings] = _refusal(settings)
        for error in (known[settings], _too_long(entry.config) if metadata == "full" else None):
            if error is not None:
                found = lines.setdefault((error.message, error.hint), [])
                if entry.line not in found[-1:]:
                    found.append(entry.line)
    return [_mistake(message, hint, found, len(every)) for (message, hint), found in lines.items()]


def _refusal(config: GenerateConfig) -> T2IError | None:
    """Why settings cannot be drawn with here; what is wrong with a model is told elsewhere."""
    try:
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
