"""What `generate` and `replay` do with a config: plan names, draw, save, print. Not a command itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i import environment, images, naming, recipes, schedulers, settling, weights
from t2i.cli.door import notice, printable
from t2i.config import GenerateConfig
from t2i.config.output import OutputConfig
from t2i.errors import PartialError, T2IError, UsageError
from t2i.jobs import Job, plan_jobs

if TYPE_CHECKING:
    from t2i.pipeline import Failed, OnStep, Picture, StepDone
    from t2i.weights import Adapters


def draw(
    config: GenerateConfig,
    door: OutputConfig,
    same_as: Mapping[str, Any] | None = None,
    notices: Sequence[str] = (),
) -> None:
    """Draw every picture of `config` and save each as soon as it is done.

    Args:
        config: What to draw.
        door: Where it goes.
        same_as: A recipe whose picture is to come out again, in its batch shape; `config` is then its own.
        notices: Said once nothing can be refused any more.

    Raises:
        PartialError: Some pictures were written, others failed.
        T2IError: None was.
    """
    if config.scheduler is not None:
        schedulers.check_available(schedulers.find_row(config.scheduler))  # before a model is loaded
    jobs = plan_jobs(config)
    paths = naming.plan_paths(door.output, [job.name_fields() for job in jobs], door.overwrite)
    sheet = paths[0].with_name(f"{paths[0].stem}-grid{paths[0].suffix}") if door.grid else None
    if sheet is not None:
        naming.check_free(sheet, door.overwrite)
        if sheet in paths:
            raise UsageError(f"--grid: the sheet would be called {sheet.name}, as one of the pictures")
    naming.check_writable([*paths, *([sheet] if sheet else [])])
    if door.metadata == "full":
        recipes.check_fits(config)
    prepare(door)
    adapters = weights.find_all(config, config.prompts)
    notices = [*notices, *_unused(config, adapters)]
    if door.dry_run:
        return _dry_run(config, jobs, adapters, paths, sheet, door, notices)
    written, for_sheet = 0, []
    failed: list[Failed] = []
    try:
        for picture in _pictures(config, jobs, door, same_as, notices, failed):
            path = paths[picture.index if same_as is None else 0]
            images.save(path, picture.pixels, picture.recipe, door.metadata, door.overwrite)
            written += 1
            for_sheet += [picture] if sheet else []
            _print_result(path, picture, door)
            for line in picture.notes:
                notice(f"{path}: {line}")
        if sheet is not None and for_sheet:
            _save_sheet(sheet, sorted(for_sheet, key=lambda picture: picture.index), door)
        for lost in failed if len(jobs) > 1 else ():
            notice(f"{paths[lost.job.index]} could not be made: {lost.error.message}")
        if failed:
            raise failed[0].error
    except T2IError as error:
        if not written:
            raise
        hint = f"{written} of {len(jobs)} pictures were written. {error.hint}".strip()
        raise PartialError(error.message, hint) from error


def prepare(door: OutputConfig) -> None:
    """What must happen before torch and its friends are imported."""
    environment.prepare(offline=door.offline, quiet=not door.verbose)


def with_size(given: Mapping[str, Any], size: str | None) -> dict[str, Any]:
    """`--size 512x768` as width and height.

    Raises:
        UsageError: Not WIDTHxHEIGHT, or given beside --width or --height.
    """
    if size is None:
        return dict(given)
    width, _, height = size.lower().replace("×", "x").partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise UsageError(f"--size {size}: not WIDTHxHEIGHT", "for example --size 512x768")
    if "width" in given or "height" in given:
        raise UsageError("--size says the same as --width and --height", "give one of them")
    return {**given, "width": int(width), "height": int(height)}


def _pictures(
    config: GenerateConfig,
    jobs: list[Job],
    door: OutputConfig,
    same_as: Mapping[str, Any] | None,
    notices: Sequence[str],
    failed: list[Failed],
) -> Iterator[Picture]:
    """The pictures that can be drawn; the others go into `failed`."""
    runtime = None
    with environment.collecting_later():
        from t2i import pipeline

        if same_as is not None:
            try:
                runtime = pipeline.recorded_runtime(same_as)
            except UsageError as error:
                why = f"made on another kind of machine, so it will differ a little ({error.message})"
                notices = [*notices, why]
        model = pipeline.load(config, runtime)
    settled = settling.settle(config, model.defaults, model.scheduler_config)
    settling.check_steps(settled, model.scheduler_config)
    _tell(notices, settled, jobs)
    if same_as is not None and runtime is not None:
        adapters = weights.find_adapters(config, config.prompts[0])
        yield pipeline.redraw(same_as, model, runtime, weights.hash_files(model.files), adapters, notice)
        return
    if not door.verbose:
        environment.silence_loaded_libraries()
    tell = notice if door.verbose else None
    with progress(f"drawing {len(jobs)} pictures" if len(jobs) > 1 else "drawing") as on_step:
        for made in pipeline.generate_each(config, model, on_step, jobs, tell, notice):
            if isinstance(made, pipeline.Failed):
                failed.append(made)
            else:
                yield made


def _print_result(path: Path, picture: Picture, door: OutputConfig) -> None:
    line = str(path)
    if door.json:
        values = {"path": str(path), "prompt": picture.prompt, "seed": picture.seed, "index": picture.index}
        line = json.dumps({**values, "recipe": picture.recipe}, ensure_ascii=False)
    print(line, flush=True)


def _save_sheet(path: Path, pictures: list[Picture], door: OutputConfig) -> None:
    sheet = images.grid([picture.pixels for picture in pictures])
    metadata = "none" if door.metadata == "none" else "minimal"
    images.save(path, sheet, None, metadata, door.overwrite)
    print(json.dumps({"path": str(path), "grid": len(pictures)}) if door.json else path, flush=True)


def _tell(notices: Sequence[str], settled: GenerateConfig, jobs: list[Job]) -> None:
    """What a person should know of the pictures that are about to be drawn."""
    for line in notices:
        notice(line)
    if settled.negative_prompt and settled.guidance_scale == 1:
        notice("the negative prompt has no effect: guidance is off; set --guidance-scale above 1")
    for job in jobs:
        if settled.seed is None and job.image_index == 0:
            notice(f"seed {job.seed}" + (f" for {job.prompt!r}" if jobs[-1].prompt_index else ""))


def _unused(config: GenerateConfig, adapters: Mapping[str, Adapters]) -> list[str]:
    """A line for each textual inversion whose token stands in no prompt."""
    texts = " ".join([*config.prompts, config.negative_prompt]).lower()
    uses = next(iter(adapters.values())).embeddings if adapters else ()
    return [
        f"{use.shown} has no effect: its token {use.file.token!r} is in no prompt"
        for use in uses
        if use.file.token.lower() not in texts
    ]


def _dry_run(
    config: GenerateConfig,
    jobs: list[Job],
    adapters: Mapping[str, Adapters],
    paths: list[Path],
    sheet: Path | None,
    door: OutputConfig,
    notices: Sequence[str],
) -> None:
    """Say what would happen, or refuse what a run would. Reads the model's defaults, never its weights."""
    resolved = settling.rehearse(config)
    _tell(notices, resolved, jobs)
    if door.json:
        pictures = [
            {"path": str(path), "prompt": job.prompt, "seed": job.seed, **adapters[job.prompt].recorded()}
            for job, path in zip(jobs, paths, strict=True)
        ]
        plan = {"config": resolved.to_dict(), "pictures": pictures, "grid": str(sheet) if sheet else None}
        print(json.dumps(plan, ensure_ascii=False))
        return
    shown = {name: value for name, value in resolved.to_dict().items() if name != "prompts"}
    notice("would draw " + (f"{len(jobs)} pictures" if len(jobs) > 1 else "1 picture") + " with")
    for name, value in shown.items():
        print(printable(f"     {name:<16} {'' if value is None else value}"), file=sys.stderr)
    for line in dict.fromkeys(line for own in adapters.values() for line in own.lines()):
        notice(line)
    for path in [*paths, *([sheet] if sheet else [])]:
        print(path)


@contextmanager
def progress(what: str) -> Iterator[OnStep | None]:
    """A bar on stderr, one tick per step; nothing where stderr is no terminal.

    Args:
        what: Stands before the bar.

    Yields:
        The `on_step` for `t2i.pipeline.generate`.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(
        *columns, console=console, transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else rich would send paths meant for a pipe to the terminal
    ) as bar:  # fmt: skip
        task = bar.add_task(what, total=None)

        def on_step(step: StepDone) -> None:
            bar.update(task, total=step.steps_total, completed=step.steps_done)

        yield on_step
