"""Evaluating a model or a folder of pictures: adherence, distribution, diversity, speed, one report.

`evaluate` is the flow. Importing this package imports nothing heavy. A metric is a row in
`t2i.evaluation.metrics`, a feature extractor one in `t2i.evaluation.instruments`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from t2i.config import GenerateConfig
from t2i.config.evaluate import EvaluateConfig
from t2i.evaluation.questions import DEFAULT_SUITE, by_prompt, read_questions

if TYPE_CHECKING:
    from t2i.evaluation.pictures import OnStep, Progress
    from t2i.evaluation.report import Report

__all__ = ["evaluate"]


def evaluate(
    config: EvaluateConfig,
    drawing: GenerateConfig,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> Report:
    """Draw what is to be drawn, measure what can be measured, and write the report into `config.output`.

    Args:
        config: What to measure and where the report goes.
        drawing: The model and how it draws; with `config.images` only its device is used.
        progress: Shows the drawing; None shows nothing.
        tell: Called with lines for a person.

    Returns:
        The report. A figure that cannot be had carries the reason; so does a setting of a sweep that failed.

    Raises:
        UsageError, DatasetError, StorageError: Prompts, pictures, reference or output cannot be used.
        ModelError, OutOfMemory: The model cannot be used, in none of the settings.
    """
    questions = read_questions(config.prompts if config.prompts is not None else DEFAULT_SUITE)
    from t2i.dataset import read_folder
    from t2i.evaluation.instruments import Instruments
    from t2i.evaluation.report import make_room, write_report
    from t2i.evaluation.runs import evaluate_folder, evaluate_model
    from t2i.weights.clip_model import find_clip

    progress, tell = progress or _silent, tell or (lambda line: None)
    output = Path(config.output)
    make_room(output, config.overwrite, will_draw=config.images is None)
    reference = None if config.reference is None else read_folder(Path(config.reference))
    clip_folder = None if config.clip is None else find_clip(config.clip)
    instruments = Instruments(config, clip_folder, reference, drawing.device)
    if config.images is not None:
        report = evaluate_folder(Path(config.images), by_prompt(questions), instruments, tell)
    else:
        report = evaluate_model(drawing, questions, instruments, progress, tell)
    write_report(report, output, config.report_pictures)
    return report


@contextmanager
def _silent(label: str, pictures: int) -> Iterator[OnStep]:
    yield lambda step: None
