"""`t2i eval`: how good is a model, or a folder of pictures?"""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from t2i import environment, schedulers
from t2i.cli import drawing as shared
from t2i.cli.door import notice
from t2i.cli.options import config_command
from t2i.config import GenerateConfig, flag_of
from t2i.config.evaluate import EvaluateConfig
from t2i.errors import DifferentError, PartialError, UsageError

SET_ELSEWHERE = ("prompts", "num_images", "seed")
ALSO_FOR_FOLDERS = ("device",)


@config_command(
    GenerateConfig, also=EvaluateConfig, positional="model", skip=SET_ELSEWHERE, none_means="the model's"
)
def command(
    given: dict[str, Any],
    config: EvaluateConfig,
    named: Annotated[
        str | None, typer.Option("-m", "--model", help="the same as a plain MODEL", metavar="TEXT")
    ] = None,
    size: Annotated[str | None, typer.Option(help="width and height, as 512x768", metavar="WxH")] = None,
    json: Annotated[bool, typer.Option("--json", help="print the whole report as one line of JSON")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="say what is being done")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="never use the network")] = False,
) -> None:
    """Measure a model, or with --images DIR a folder of pictures.

    Draws a suite of prompts and reports prompt adherence by category, distance to --reference pictures, the
    diversity of each prompt's pictures, and speed, each with its interval. The tables go to stdout; OUTPUT
    holds report.json, report.html, plot.png and the pictures.
    """
    drawing = _drawing(shared.with_size(given, size), named, config)
    environment.prepare(offline=offline, quiet=not verbose)
    from t2i.evaluation import evaluate

    report = evaluate(config, drawing, _progress, notice if verbose else lambda line: None)
    output = Path(config.output)
    if json:
        print(json_format.dumps(report.to_dict(output), ensure_ascii=False))
    else:
        from t2i.evaluation.tables import print_report

        print_report(report)
    notice(f"report: {output / 'report.html'}")
    failed = [run for run in report.runs if run.failure]
    if failed:
        raise PartialError(f"{len(failed)} of {len(report.runs)} settings failed: {failed[0].failure}")
    from t2i.evaluation.report import unmet

    lines = unmet(report, config.requirements)
    if lines:
        raise DifferentError(f"{len(lines)} of what --require asks for is not reached: {'; '.join(lines)}")


def _drawing(given: dict[str, Any], named: str | None, config: EvaluateConfig) -> GenerateConfig:
    """How to draw, checked before anything heavy is imported.

    Raises:
        UsageError: Options that say the same twice, or that would be ignored.
    """
    if named is not None:
        if given.get("model", named) != named:
            raise UsageError(f"MODEL {given['model']} and --model {named} are two models", "give one of them")
        given = {**given, "model": named}
    if config.images is not None:
        idle = [name for name in given if name not in ALSO_FOR_FOLDERS]
        if idle:
            what = "MODEL" if idle[0] == "model" else flag_of(idle[0])
            raise UsageError(f"{what} says how to draw, and with --images nothing is drawn", "leave it out")
    for settings in config.settings:
        twice = [name for name in settings if name in given]
        if twice:
            raise UsageError(f"{flag_of(twice[0])} and --sweep {flag_of(twice[0])[2:]} say the same")
    drawing = GenerateConfig.from_dict(given)
    names = {settings.get("scheduler") for settings in config.settings} | {drawing.scheduler}
    for name in names - {None}:
        schedulers.check_available(schedulers.find_row(str(name)))
    return drawing


@contextmanager
def _progress(label: str, pictures: int) -> Iterator[Any]:
    """A bar on stderr where that is a terminal, else one line before the drawing."""
    what = f"{label}: {pictures} pictures"
    if not sys.stderr.isatty():
        notice(what)
    with shared.progress(what) as on_step:
        yield on_step
