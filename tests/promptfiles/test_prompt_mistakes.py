"""Everything that is wrong is told at once, each with its line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from t2i.promptfiles import Mistake, PromptFileError, PromptOptions, parse_prompt_file


def mistakes(text: str | bytes, format: str, **options: Any) -> list[Mistake]:
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(PromptFileError) as caught:
        parse_prompt_file(data, format, "p", PromptOptions(run_seed=0, **options))
    assert caught.value.exit_code == 2
    return list(caught.value.mistakes)


def record(**values: Any) -> bytes:
    return json.dumps({"prompt": "a fox", **values}).encode()


# A line of a .jsonl file, and what must be said about it.
KINDS: list[tuple[bytes, str]] = [
    (b'{"prompt": ', "not JSON"),
    (b"5", "not a JSON object"),
    (b"[" * 100_000, "not JSON that can be read"),
    (b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}", "not JSON that can be read"),
    (record(stepz=3), "unknown key 'stepz'"),
    (b'{"steps": 3}', "there is no prompt"),
    (record(prompt=" "), "there is no prompt"),
    (record(prompt=None), "there is no prompt"),
    (record(prompt=5), "--prompt 5: text is needed"),
    (record(prompt=["a"]), "--prompt (a list): text is needed"),
    (b'{"prompt": "a", "prompt": "b"}', "--prompt is given twice"),
    (record(steps=3, num_inference_steps=4), "--steps is given twice, as steps and as num_inference_steps"),
    (record(steps=0), "--steps 0: must be at least 1"),
    (record(steps=1001), "--steps 1001: must be at most 1000"),
    (record(steps="20"), '--steps "20": a whole number is needed'),
    (record(steps=1.5), "--steps 1.5: a whole number is needed"),
    (record(steps=True), "--steps true: a whole number is needed"),
    (record(steps={"a": 1}), "--steps (a table): a whole number is needed"),
    (b'{"prompt": "a", "guidance": NaN}', "--guidance-scale nan: a number is needed"),
    (b'{"prompt": "a", "guidance": 1e999}', "--guidance-scale inf: a number is needed"),
    (record(cfg=0.5), "--guidance-scale 0.5: must be at least 1"),
    (record(scheduler="eulr"), "unknown scheduler 'eulr'"),
    (record(width=100), "--width 100: must be a multiple of 8"),
    (record(height=8200), "--height 8200: must be at most 8192"),
    (record(size="64"), "--size 64: not WIDTHxHEIGHT"),
    (record(size="64x64", width=64), "--width is given twice, as size and as width"),
    (record(seed=-1), "--seed -1: must be at least 0"),
    (record(seed=2**63), f"--seed {2**63}: must be at most"),
    (record(seed=2**70), "--seed: a number of that size"),
    (record(seed=[]), "--seed (an empty list)"),
    (record(seed=[1, "x"]), '--seed "x": a whole number is needed'),
    (record(seed=2**63 - 1, num_images=2), f"--seed {2**63 - 1}: too large for 2 pictures"),
    (record(num_images=0), "--num-images 0: must be at least 1"),
    (record(dtype="fp8"), "--dtype fp8: not one of"),
    (record(deterministic="yes"), "--deterministic yes: true or false is needed"),
    (record(model=""), "--model: an empty name"),
    (record(output="../a.png"), "--output ../a.png: a line may only name a file inside"),
    (record(output="/a.png"), "--output /a.png: a line may only name a file inside"),
    (record(output="C:\\a.png"), "--output C:\\a.png: a line may only name a file inside"),
    (record(output="a.gif"), "cannot write .gif"),
    (record(output="{seed}.png"), "--output {seed}.png: a line names one file"),
    (record(output="first.png"), "--output first.png: line 1 has that name"),
    (record(prompt="a {b"), "{ without a }"),
    (record(prompt="a b}"), "} without a {"),
    (record(prompt="{" * 100), "more than 32 braces"),
    (record(prompt="{3$$a|b}"), "{3$$a|b}: 3 different options are wanted, but there are 2"),
    (record(prompt="{2$$a|a}"), "{2$$a|a}: 2 different options are wanted, but there are 1"),
    (record(prompt="{2-1$$a|b}"), "the range ends before it begins"),
    (record(prompt="{e$$a|b}"), "not a number of options"),
    (record(prompt="{0::a|0::b}"), "every weight is 0"),
    (record(prompt="${x=1}"), "variables ${…} are not read"),
    (record(negative_prompt="__colors__"), "__colors__: there is no colors.txt"),
    (record(prompt="__../secret__"), "__../secret__: leads out of the folder"),
    (record(prompt="__col*__"), "__col*__: patterns are not read"),
    (record(prompt="__broken__"), "wildcard file broken.txt line 2: { without a }"),
    (record(prompt="a\0b"), "a NUL character"),
    (b'{"prompt": "\\ud800"}', "half of a surrogate pair"),
    (b'{"prompt": "caf\xe9"}', "not UTF-8 text: byte 0xe9 in column 16"),
    (b'{"prompt": "a\0"}', "a NUL byte in column 14"),
]  # fmt: skip


def test_sixty_kinds_of_mistakes_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "colour.txt").write_text("red\nblue\n")
    (tmp_path / "broken.txt").write_text("red\n{blue\n")
    (tmp_path.parent / "secret.txt").write_text("told\n")
    good = record(output="first.png")
    found = mistakes(b"\n".join([good, *(line for line, _ in KINDS)]), "jsonl", wildcards=tmp_path)
    told: dict[int | None, list[str]] = {}
    for mistake in found:
        told.setdefault(mistake.line, []).append(mistake.message)
    for number, (line, expected) in enumerate(KINDS, 2):
        assert any(expected in message for message in told.get(number, [])), (line[:80], told.get(number))
    assert set(told) == set(range(2, len(KINDS) + 2))
    assert [mistake.line for mistake in found] == sorted(mistake.line or 0 for mistake in found)
    # One mistake a line; only the NUL and the byte that is no UTF-8 leave a second thing to say.
    assert all(len(messages) == 1 for messages in told.values())
    assert all(len(mistake.message) < 310 and "\n" not in mistake.message for mistake in found)


TXT = {
    "a --steps": "--steps has no value",
    "a --stps 3": "unknown key 'stps'",
    "a --steps 20 cats": "--steps 20 cats: a whole number is needed",
    "a --s 20 --S 30": "--steps is given twice",
    "a --t 0.6": "unknown key 't'",
    "--steps 3": "there is no prompt",
    "--prompt a --n_iter x": "--num-images x: a whole number is needed",
    "--prompt a --restore_faces true": "unknown key 'restore_faces'",
    "a --w 512px": "--width 512px: a whole number is needed",
    "a --d 1,,2": "--seed : a whole number is needed",
    "a --deterministic maybe": "--deterministic maybe: true or false is needed",
    "a drum --N 2": "--N 2 would be a negative prompt",
    "Negative prompt: blurry, dark": "is of the text inside a picture, and no prompt",
    "Steps: 20, Sampler: Euler a, CFG scale: 7": "is of the text inside a picture, and no prompt",
}


def test_mistakes_in_txt() -> None:
    found = mistakes("\n".join(TXT), "txt")
    assert [mistake.line for mistake in found] == list(range(1, len(TXT) + 1))
    for mistake, expected in zip(found, TXT.values(), strict=True):
        assert expected in mistake.message


def test_all_mistakes_of_one_line_are_told() -> None:
    found = mistakes("a {b --w 513 --stps 3 --l 0", "txt")
    assert {mistake.line for mistake in found} == {1} and len(found) == 4


def test_the_nearest_key_is_named() -> None:
    hints = {mistake.message: mistake.hint for mistake in mistakes("a --stps 3\nb --gidance 3", "txt")}
    assert hints["unknown key 'stps'"] == "did you mean steps?"
    assert hints["unknown key 'gidance'"] == "did you mean guidance?"


def test_mistakes_in_csv() -> None:
    text = 'prompt,stepz,steps,num_inference_steps\na,b,c,d,e\n"x"y,1\n\nok,,0,\n"open\nto the end\n'
    assert [(mistake.line, mistake.message.split(":")[0]) for mistake in mistakes(text, "csv")] == [
        (1, "unknown key 'stepz'"),
        (1, "two columns are called steps"),
        (2, "5 cells, but 4 columns"),
        (3, "not CSV"),
        (5, "--steps 0"),
        (6, "not CSV"),
    ]
    assert [mistake.message for mistake in mistakes("seed\n1\n2\n", "csv")] == [
        "the first row names no column `prompt`"
    ]


def test_mistakes_in_toml_and_yaml() -> None:
    assert mistakes("a = 1\nb = [1,\n", "toml")[0].line == 2
    assert [m.line for m in mistakes("stepz = 1\n\nprompts = [1,\n'a', [],\n]", "toml")] == [1, 3, 4]
    assert mistakes("prompts = 5", "toml")[0].message == "prompts is not a list"
    assert mistakes("- a\n- {b: [\n", "yaml")[0].line is not None
    text = "stepz: 1\nprompts:\n- a\n- 5\n- [b]\n- prompt: 2020-99-99\n- prompt: c\n  steps: 0\n  steps: 1\n"
    assert [mistake.line for mistake in mistakes(text, "yaml")] == [1, 4, 5, 6, 8]
    assert "prompts" in mistakes("steps: 5", "yaml")[0].message
    assert mistakes("- é\n- a\x07\n", "yaml")[0].line == 2
    assert "list of prompts" in mistakes("just text", "yaml")[0].message


def test_a_yaml_bomb_is_refused_at_once() -> None:
    text = "\n".join(
        ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))]
    )
    found = mistakes(f"{text}\nprompts: [{{prompt: *a29}}]", "yaml")
    assert len(found) == 31


@pytest.mark.parametrize("text", ["- " * 100_000, "\n" + "[" * 100_000, "{a: " * 100_000])
def test_endless_nesting_is_refused(text: str) -> None:
    (mistake,) = mistakes(
        text, "yaml"
    )  # an older reader in C would end the process, a newer one says it first
    assert re.search("inside of each other|nesting depth", mistake.message)
    assert mistake.line == text.count("\n") + 1


@pytest.mark.parametrize("format", ["txt", "jsonl", "csv", "toml", "yaml"])
@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_has_no_prompt(format: str, text: str) -> None:
    assert mistakes(text, format) == [Mistake(None, "there is no prompt in it")]


def test_another_encoding_is_one_mistake() -> None:
    assert mistakes("a fox".encode("utf-16"), "txt") == [Mistake(1, "UTF-16 text", "save the file as UTF-8")]


def test_what_is_wrong_beside_the_file() -> None:
    axes = [
        "steps=20,20",
        "stepz=3",
        "seed=1..3",
        "seed=4",
        "prompt=a",
        "steps",
        "steps=0",
        'n="',
        "width=9..8",
    ]
    found = mistakes("a --d 5", "txt", axes=axes, repeat=0, defaults={"steps": 0}, wildcards="/nowhere")
    assert [mistake.line for mistake in found] == [None] * 11 + [1]
    said = " | ".join(mistake.message for mistake in found)
    for part in (
        "20 is there twice",
        "--axis stepz: unknown key",
        "--axis seed=4: another axis",
        "--repeat 0",
        "--axis prompt",
        "not NAME=VALUE",
        "/nowhere: not a folder",
        "--seed is given here and by",
    ):
        assert part in said  # fmt: skip


def test_wrong_defaults_are_told_once() -> None:
    found = mistakes('{"defaults": {"steps": 0}}\n"a"\n"b"\n"c"', "jsonl")
    assert [(mistake.line, mistake.message) for mistake in found] == [(1, "--steps 0: must be at least 1")]
    (mistake,) = mistakes('{"defaults": {"negative_prompt": "{a"}}\n"a"\n"b"', "jsonl")
    assert mistake.line == 1
    (mistake,) = mistakes("- {prompt: a, output: x.png}\n- {prompt: b, output: x.png}", "yaml")
    assert (mistake.line, mistake.message) == (2, "--output x.png: line 1 has that name")


def test_how_the_exception_tells_it() -> None:
    with pytest.raises(PromptFileError) as caught:
        parse_prompt_file(b"a --s 0\nb --s 0", "txt", "p.txt")
    assert caught.value.message == "2 mistakes, the first: p.txt line 1: --steps 0: must be at least 1"
    assert [error.message for error in caught.value.each()] == [
        "p.txt line 1: --steps 0: must be at least 1",
        "p.txt line 2: --steps 0: must be at least 1",
    ]
    with pytest.raises(PromptFileError, match=r"^p.txt line 1: --steps 0"):
        parse_prompt_file(b"a --s 0", "txt", "p.txt")
