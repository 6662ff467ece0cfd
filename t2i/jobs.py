"""What one run draws: which prompt, which seed, in which order. Decided before any model is loaded."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from t2i.config import GenerateConfig
from t2i.config.generate import SEED_LIMIT
from t2i.errors import UsageError

DRAWN_SEED_LIMIT = 2**32  # a seed that a person can read out and every other tool accepts


@dataclass(frozen=True)
class Job:
    """One picture to draw.

    Args:
        index: Position in the whole run, from 0.
        prompt: What to draw.
        prompt_index: Which prompt of the run, from 0.
        image_index: k, counted within the prompt, from 0.
        seed: Start noise; the prompt's seed + k.
        negative_prompt: Instead of the run's.
        guidance_scale: Instead of the run's; both on (above 1) or both off.
    """

    index: int
    prompt: str
    prompt_index: int
    image_index: int
    seed: int
    negative_prompt: str | None = None
    guidance_scale: float | None = None

    def name_fields(self) -> dict[str, object]:
        """What `t2i.naming.plan_paths` may put into a file name."""
        return {
            "index": self.index,
            "seed": self.seed,
            "slug": self.prompt,
            "prompt_index": self.prompt_index,
            "image_index": self.image_index,
        }


def plan_jobs(config: GenerateConfig) -> list[Job]:
    """The pictures of one run, prompt by prompt.

    Image k of a prompt has seed `config.seed` + k whatever the other prompts are. Without a seed, one is
    drawn for each prompt.

    Raises:
        UsageError: No prompt, or a seed that would leave the range.
    """
    if not config.prompts:
        raise UsageError("no prompt was given", 'try: t2i generate "a corgi playing a trumpet"')
    if config.seed is not None and config.seed + config.num_images > SEED_LIMIT:
        raise UsageError(f"--seed {config.seed}: too large for {config.num_images} images")
    jobs: list[Job] = []
    for prompt_index, prompt in enumerate(config.prompts):
        seed = secrets.randbelow(DRAWN_SEED_LIMIT - config.num_images) if config.seed is None else config.seed
        for k in range(config.num_images):
            jobs.append(Job(len(jobs), prompt, prompt_index, k, seed + k))
    return jobs


def read_prompts(words: Iterable[str], lines: Iterable[str]) -> tuple[str, ...]:
    """The prompts of a command line, where `-` stands for one prompt per non-empty line of `lines`.

    Raises:
        UsageError: The lines are not UTF-8 text.
    """
    prompts: list[str] = []
    try:
        for word in words:
            prompts += [line.strip() for line in lines if line.strip()] if word == "-" else [word]
    except UnicodeDecodeError as error:
        raise UsageError("the prompts on stdin are not UTF-8 text") from error
    return tuple(prompts)
