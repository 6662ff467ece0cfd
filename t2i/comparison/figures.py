"""What a comparison of schedulers found: a cell per picture, the observed orders, how to read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from t2i.config import GenerateConfig

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

CLEARLY_ABOVE = 5  # a distance of so many times the reference's own error is at least 80 % the row's
FEWEST_FOR_ORDER = 3  # two points always lie on a line
STRAIGHT = 1.3  # distances further than this factor from the fitted power of steps follow no such power


@dataclass(frozen=True)
class Cell:
    """One scheduler with one number of steps.

    Attributes:
        scheduler: Name of the row.
        steps: Denoising steps.
        stochastic: It draws noise of its own, so it lands elsewhere however many steps it takes.
        network_calls: Evaluations of the network; the two sides of guidance together are one.
        distance: RMS of the difference to the reference's latents over the RMS of those, ≥ 0. It counts
            whatever sets the row apart, also the noise levels where its list begins and ends.
        psnr: Of its pixels against the reference's, dB; infinite where they are equal.
        seconds: Denoising and decoding, without loading and without encoding the prompt.
        pixels: uint8, (H, W, 3).
        left_out: Why there is no picture; the figures are then not a number.
    """

    scheduler: str
    steps: int
    stochastic: bool = False
    network_calls: int = 0
    distance: float = math.nan
    psnr: float = math.nan
    seconds: float = math.nan
    pixels: np.ndarray | None = field(default=None, repr=False)
    left_out: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: null for what was not measured and for an infinite PSNR."""
        figures = {"distance": self.distance, "psnr_db": self.psnr, "seconds": self.seconds}
        return {
            "scheduler": self.scheduler,
            "steps": self.steps,
            "stochastic": self.stochastic,
            "network_calls": self.network_calls,
            **{name: value if math.isfinite(value) else None for name, value in figures.items()},
            "equal_pixels": math.isinf(self.psnr),
            "left_out": self.left_out or None,
        }


@dataclass(frozen=True)
class Order:
    """How fast a row comes near: distance ~ steps^(−`value`), fitted over `steps`.

    It may be below the order of the method: the first step from pure noise and the last one to no noise are
    taken at first order by all of them.
    """

    value: float
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """All cells, and what they are compared with.

    Attributes:
        config: Settled: one prompt, its seed, the model's defaults in place of what was not given.
        model: What recipes call the model.
        reference: Its own `distance` and `psnr` are to the same method with half the steps, whose error is
            twice as large: so the distance is about the reference's error.
        cells: Row by row, steps ascending, as many in every row.
    """

    config: GenerateConfig
    model: str
    reference: Cell
    cells: tuple[Cell, ...]

    @property
    def schedulers(self) -> tuple[str, ...]:
        """Names of the rows, each once."""
        return tuple(dict.fromkeys(cell.scheduler for cell in self.cells))

    def row(self, scheduler: str) -> list[Cell]:
        """The cells of one row that have a picture."""
        return [cell for cell in self.cells if cell.scheduler == scheduler and not cell.left_out]

    def order(self, scheduler: str) -> Order | None:
        """`observed_order` of one row; None for one that draws noise."""
        cells = self.row(scheduler)
        if any(cell.stochastic for cell in cells):
            return None
        return observed_order([(cell.steps, cell.distance) for cell in cells], self.reference.distance)

    def to_dict(self) -> dict[str, Any]:
        """What holds for the whole comparison, as plain values for JSON; the cells have their own."""
        orders = {name: self.order(name) for name in self.schedulers}
        settings = ("seed", "guidance_scale", "negative_prompt", "width", "height")
        return {
            "prompt": self.config.prompts[0],
            "model": self.model,
            **{name: getattr(self.config, name) for name in settings},
            "reference": {
                "scheduler": self.reference.scheduler,
                "steps": self.reference.steps,
                "own_error": self.reference.distance,
                "seconds": self.reference.seconds,
            },
            "observed_order": {
                name: order and {"order": order.value, "steps": list(order.steps)}
                for name, order in orders.items()
            },
        }

    def notes(self) -> list[str]:
        """What a person must know to read the figures, a line each."""
        reference = self.reference
        lines = [
            f"distance: relative RMS in latents to {reference.scheduler} with {reference.steps} steps from "
            f"the same noise, which is itself about {reference.distance:.2g} from the exact solution; it "
            "counts also where a scheduler's noise levels begin and end"
        ]
        if any(cell.stochastic for cell in self.cells):
            lines.append("*: draws noise of its own and lands elsewhere, so its distance does not go to 0")
        reasons = (f"left out: {cell.scheduler}: {cell.left_out}" for cell in self.cells if cell.left_out)
        return [*lines, *dict.fromkeys(reasons)]


def relative_distance(found: Tensor, reference: Tensor) -> float:
    """RMS of the difference of two latents, (B, C, h, w), over the RMS of the second; 0 = equal."""
    found, reference = found.cpu().double(), reference.cpu().double()
    return float((found - reference).square().mean().sqrt() / reference.square().mean().sqrt())


def observed_order(points: Sequence[tuple[int, float]], reference_error: float) -> Order | None:
    """Minus the slope of log distance against log steps, by least squares.

    Args:
        points: Steps and distance, steps ascending.
        reference_error: Of what the distances are measured to, in their unit.

    Returns:
        None where a slope would mean nothing: fewer than three distances that are clearly above the
        reference's own error, or distances that do not fall from each number of steps to the next, or
        that lie on no straight line.

    Source: Hairer, Nørsett & Wanner 1993, Solving Ordinary Differential Equations I, sections II.3 (a method
        of order p has a global error of O(h^p)) and II.4 (its error from two step sizes).
    """
    clear = [(steps, distance) for steps, distance in points if distance > CLEARLY_ABOVE * reference_error]
    falling = all(later[1] < earlier[1] for earlier, later in pairwise(clear))
    if len(clear) < FEWEST_FOR_ORDER or not falling:
        return None
    x, y = ([math.log(value) for value in values] for values in zip(*clear, strict=True))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    across = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    slope = across / sum((a - mean_x) ** 2 for a in x)
    off = max(abs(b - mean_y - slope * (a - mean_x)) for a, b in zip(x, y, strict=True))
    return Order(-slope, tuple(steps for steps, _ in clear)) if off <= math.log(STRAIGHT) else None
