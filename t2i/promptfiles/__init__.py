"""Prompt files: txt, jsonl, csv, toml and yaml become checked configs, one entry per prompt and setting.

    options = PromptOptions(axes=["steps=20,30"], wildcards="wildcards/", run_seed=7)
    file = read_prompt_file("prompts.txt", options=options)
    for entry in file.entries:
        entry.line, entry.config, entry.label

Each format has a module `from_…`, whose docstring describes it; `wildcards` and `picks` replace words,
`entries` gives seeds. Knows nothing of models and pictures: it imports no torch, and reads no file but the
prompt file and the wildcards.
"""

from t2i.promptfiles.entries import Entry
from t2i.promptfiles.mistakes import Mistake, PromptFileError
from t2i.promptfiles.reading import PromptFile, PromptOptions, parse_prompt_file, read_prompt_file
from t2i.promptfiles.sources import FORMATS

__all__ = [
    "FORMATS",
    "Entry",
    "Mistake",
    "PromptFile",
    "PromptFileError",
    "PromptOptions",
    "parse_prompt_file",
    "read_prompt_file",
]
