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
from t2i.config.loras import read_tags
from t2i.config.output import OutputConfig
from t2i.errors import UsageError
from t2i.jobs import read_prompts

USED_BY_EXPLAIN = {"prompts", "model", "embedding", "json", "verbose", "offline"}


@config_command(
    GenerateConfig, also=OutputConfig, positional="prompts", none_means="the model's", config_file=True
)
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

    A LoRA can also be named in a prompt, as <lora:corgi:0.8>: corgi.safetensors is looked for among the
    --lora files and beside them, in the current folder, and in ~/.local/share/t2i/loras (or T2I_DATA/loras);
    the model does not see the tag. --lora and --embedding take names as well.
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
    from t2i.families.added_tokens import AddedTokens
    from t2i.families.prompts import explain_prompt

    adapters = weights.find_all(config, config.prompts)
    tokenizer, known_words = weights.load_vocabulary(weights.resolve_model(config.model))
    begin, tokens = len(tokenizer), {}
    for use in next(iter(adapters.values())).embeddings:
        tokens[use.file.token] = range(begin, begin := begin + use.file.vectors)
    if tokens:
        tokenizer = AddedTokens(tokenizer, tokens)
        known_words = (*known_words, *tokens) if known_words else ()
    for line in notices:
        notice(line)
    for prompt in config.prompts:
        known = () if adapters[prompt].loras else known_words  # what a LoRA has seen nobody knows
        explanation = explain_prompt(tokenizer, read_tags(prompt)[0], known)
        if door.json:
            print(json.dumps({"prompt": prompt, **asdict(explanation)}, ensure_ascii=False))
        else:
            print("\n".join([prompt, *(f"  {line}" for line in explanation.lines())]))
