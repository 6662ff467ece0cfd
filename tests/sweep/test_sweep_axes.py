"""What `--axis` of a sweep may say, and what is said about everything else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from t2i.sweep import Sweep, SweepError, read_sweep
from t2i.sweep.axes import model_labels
from t2i.sweep.cells import replace_words

PROBE = """
import json, sys
from t2i.cli import run
code = run(sys.argv[1:])
heavy = ("torch", "diffusers", "transformers", "numpy", "PIL")
print(json.dumps([code, [name for name in heavy if name in sys.modules]]))
"""


def values(axis: str, prompt: str | None = "a red fox") -> list[dict[str, Any]]:
    """What each value of an axis sets."""
    return [fields for _, fields in read_sweep(prompt, {}, [axis]).axes[0].points]


def mistakes(prompt: str | None, given: dict[str, Any], axes: Sequence[str]) -> list[str]:
    with pytest.raises(SweepError) as caught:
        read_sweep(prompt, given, axes)
    return [error.message for error in caught.value.each]


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ("steps=5, 10,20", [{"steps": 5}, {"steps": 10}, {"steps": 20}]),
        ("--cfg-scale=1,7.5", [{"guidance_scale": 1.0}, {"guidance_scale": 7.5}]),
        ("seed=0..2,9", [{"seed": seed} for seed in (0, 1, 2, 9)]),
        ('sampler=ddim,"DPM++ 2M Karras"', [{"scheduler": "ddim"}, {"scheduler": "dpm++2m-karras"}]),
        ("size=64x64,96x64", [{"width": 64, "height": 64}, {"width": 96, "height": 64}]),
        ("negative-prompt=|blurry, dark", [{"negative_prompt": ""}, {"negative_prompt": "blurry, dark"}]),
        ("deterministic=true,false", [{"deterministic": True}, {"deterministic": False}]),
        ("replace=red,blue", [{"replace red": "red"}, {"replace red": "blue"}]),
        ("replace=red fox|cat, asleep", None),
    ],
)
def test_values(axis: str, expected: list[dict[str, Any]] | None) -> None:
    if expected is None:
        expected = [{"replace red fox": "red fox"}, {"replace red fox": "cat, asleep"}]
    assert values(axis) == expected


def test_prompts_have_commas() -> None:
    assert values('prompt=a cat, sitting|a dog|"{a|b} c"', None) == [
        {"prompt": "a cat, sitting"}, {"prompt": "a dog"}, {"prompt": "{a|b} c"},
    ]  # fmt: skip
    (message,) = mistakes(None, {}, ["prompt=a cat,a dog"])
    assert "| parts prompts" in message


def test_cells_are_every_combination_with_one_seed() -> None:
    sweep = read_sweep("a red fox", {"width": 64}, ["steps=5,10", "replace=red,blue", "guidance-scale=1,4"])
    cells = sweep.cells(seed=7)
    told = [(cell.config.steps, cell.config.prompts[0], cell.config.guidance_scale) for cell in cells]
    assert told == [(s, f"a {c} fox", g) for s in (5, 10) for c in ("red", "blue") for g in (1, 4)]
    assert [cell.place for cell in cells] == [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    assert {(cell.config.seed, cell.config.width) for cell in cells} == {(7, 64)}
    assert cells[3].name == "steps 5, replace red blue, guidance-scale 4"
    assert [cell.config.seed for cell in read_sweep("a", {}, ["seed=3,5"]).cells(7)] == [3, 5]
    assert [cell.config.seed for cell in read_sweep("a", {"seed": 0}, ["steps=3,5"]).cells(7)] == [0, 0]


def test_words_are_replaced_whole_and_all_at_once() -> None:
    swapped = replace_words("a red cat, bored, Red, and a blue cat", {"red": "blue", "blue": "red"})
    assert swapped == "a blue cat, bored, Red, and a red cat"
    assert replace_words("red, red hat", {"red": "x", "red hat": "y"}) == "x, y"
    assert replace_words("一只狗在草地上", {"狗": "猫"}) == "一只猫在草地上"
    assert replace_words("c++ (old)", {"(old)": r"\1"}) == r"c++ \1"


def test_paths_are_called_by_what_tells_them_apart() -> None:
    assert model_labels(["pocket", "/home/me/runs/a/model", "org/name"]) == {
        "pocket": "pocket", "/home/me/runs/a/model": "a/model", "org/name": "org/name",
    }  # fmt: skip
    assert list(model_labels(["/x/a/unet/model", "/x/b/unet/model"]).values()) == [
        "a/unet/model", "b/unet/model",
    ]  # fmt: skip
    assert model_labels(["/m.safetensors"]) == {"/m.safetensors": "m.safetensors"}


@pytest.mark.parametrize(
    ("prompt", "given", "axes", "said"),
    [
        ("a", {}, ["steps=0,x,5", "sampler=eulr,ddim"], [
            "--axis steps=0: must be at least 1", "--axis steps=x: a whole number is needed",
            "--axis scheduler=eulr: unknown scheduler 'eulr'",
        ]),
        ("a", {}, ["model=./nope,pocket"], ["--axis model=./nope: there is no model at ./nope"]),
        ("a", {}, [], ["--axis is given 0 times; 1 to 3 make a sweep"]),
        ("a", {}, ["seed=1,2", "steps=1", "width=64", "height=64"], ["--axis is given 4 times"]),
        ("a", {}, ["steps"], ["--axis steps: not NAME=VALUE,VALUE"]),
        ("a", {}, ["stepz=1,2"], ["--axis stepz: not an option that can be varied"]),
        ("a", {}, ["num-images=1,2"], ["a cell of the sheet holds one picture"]),
        ("a", {}, ["steps=5,5"], ["--axis steps=5: is there twice"]),
        ("a", {}, ["steps=5", "num-inference-steps=6"], ["another axis sets steps"]),
        ("a", {}, ["width=64", "size=64x64"], ["another axis sets width"]),
        ("a", {"steps": 4}, ["steps=5,6"], ["--steps is given, and --axis steps too"]),
        ("a", {"width": 64}, ["size=64x64"], ["--width is given, and --axis size too"]),
        ("a", {}, ["prompt=b|c"], ["a prompt is given, and --axis prompt too"]),
        (None, {}, ["steps=5,6"], ["no prompt was given"]),
        (None, {}, ["prompt=a| |b"], ["--axis prompt=: there is no prompt"]),
        ("a cat", {}, ["replace=dog,cow"], ["--axis replace=dog: the prompt 'a cat' has no such word"]),
        (None, {}, ["prompt=a cat|a dog", "replace=cat,cow"], ["the prompt 'a dog' has no such word"]),
        ("cat", {}, ["replace=cat,"], ["it leaves nothing of the prompt"]),
        ("a", {}, ["seed=1..100", "steps=1..100"], ["10,000 pictures, at most 2,500"]),
        ("a", {}, ["seed=1..101"], ["101 values, at most 100"]),
        ("a", {}, ['scheduler="ddim,euler'], ['--axis scheduler="ddim,euler: ']),
        ("a", {"guidance_scale": 0.5, "width": 65}, ["steps=0"], [
            "--axis steps=0: must be", "--guidance-scale 0.5: must be", "--width 65: must be a multiple of 8",
        ]),
    ],
)  # fmt: skip
def test_every_mistake_is_told(
    prompt: str | None, given: dict[str, Any], axes: list[str], said: list[str]
) -> None:
    told = mistakes(prompt, given, axes)
    assert len(told) == len(said), told
    for part, message in zip(said, told, strict=True):
        assert part in message


def test_a_mistake_costs_no_import_and_leaves_nothing(tmp_path: Path) -> None:
    line = ["sweep", "a fox", "--axis", "steps=0,x", "--axis", "model=./no", "-o", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", PROBE, *line], capture_output=True, text=True)
    assert json.loads(done.stdout) == [2, []], done.stderr
    assert done.stderr.count("error: ") == 3 and not (tmp_path / "out").exists()


def test_what_is_read_is_a_sweep() -> None:
    sweep = read_sweep("a", {}, ["steps=5,10,20", "guidance-scale=1,4"])
    assert isinstance(sweep, Sweep) and sweep.sizes == (3, 2) and not sweep.gives_seed
    assert sweep.heads(1) == ("guidance-scale", ["1", "4"])
