"""`t2i generate`: pictures from prompts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Annotated, Any

import typer

from t2i.cli import drawing
from t2i.cli.door import notice
from t2i.cli.options import config_command
from t2i.config import GenerateConfig, flag_of
from t2i.config.output import OutputConfig
from t2i.errors import UsageError
from t2i.jobs import read_prompts

USED_BY_EXPLAIN = {"prompts", "model", "json", "verbose", "offline"}


@config_command(GenerateConfig, also=OutputConfig, positional="prompts", none_means="the model's")
def command(
    given: dict[str, Any],
    door: OutputConfig,
    prompt: Annotated[
        list[str] | None, typer.Option("-p", "--prompt", help="the same as a plain PROMPT")
    ] = None,
    size: Annotated[str | None, typer.Option(help="width and height, as 512x768", metavar="WxH")] = None,
    explain_prompt: Annotated[
        bool, typer.Option("--explain-prompt", help="show how the model reads the prompt, and stop")
    ] = False,
) -> None:
    """Draw pictures from prompts.

    The paths of the pictures go to stdout, everything else to stderr. Each picture carries its recipe.
    """
    words = (*given.get("prompts", ()), *(prompt or ()))
    prompts = read_prompts(words, sys.stdin if "-" in words else ())
    config = GenerateConfig.from_dict({**drawing.with_size(given, size), "prompts": prompts})
    using = f"using {config.model}, the small built-in model; for larger ones see `t2i models` and --model"
    notices = [] if "model" in given else [using]
    if explain_prompt:
        _refuse_idle({**given, "size": size}, door)
        _explain(config, door, notices)
    else:
        drawing.draw(config, door, notices=notices)


def _refuse_idle(given: Mapping[str, Any], door: OutputConfig) -> None:
    """Refuse options of the drawing beside --explain-prompt, which draws nothing."""
    changed = [item.name for item in fields(door) if getattr(door, item.name) != item.default]
    typed = [*(name for name, value in given.items() if value is not None), *changed]
    idle = ", ".join(flag_of(name) for name in typed if name not in USED_BY_EXPLAIN)
    if idle:
        raise UsageError(f"--explain-prompt draws nothing: {idle} would have no effect", "leave it out")


def _explain(config: GenerateConfig, door: OutputConfig, notices: Sequence[str]) -> None:
    if not config.prompts:
        raise UsageError("no prompt to explain", 'give one: t2i generate "a corgi" --explain-prompt')
    drawing.prepare(door)
    from t2i import weights
    from t2i.families.prompts import explain_prompt

    tokenizer, known_words = weights.load_vocabulary(weights.resolve_model(config.model))
    for line in notices:
        notice(line)
    for prompt in config.prompts:
        explanation = explain_prompt(tokenizer, prompt, known_words)
        if door.json:
            print(json.dumps({"prompt": prompt, **asdict(explanation)}, ensure_ascii=False))
        else:
            print("\n".join([prompt, *(f"  {line}" for line in explanation.lines())]))
