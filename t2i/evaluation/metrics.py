"""The metrics: one row each. A metric that fails leaves its reason in the report and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from t2i.errors import T2IError
from t2i.evaluation.adherence import measure_adherence, measure_clip_score
from t2i.evaluation.distribution import measure_cmmd, measure_fid, measure_kid
from t2i.evaluation.diversity import measure_diversity
from t2i.evaluation.figures import Figure, NotMeasured, not_measured
from t2i.evaluation.subject import Subject
from t2i.evaluation.validation import measure_validation_loss


@dataclass(frozen=True)
class Metric:
    """One row.

    Attributes:
        name: Of the figure that stands in the report if the metric fails.
        column: Of the trilemma: quality, diversity or speed.
        measure: Returns the figures, or raises `NotMeasured` with the reason.
        once: The same for every setting of a sweep, since it depends on the model alone.
    """

    name: str
    column: str
    measure: Callable[[Subject], list[Figure]]
    once: bool = False


def measure_speed(subject: Subject) -> list[Figure]:
    """Seconds a picture, pictures a second, and memory."""
    speed = subject.speed
    if speed is None:
        raise NotMeasured("the pictures were not drawn here")
    each = speed.seconds / speed.pictures
    figures = [
        Figure(
            "seconds per image", each, None, speed.pictures, unit="s", better="lower", how=speed.conditions
        ),
        Figure("images per second", 1 / each, None, speed.pictures, better="higher", how=speed.conditions),
    ]
    if speed.peak_memory_bytes is None:
        return [*figures, not_measured("peak memory", "this system does not tell")]
    mebibytes = speed.peak_memory_bytes / 2**20
    how = f"of {speed.memory_of}"
    return [
        *figures, Figure("peak memory", mebibytes, None, speed.pictures, unit="MiB", better="lower", how=how)
    ]  # fmt: skip


METRICS = (
    Metric("adherence", "quality", measure_adherence),
    Metric("CLIPScore", "quality", measure_clip_score),
    Metric("FID", "quality", measure_fid),
    Metric("KID", "quality", measure_kid),
    Metric("CMMD", "quality", measure_cmmd),
    Metric("validation loss", "quality", measure_validation_loss, once=True),
    Metric("diversity", "diversity", measure_diversity),
    Metric("speed", "speed", measure_speed),
)

TRILEMMA = {
    "quality": ("adherence", "CLIPScore", "CMMD", "FID", "KID"),
    "diversity": ("diversity",),
    "speed": ("seconds per image",),
}
"""Column → the figures that may stand for it, the first that was measured does. The sampling trilemma is that
of Xiao et al. 2022, arXiv:2112.07804: quality, diversity, speed; two of them are easy."""


def measure(metric: Metric, subject: Subject) -> list[Figure]:
    """The figures of one metric; whatever goes wrong becomes the reason why there is none."""
    try:
        figures = metric.measure(subject)
    except NotMeasured as error:
        return [not_measured(metric.name, str(error))]
    except T2IError as error:
        return [not_measured(metric.name, error.message)]
    except Exception as error:  # one broken metric must not cost the others
        return [not_measured(metric.name, f"failed: {type(error).__name__}: {error}"[:300])]
    return [_finite(figure) for figure in figures]


def _finite(figure: Figure) -> Figure:
    """The figure, or the reason if it is no number; JSON knows no NaN."""
    if figure.value is None:
        return figure
    if not math.isfinite(figure.value):
        return not_measured(figure.name, f"the result is not a finite number ({figure.value})", figure.how)
    if figure.interval is not None and not all(map(math.isfinite, figure.interval)):
        return replace(figure, interval=None)
    return figure
