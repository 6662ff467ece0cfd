"""A config with the model's own defaults filled in. Reads configs, never weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2i import schedulers, weights
from t2i.catalog import Defaults
from t2i.config import GenerateConfig
from t2i.config.controls import check_control_shape

SIZES = ("steps", "guidance_scale", "width", "height")


def settle(config: GenerateConfig, defaults: Defaults, scheduler_config: Mapping[str, Any]) -> GenerateConfig:
    """The config with a model's defaults in place of every None but seed and batch size.

    Args:
        config: As it was typed.
        defaults: Of the model.
        scheduler_config: The checkpoint's own, for models that name no scheduler.

    Raises:
        UsageError: An unknown scheduler, or a checkpoint whose own has no row here.
    """
    name = config.scheduler or defaults.scheduler
    if name is None:
        own = str(scheduler_config.get("_class_name", "DDPMScheduler"))
        name = schedulers.row_for_class(own, scheduler_config)
    return _sized(config, defaults).replace(scheduler=schedulers.find_row(name).name)


def preview(config: GenerateConfig) -> GenerateConfig:
    """`settle` before anything is loaded or downloaded: what cannot be known yet stays None.

    Raises:
        ModelError: There is no such model, or its folder cannot be used, or a ControlNet does not fit it.
        UsageError: The control picture has another shape.
    """
    source = weights.resolve_model(config.model)
    if source.path is not None:
        settled = settle(config, source.defaults, source.inspection.scheduler_config)
    elif source.known is not None:
        settled = _sized(config, source.known.defaults)
        settled = settled.replace(scheduler=config.scheduler or source.known.defaults.scheduler)
    else:
        settled = config
    control = weights.find_control(settled)
    if control is not None:
        if settled.width is not None and settled.height is not None:
            check_control_shape(control.image.name, control.size, settled.width, settled.height)
        if source.path is not None and isinstance(source.inspection.contents, weights.Layout):
            configs = source.inspection.contents.configs
            weights.check_fits(control.folder, configs["unet"], configs["vae"], source.id)
    return settled


def rehearse(config: GenerateConfig) -> GenerateConfig:
    """`preview` that refuses the device, number format and steps that a run would refuse.

    Imports torch where one of them was given, or a scheduler; still reads no weights. Asks the Hub about a
    model that is there, and downloads nothing.

    Raises:
        UsageError: A device that is not here, a format it cannot do, steps that the scheduler has not.
        ModelError: As `preview`, or as `weights.fetch_model` for a model on the Hub.
    """
    if (config.device, config.dtype) != ("auto", "auto"):
        from t2i.devices import choose_runtime

        choose_runtime(config.device, config.dtype)
    settled = preview(config)
    source = weights.resolve_model(config.model)
    weights.fetch_model(source, download=False)
    if source.path is not None and (config.steps, config.scheduler) != (None, None):
        check_steps(settled, source.inspection.scheduler_config)
    return settled


def check_steps(config: GenerateConfig, scheduler_config: Mapping[str, Any]) -> None:
    """Refuse a number of steps that the scheduler cannot do, before anything is drawn; `config` is settled.

    Raises:
        UsageError: See `t2i.schedulers.set_timesteps`.
    """
    assert config.steps is not None
    schedulers.set_timesteps(schedulers.make_scheduler(config.scheduler, scheduler_config), config.steps)


def _sized(config: GenerateConfig, defaults: Defaults) -> GenerateConfig:
    open_names = [name for name in SIZES if getattr(config, name) is None]
    return config.replace(**{name: getattr(defaults, name) for name in open_names})
