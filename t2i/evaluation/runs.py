"""The two things that can be evaluated: a folder of pictures, and a model in one or many settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from t2i import pipeline
from t2i.config import GenerateConfig
from t2i.config.evaluate import DEFAULT_NUM_IMAGES, Settings
from t2i.environment import silence_loaded_libraries
from t2i.errors import DatasetError, T2IError
from t2i.evaluation.adherence import verdicts
from t2i.evaluation.figures import Figure
from t2i.evaluation.instruments import Instruments
from t2i.evaluation.metrics import METRICS, measure
from t2i.evaluation.pictures import Progress, draw_pictures, plan_drawing, read_pictures, unreadable
from t2i.evaluation.questions import DEFAULT_SUITE, Question, by_prompt, understand
from t2i.evaluation.report import PICTURES_FOLDER, Report, Run, Shown
from t2i.evaluation.subject import Subject
from t2i.recipes import base_name
from t2i.settling import settle

Tell = Callable[[str], None]

NOT_ABOUT_DRAWING = ("prompts", "model", "num_images", "seed")


def evaluate_folder(
    folder: Path, asked: Mapping[str, tuple[Question, ...]], instruments: Instruments, tell: Tell
) -> Report:
    """Measure pictures that are there.

    Args:
        folder: With PNG, JPEG or WebP pictures.
        asked: What known prompts ask for; other prompts are read word by word.
        instruments: What to measure with.
        tell: Called with lines for a person.

    Raises:
        DatasetError: Not a folder, or no picture in it can be read.
    """
    everything = read_pictures(folder)
    damaged = unreadable(everything)
    pictures = [picture for picture in everything if picture.file not in damaged]
    if not pictures:
        raise DatasetError(f"no picture in {folder} can be read: {next(iter(damaged.values()))}")
    prompts = dict.fromkeys(picture.prompt for picture in pictures if picture.prompt)
    subject = Subject(
        pictures, {prompt: asked.get(prompt) or understand(prompt) for prompt in prompts}, instruments
    )
    notes = [f"{len(pictures)} pictures, {len(prompts)} prompts"]
    notes += [f"left out: {reason}" for reason in damaged.values()]
    silent = sum(not picture.prompt for picture in pictures)
    if silent:
        notes.append(f"{silent} of {len(pictures)} pictures do not say what they should show")
    run = Run({}, _measure(subject, {}, tell), _shown(subject))
    return Report(folder.name, about(instruments, {}), [run], notes)


def evaluate_model(
    drawing: GenerateConfig,
    questions: Sequence[Question],
    instruments: Instruments,
    progress: Progress,
    tell: Tell,
) -> Report:
    """Draw the prompts with every setting of the sweep, and measure each.

    Args:
        drawing: The model and how it draws.
        questions: What is asked.
        instruments: What to measure with; its config holds the sweep.
        progress: Shows the drawing.
        tell: Called with lines for a person.

    Raises:
        T2IError: Every setting failed; this is the first failure.
    """
    config = instruments.config
    model = pipeline.load(drawing)
    silence_loaded_libraries()
    asked = dict(list(by_prompt(questions).items())[: config.limit])
    num_images = config.num_images or DEFAULT_NUM_IMAGES
    jobs = plan_drawing(list(asked), num_images, config.seed or 0)
    once: dict[str, list[Figure]] = {}
    runs: list[Run] = []
    failures: list[T2IError] = []
    for number, settings in enumerate(config.settings, 1):
        label = f"setting {number} of {len(config.settings)}" if settings else "drawing"
        folder = Path(config.output) / PICTURES_FOLDER / _folder_name(settings)
        try:
            pictures, speed = draw_pictures(
                model, drawing.replace(**settings), jobs, folder, config.overwrite, progress, label, tell
            )
        except T2IError as error:
            failures.append(error)
            runs.append(Run(settings, (), failure=error.message))
            continue
        subject = Subject(pictures, asked, instruments, speed, model)
        runs.append(Run(settings, _measure(subject, once, tell), _shown(subject)))
    if len(failures) == len(runs):
        raise failures[0]
    settled = settle(drawing, model.defaults, model.scheduler_config).to_dict()
    further = {
        "model": {"id": base_name(model.id), "family": model.family.name},
        "drawing": {name: value for name, value in settled.items() if name not in NOT_ABOUT_DRAWING},
    }
    notes = [f"{len(asked)} prompts, {num_images} pictures each"]
    return Report(base_name(model.id), about(instruments, further), runs, notes)


def about(instruments: Instruments, further: Mapping[str, Any]) -> dict[str, Any]:
    """How an evaluation was done, for its report: names instead of paths, and what None meant."""
    config = instruments.config
    values = {name: value for name, value in config.to_dict().items() if name not in ("output", "overwrite")}
    values["prompts"] = config.prompts or DEFAULT_SUITE
    for name in ("prompts", "images", "reference", "clip"):
        if values[name] is not None:
            values[name] = base_name(values[name])
    if config.images is None:
        values["num_images"] = config.num_images or DEFAULT_NUM_IMAGES
        values["seed"] = config.seed or 0
    if instruments.reference is not None:
        values["reference_pictures"] = len(instruments.reference_files())
    return {"versions": pipeline.versions(), **further, "evaluation": values}


def _folder_name(settings: Settings) -> str:
    """ "steps-5_guidance_scale-3.0" for a combination of a sweep, "" without one."""
    return "_".join(f"{name}-{value}".replace("/", "-").replace(" ", "-") for name, value in settings.items())


def _measure(subject: Subject, once: dict[str, list[Figure]], tell: Tell) -> list[Figure]:
    """All figures of one run; those that depend on the model alone are measured once and kept in `once`."""
    figures: list[Figure] = []
    for metric in METRICS:
        if metric.name not in once:
            tell(f"measuring {metric.name}")
            found = measure(metric, subject)
            if metric.once:
                once[metric.name] = found
        figures += once[metric.name] if metric.once else found
    return figures


def _shown(subject: Subject) -> list[Shown]:
    """What is known of each picture, as far as it could be measured."""
    none: list[None] = [None] * len(subject.pictures)
    answers: Sequence[Any] = _or(lambda: verdicts(subject), none)
    findings: Sequence[Any] = _or(lambda: subject.findings, none)
    scores: Mapping[int, float] = _or(lambda: subject.clip_scores, {})
    shown = []
    for row, picture in enumerate(subject.pictures):
        found = findings[row]
        right = {question.category: is_right for question, is_right in answers[row] or ()}
        things = found.scores() if found else {}
        background = found.background if found else ""
        known = right, things, background, scores.get(row)
        shown.append(Shown(picture.file, picture.prompt, picture.seed, *known))
    return shown


def _or(compute: Callable[[], Any], otherwise: Any) -> Any:
    """The value, or another if it cannot be had; the metric that needed it has said why."""
    try:
        return compute()
    except Exception:
        return otherwise
