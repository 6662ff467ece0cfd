"""`t2i train`: a model from a folder of captioned pictures."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from t2i import environment
from t2i.cli.door import notice, printable
from t2i.cli.options import config_command
from t2i.config import TrainConfig
from t2i.config.train import OWN_PARTS

if TYPE_CHECKING:
    from t2i.training import Progress

SECONDS_BETWEEN_LINES = 30.0


@config_command(TrainConfig, none_means="the method's", config_file=True)
def command(
    given: dict[str, Any],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="check everything, show the plan, write nothing")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="also show what the libraries say")] = False,
) -> None:
    """Train a model on a folder of captioned pictures.

    The dataset may also be parquet or webdataset files, or one of the Hub: these are unpacked once, in the
    user's cache. It teaches a base model (`--model`, default pocket): `--method lora` makes
    OUTPUT/lora.safetensors, `full` and `dreambooth` OUTPUT/model, `textual-inversion` a word in
    OUTPUT/embedding, `controlnet` and `classifier` a folder in OUTPUT/parts. `--method scratch` trains an
    autoencoder (vae), a text encoder (clip) and a UNet in order, without a base; each can be run alone; the
    result is OUTPUT/model. The path is printed. A run that was stopped or killed goes on with `--resume
    latest` and ends in the same bits; before its first step, with the same command. What a run did not make
    itself it replaces only with `--overwrite`. OUTPUT/run.html shows the run: curves, sheets, settings.
    """
    config = TrainConfig.from_dict(given)
    here = config.method in OWN_PARTS and Path(config.dataset).exists()  # a base or dataset may be on the Hub
    environment.prepare(offline=config.offline or here, quiet=not verbose)
    from t2i.training import follows, result_of, train

    if dry_run:
        from t2i.training.plan import plan_run

        for line in plan_run(config):
            print(printable(line))
        return
    shown = Show(sys.stderr.isatty())
    for progress in train(config):
        shown.progress(progress)
    if not follows():
        print(result_of(config))


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
        left = ""
        if progress.step > first:  # the first step has nothing to be compared with
            pace = (now - began) / (progress.step - first)
            left = time.strftime("%H:%M:%S left  ", time.gmtime(pace * (progress.total - progress.step)))
        figures = "  ".join(f"{name} {value:.4g}" for name, value in progress.figures.items())
        self._line(f"{progress.stage} {progress.step}/{progress.total}  {left}{figures}", keep=False)

    def _line(self, text: str, keep: bool) -> None:
        if self.terminal:
            print(f"\r\033[K{text}", end="\n" if keep else "", file=sys.stderr, flush=True)
        else:
            notice(text)
