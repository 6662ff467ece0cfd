"""`t2i train`: a model from a folder of captioned pictures."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i import environment
from t2i.cli.door import notice
from t2i.cli.options import config_command
from t2i.config import TrainConfig

if TYPE_CHECKING:
    from t2i.training import Progress

SECONDS_BETWEEN_LINES = 30.0


@config_command(TrainConfig, none_means="the method's")
def command(
    given: dict[str, Any],
    verbose: Annotated[bool, typer.Option("--verbose", help="also show what the libraries say")] = False,
) -> None:
    """Train a model on a folder of captioned pictures.

    `--method scratch` trains an autoencoder (vae), a text encoder (clip) and a UNet in order; each can be run
    alone. The model ends up in OUTPUT/model, a folder that `t2i generate --model` and Diffusers load. A run
    that was stopped or killed goes on with `--resume latest` and ends in the same bits. What a run did not
    make itself it replaces only with `--overwrite`.
    """
    config = TrainConfig.from_dict(given)
    environment.prepare(offline=True, quiet=not verbose)
    from t2i.training import train

    shown = Show(sys.stderr.isatty())
    for progress in train(config):
        shown.progress(progress)
    print(f"{config.output}/{'model' if config.method in ('scratch', 'unet') else 'parts'}")


class Show:
    """Progress on stderr: one line that is redrawn on a terminal, a line now and then in a log."""

    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal
        self.began: dict[str, tuple[float, int]] = {}
        self.last = 0.0

    def progress(self, progress: Progress) -> None:
        """Show a notice, or a step if it is time for one."""
        if progress.notice:
            self._line(f"{progress.stage}: {progress.notice}", keep=True)
            return
        now = time.monotonic()
        began, first = self.began.setdefault(progress.stage, (now, progress.step))
        if (
            now - self.last < (0.2 if self.terminal else SECONDS_BETWEEN_LINES)
            and progress.step < progress.total
        ):
            return
        self.last = now
        pace = (now - began) / max(1, progress.step - first)
        left = time.strftime("%H:%M:%S", time.gmtime(pace * (progress.total - progress.step)))
        figures = "  ".join(f"{name} {value:.4g}" for name, value in progress.figures.items())
        self._line(f"{progress.stage} {progress.step}/{progress.total}  {left} left  {figures}", keep=False)

    def _line(self, text: str, keep: bool) -> None:
        if self.terminal:
            print(f"\r\033[K{text}", end="\n" if keep else "", file=sys.stderr, flush=True)
        else:
            notice(text)
