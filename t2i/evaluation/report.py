"""An evaluation's result as plain data, and its files: report.json, plot.png, report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2i import durable
from t2i.config.evaluate import Requirement
from t2i.errors import StorageError
from t2i.evaluation.figures import Figure
from t2i.evaluation.metrics import TRILEMMA

JSON_FILE, PLOT_FILE, HTML_FILE, PICTURES_FOLDER = "report.json", "plot.png", "report.html", "pictures"
REPORT_VERSION = 1


@dataclass(frozen=True)
class Shown:
    """One picture of a run with what was found out about it.

    Attributes:
        file: Where it is.
        prompt: What was asked for; empty if nobody says.
        seed: Of its start noise, where it is known.
        answers: Category → whether it was right, of the questions that could be judged.
        found: Thing → probability, as the recogniser sees it.
        background: The background's colour as the recogniser sees it; empty if it did not look.
        clip_score: Its CLIPScore, where there is one.
    """

    file: Path
    prompt: str
    seed: int | None
    answers: Mapping[str, bool]
    found: Mapping[str, float]
    background: str
    clip_score: float | None

    def to_dict(self, folder: Path) -> dict[str, Any]:
        """Plain values; the file relative to the report if it lies below it, else its name."""
        inside = self.file.is_relative_to(folder)
        values: dict[str, Any] = {
            "file": self.file.relative_to(folder).as_posix() if inside else self.file.name,
            "prompt": self.prompt, "seed": self.seed, "right": dict(self.answers),
            "found": {name: round(score, 3) for name, score in self.found.items()},
            "background": self.background,
            "clip_score": None if self.clip_score is None else round(self.clip_score, 4),
        }  # fmt: skip
        return {name: value for name, value in values.items() if value not in (None, {}, "")}


@dataclass(frozen=True)
class Run:
    """One setting of a sweep, or the only one.

    Attributes:
        settings: What the sweep chose; empty without one.
        figures: All figures, the missing ones with their reason.
        pictures: What was measured.
        failure: Why nothing could be drawn; empty if it could.
    """

    settings: Mapping[str, Any]
    figures: Sequence[Figure]
    pictures: Sequence[Shown] = ()
    failure: str = ""

    @property
    def label(self) -> str:
        """The settings for people: "steps 5, guidance-scale 3"."""
        return ", ".join(
            f"{name.replace('_', '-')} {shown_value(value)}" for name, value in self.settings.items()
        )

    def figure(self, name: str) -> Figure | None:
        """The measured figure of this name, or None."""
        return next((one for one in self.figures if one.name == name and one.value is not None), None)

    def trilemma(self) -> dict[str, Figure | None]:
        """Quality, diversity and speed: the first measured figure of each column."""
        return {
            column: next((found for name in names if (found := self.figure(name)) is not None), None)
            for column, names in TRILEMMA.items()
        }

    def to_dict(self, folder: Path) -> dict[str, Any]:
        """Plain values for JSON."""
        columns = {
            column: None if figure is None else {"figure": figure.name, "value": figure.value}
            for column, figure in self.trilemma().items()
        }
        values: dict[str, Any] = {
            "settings": dict(self.settings),
            "figures": {figure.name: figure.to_dict() for figure in self.figures},
            "trilemma": columns,
            "pictures": [shown.to_dict(folder) for shown in self.pictures],
        }
        return values | ({"failure": self.failure} if self.failure else {})


@dataclass(frozen=True)
class Report:
    """All of an evaluation.

    Attributes:
        subject: What was evaluated: a model's or a folder's name.
        about: How: versions, settings, names of suite and reference; no path of this machine.
        runs: One for each setting.
        notes: What else a reader must know, such as pictures that could not be read.
    """

    subject: str
    about: Mapping[str, Any]
    runs: Sequence[Run]
    notes: Sequence[str] = field(default=())

    def to_dict(self, folder: Path) -> dict[str, Any]:
        """Plain values for JSON.

        Args:
            folder: Where the report is; picture files are named relative to it.
        """
        return {
            "report": REPORT_VERSION,
            "subject": self.subject,
            **self.about,
            "notes": list(self.notes),
            "runs": [run.to_dict(folder) for run in self.runs],
        }


def unmet(report: Report, requirements: Sequence[Requirement]) -> list[str]:
    """One line for each requirement and run that does not fulfil it; what was not measured does not."""
    lines = []
    for run in report.runs:
        where = f" ({run.label})" if run.label else ""
        for wanted in requirements:
            found = run.figure(wanted.figure)
            if found is None or found.value is None:
                lines.append(f"{wanted.text}: not measured{where}")
            elif not wanted.is_met(found.value):
                lines.append(f"{wanted.text}: it is {found.text()}{where}")
    return lines


def shown_value(value: Any) -> str:
    """A setting's value for people: 3.0 is "3"."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def make_room(folder: Path, overwrite: bool, will_draw: bool) -> None:
    """Refuse a folder with an earlier report, unless it may be replaced.

    Args:
        folder: Where the report shall be.
        overwrite: Whether an earlier one may be replaced.
        will_draw: Pictures will be drawn into it: those that the earlier report lists are taken away.

    Raises:
        StorageError: There is one and it may not be replaced, or the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is not a folder", "choose another --output")
    taken = [name for name in (JSON_FILE, PLOT_FILE, HTML_FILE, PICTURES_FOLDER) if (folder / name).exists()]
    if taken and not overwrite:
        raise StorageError(
            f"{folder} already holds an evaluation ({taken[0]})",
            "choose another -o, or pass --overwrite",
        )
    pictures = (folder / PICTURES_FOLDER).resolve()
    for name in _listed_pictures(folder / JSON_FILE) if will_draw else ():
        file = folder / name
        if file.resolve().is_relative_to(pictures):  # names out of a file lead nowhere else
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise durable.storage_error(file, error) from error


def write_report(report: Report, folder: Path, shown_pictures: int) -> list[Path]:
    """Write report.json, plot.png and report.html, each whole or not at all.

    Args:
        report: The result.
        folder: Made if missing.
        shown_pictures: Most pictures in the HTML file.

    Returns:
        The three paths.
    """
    from t2i import images
    from t2i.evaluation.page import render_page
    from t2i.evaluation.plot import draw_plot

    plot = images.encode(draw_plot(report), "PNG", metadata="none")
    durable.write_json(folder / JSON_FILE, report.to_dict(folder))
    durable.write_bytes(folder / PLOT_FILE, plot)
    durable.write_bytes(folder / HTML_FILE, render_page(report, plot, shown_pictures).encode())
    return [folder / name for name in (JSON_FILE, PLOT_FILE, HTML_FILE)]


def _listed_pictures(path: Path) -> list[str]:
    """Names of the pictures in an earlier report; none if it cannot be read."""
    try:
        runs = json.loads(path.read_bytes())["runs"]
        return [str(picture["file"]) for run in runs for picture in run["pictures"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
