"""`.txt`: one prompt a line, with the per-line options that other tools' prompt files have.

    # a comment, and blank lines                                   only the first character counts
    a corgi playing a trumpet
    a fox --n blurry, dark --w 512 --h 768 --s 28 --d 1,2 --l 7.5 --f fox.png
    a castle --steps 30 --scheduler "DPM++ 2M Karras"              any long option of `t2i generate`
    --prompt "a cat" --negative_prompt "blurry" --steps 20 --cfg_scale 7 --sampler_name "Euler a" --n_iter 2

- An option is a word that begins with two hyphens and a letter. Its value goes to the next such word, and may
  stand in quotes. `--` alone and `-x` are text. A backslash makes text of an option, `\\--like-this`, and of
  a `\\#` at the start of a line. An unknown option is a mistake, where the tools below drop it in silence.
- One letter, of either case: n negative prompt, w width, h height, s steps, d seed (or several: 1,2,3),
  l guidance scale, f file name. So they are in kohya-ss/sd-scripts `gen_img.py`.
- A line that begins with an option is the form of AUTOMATIC1111/stable-diffusion-webui
  `scripts/prompts_from_file.py`: values are read as a shell does, words behind a quoted one belong to it, and
  `batch_size` x `n_iter` pictures are drawn, unless `num_images` says how many.
- A seed of -1 is one that is not given, as in both tools.
- What is surely not meant is a mistake: `--N 2`, which would be a negative prompt, and the text that
  AUTOMATIC1111 writes into pictures ("Negative prompt: …", "Steps: 20, Sampler: …").
"""

from __future__ import annotations

import re

from t2i.promptfiles.mistakes import Mistakes
from t2i.promptfiles.sources import Item, Parsed, Record

ALIASES = {
    "n": "negative_prompt", "w": "width", "h": "height", "s": "steps", "d": "seed", "l": "guidance_scale",
    "f": "output", "sampler_name": "scheduler",
}  # fmt: skip
BOOLEANS = {"deterministic": "true", "no_deterministic": "false"}
_DOUBLE, _SINGLE = r'"(?:[^"\\]|\\.)*"(?!\S)', r"'[^']*'(?!\S)"
# A quoted stretch, in which nothing is an option, or an option (group 1).
FLAG = re.compile(rf"(?<![^\s=])(?:{_DOUBLE}|{_SINGLE})|(?<!\S)--([^\W\d_][^\s=]*)=?")
WORD = re.compile(rf"{_DOUBLE}|{_SINGLE}|\S+")
QUOTED = re.compile(rf"{_DOUBLE}|{_SINGLE}")
PARAMETERS = re.compile(r"Negative prompt: |Steps: \d+, Sampler: ")
TEXT_HYPHENS = re.compile(r"(?<!\S)\\--")


def read(text: str, mistakes: Mistakes) -> Parsed:
    """The lines of a text file; see the module docstring.

    Args:
        text: With plain newlines.
        mistakes: Where options without a value are noted.
    """
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if line and not line.startswith("#"):
            prompt = line[1:] if line.startswith("\\#") else line
            records.append(Record(number, tuple(_items(prompt, number, mistakes))))
    return Parsed(None, records, textual=True)


def _items(line: str, number: int, mistakes: Mistakes) -> list[Item]:
    if PARAMETERS.match(line):
        hint = "write the options behind the prompt: --n blurry --s 20; t2i replay reads pictures themselves"
        mistakes.add(number, f'"{line[:40]}" is of the text inside a picture, and no prompt', hint)
    if "--" not in line:
        return [Item("prompt", line, number)]
    flags = [found for found in FLAG.finditer(line) if found.group(1)]
    prompt = line[: flags[0].start()] if flags else line
    long_form = bool(flags) and not prompt.strip()
    items = [] if long_form else [Item("prompt", _plain(prompt), number)]
    for flag, following in zip(flags, [*flags[1:], None], strict=False):
        raw = line[flag.end() : following.start() if following else len(line)].strip()
        typed = flag[1].lower().replace("-", "_")
        name = ALIASES.get(typed, typed)
        if name in BOOLEANS and not raw:
            items.append(Item("deterministic", BOOLEANS[name], number))
        elif not raw:
            mistakes.add(number, f"--{flag[1]} has no value", 'for an empty one write ""')
        elif flag[1] == "N" and raw.isdecimal():
            hint = f"for that many pictures write --num-images {raw}"
            mistakes.add(number, f"--N {raw} would be a negative prompt", hint)
        elif not (name == "seed" and raw == "-1"):
            items.append(Item(name, _value(raw, long_form), number))
    return _counted(items, number) if long_form else items


def _value(raw: str, long_form: bool) -> str:
    """The value without its quotes. In the long form every word may have its own; see `shlex`."""
    if long_form:
        return " ".join(_unquoted(word) for word in WORD.findall(raw))
    return _unquoted(raw) if QUOTED.fullmatch(raw) else _plain(raw)


def _unquoted(word: str) -> str:
    if not QUOTED.fullmatch(word):
        return _plain(word)
    return word[1:-1] if word[0] == "'" else re.sub(r'\\(["\\])', r"\1", word[1:-1])


def _plain(text: str) -> str:
    return TEXT_HYPHENS.sub("--", text.strip())


def _counted(items: list[Item], number: int) -> list[Item]:
    """`n_iter` and `batch_size` as the number of pictures that AUTOMATIC1111 would draw."""
    given = {item.key: item.value for item in items}
    if "num_images" in given:
        return [item for item in items if item.key != "n_iter"]
    counts = [given[key] for key in ("n_iter", "batch_size") if key in given]
    if not counts:
        return items
    # As a number of pictures only: a fixed batch size would keep t2i from halving it where memory runs out.
    others = [item for item in items if item.key not in ("n_iter", "batch_size")]
    images = 1
    for count in counts:
        if not count.isdecimal():
            return [*others, Item("num_images", count, number)]
        images *= int(count[:9])
    return [*others, Item("num_images", str(images), number)]
