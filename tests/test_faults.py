"""Faults on purpose: numbers that are not finite at five places, no memory, no disk.

Each picture that can be made is made, bit for bit as without the fault, by `t2i generate` and `t2i batch`.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Run, run_line

from t2i import durable, images, latents, schedulers
from t2i.batch import manifest
from t2i.conditioning import Conditioning
from t2i.families.clip import ClipFamily

PROMPTS = ("a dog", "a cat", "a red drum")
NAN = float("nan")
Patch = pytest.MonkeyPatch


@pytest.fixture(params=["generate", "batch"])
def draw(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: Patch, tiny_pocket: Path,
) -> Run:  # fmt: skip
    """Draw `PROMPTS` as out/00001-a-dog-5.png and so on, with either command; no reports."""
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("\n".join(PROMPTS))
    what: dict[str, list[object]] = {
        "generate": ["generate", *PROMPTS, "-o", "out/{index:05d}-{slug}-{seed}.png"],
        "batch": ["batch", "p.txt", "-o", "out", "--no-report"],
    }
    fixed = ["-m", tiny_pocket, "--steps", 2, "--size", "32x32", "--seed", 5]
    run = functools.partial(run_line, capsys, *what[request.param], *fixed)
    run.kind = request.param  # type: ignore[attr-defined]
    return run


def kind_of(draw: Run) -> str:
    return str(draw.kind)  # type: ignore[attr-defined]


def pixels() -> dict[str, np.ndarray]:
    """Words of the prompt → pixels of its file; nothing but finished pictures may be there."""
    rest = [path.name for path in Path("out").iterdir() if path.suffix != ".png"]
    assert set(rest) <= {"manifest.jsonl", "batch.json"}
    return {path.name[6:-6]: images.read_pixels(path) for path in Path("out").glob("*.png")}


def lines() -> dict[str, dict[str, Any]]:
    """Prompt → its last line in the manifest."""
    read = map(json.loads, Path("out/manifest.jsonl").read_text().splitlines())
    return {record["prompt"]: record for record in read}


def start_again() -> dict[str, np.ndarray]:
    """The pictures so far, which are taken away."""
    found = pixels()
    for path in Path("out").iterdir():
        path.unlink()
    return found


# ---- numbers that are not finite: the row of "a cat", the second of three, in a batch of three


def in_text_embeddings(patch: Patch) -> None:
    encode = ClipFamily._encode

    def spoilt(family: ClipFamily, prompt: str, chunks: int) -> Conditioning:
        encoded = encode(family, prompt, chunks)
        if prompt == PROMPTS[1]:
            encoded.prompt_embeds[0, 2, 3] = NAN
        return encoded

    patch.setattr(ClipFamily, "_encode", spoilt)


def in_unet_output(patch: Patch) -> None:
    predict = ClipFamily._predict

    def spoilt(family: ClipFamily, sample: torch.Tensor, *rest: Any) -> torch.Tensor:
        output = predict(family, sample, *rest)
        output[-2, 0, 1, 1] = NAN  # of the guided half
        return output

    patch.setattr(ClipFamily, "_predict", spoilt)


def in_scheduler_step(patch: Patch) -> None:
    make = schedulers.make_scheduler

    def spoilt(*arguments: Any) -> Any:
        scheduler = make(*arguments)
        step = scheduler.step

        @functools.wraps(step)
        def spoilt_step(*given: Any, **named: Any) -> Any:
            (previous, *rest) = step(*given, **named)
            previous[1, 0, 2, 2] = float("inf")
            return (previous, *rest)

        scheduler.step = spoilt_step
        return scheduler

    patch.setattr(schedulers, "make_scheduler", spoilt)


def in_final_latents(patch: Patch) -> None:
    decode = latents.decode_each

    def spoilt(vae: Any, final: torch.Tensor) -> Any:
        final = final.clone()
        final[1, 3, 0, 0] = -float("inf")
        return decode(vae, final)

    patch.setattr(latents, "decode_each", spoilt)


def in_vae_output(patch: Patch, times: int = 99, value: float | None = None) -> list[int]:
    """The second of three, and that picture alone; returns the batch sizes that are decoded from now on."""
    decode, seen = latents.decode, list[int]()

    def spoilt(vae: Any, final: torch.Tensor) -> torch.Tensor:
        shown = decode(vae, final)
        seen.append(len(final))
        if len(seen) <= times:
            row = 1 if len(final) == 3 else 0
            shown[row] = shown[row] * NAN if value is None else value
        return shown

    patch.setattr(latents, "decode", spoilt)
    return seen


PLACES: list[tuple[Callable[[Patch], Any], str]] = [
    (in_text_embeddings, "the denoised latents are not finite numbers"),
    (in_unet_output, "the denoised latents are not finite numbers"),
    (in_scheduler_step, "the denoised latents are not finite numbers"),
    (in_final_latents, "the denoised latents are not finite numbers"),
    (in_vae_output, "the decoded picture is not made of finite numbers, even in fp32"),
]


def test_a_picture_that_is_not_finite_fails_alone(draw: Run, monkeypatch: Patch) -> None:
    assert draw().code == 0
    expected = start_again()
    for spoil, reason in PLACES:
        with monkeypatch.context() as patch:
            spoil(patch)
            result = draw()
        assert result.code == 3 and len(result.lines) == 2, (spoil, result.err)
        made = pixels()
        assert made.keys() == {"a-dog", "a-red-drum"}
        assert all((made[name] == expected[name]).all() for name in made), spoil
        if kind_of(draw) == "batch":
            assert f"line 2, seed 5: {reason}\n" in result.err
            assert (lines()["a cat"]["error"], lines()["a cat"]["exit_code"]) == (reason, 4)
            if spoil is in_vae_output:
                assert draw().lines == ["out/00002-a-cat-5.png"]
        else:
            assert f"t2i: out/00001-a-cat-5.png could not be made: {reason}\n" in result.err
            assert f"error: {reason}\nhint: 2 of 3 pictures were written. " in result.err
        start_again()


def test_where_no_picture_is_finite(draw: Run, monkeypatch: Patch) -> None:
    monkeypatch.setattr(ClipFamily, "_predict", lambda family, sample, *rest: sample.chunk(1)[0] * NAN)
    result = draw()
    assert (result.code, result.out) == (4, "") and "not finite" in result.err
    assert not Path("out").exists() or pixels() == {}


def test_a_second_try_of_the_vae_is_told_and_written_down(draw: Run, monkeypatch: Patch) -> None:
    sizes = in_vae_output(monkeypatch, times=1)
    result = draw("--json")
    assert result.code == 0 and sizes == [3, 1]
    told = [line for line in result.err.splitlines() if "once more" in line]
    assert len(told) == 1 and told[0].endswith("decoded once more, in fp32, because it was not finite")
    paths = {event["prompt"]: event["path"] for event in result.events if event.get("path")}
    kept = {prompt: images.read_recipe(Path(path))["runtime"] for prompt, path in paths.items()}
    assert [kept[prompt].get("vae_retried") for prompt in PROMPTS] == [None, "not finite", None]
    if kind_of(draw) == "batch":
        assert [bool(lines()[prompt].get("notes")) for prompt in PROMPTS] == [False, True, False]


def test_a_flat_picture_is_kept_and_told(draw: Run, monkeypatch: Patch) -> None:
    """In fp32 a second try would be the same: there is none."""
    sizes = in_vae_output(monkeypatch, value=0.2)
    result = draw()
    assert result.code == 0 and sizes == [3] and len(result.lines) == 3
    told = [line for line in result.err.splitlines() if "nearly one colour" in line]
    assert len(told) == 1 and ("line 2" in told[0] or "a-cat" in told[0])
    flat = {path[10:-6]: images.read_recipe(Path(path))["image"].get("flat") for path in result.lines}
    assert flat == {"a-dog": None, "a-cat": True, "a-red-drum": None}


# ---- memory


def limit_batch(patch: Patch, most: int) -> list[int]:
    """No memory for batches of more; returns the sizes to come."""
    make, sizes = latents.initial_noise, list[int]()

    def initial_noise(seeds: list[int], *rest: Any) -> Any:
        sizes.append(len(seeds))
        if len(seeds) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return make(seeds, *rest)

    patch.setattr(latents, "initial_noise", initial_noise)
    return sizes


def test_too_little_memory_for_the_batch(draw: Run, monkeypatch: Patch) -> None:
    more = ["--axis", "steps=1,2"] if kind_of(draw) == "batch" else ["-N", 2]
    sizes = limit_batch(monkeypatch, 2)
    result = draw(*more)
    assert result.code == 0 and len(result.lines) == 6
    assert sizes == ([3, 2, 1, 2, 1] if kind_of(draw) == "batch" else [6, 3, 2, 2, 2])  # remembered
    assert result.err.count("t2i: out of memory; going on with batches of 2\n") == 1
    assert images.read_recipe(Path(result.lines[0]))["runtime"]["memory"] == ["smaller batch"]
    if kind_of(draw) == "batch":
        assert all(record["memory"] == ["smaller batch"] for record in lines().values())


def test_a_batch_size_that_was_asked_for_is_not_changed(draw: Run, monkeypatch: Patch) -> None:
    sizes = limit_batch(monkeypatch, 2)
    result = draw("--batch-size", 3)
    assert (result.code, result.out, sizes) == (5, "", [3])
    assert "not enough memory for 32x32" in result.err and "--batch-size below 3" in result.err


def test_too_little_memory_for_one(draw: Run, monkeypatch: Patch) -> None:
    sizes = limit_batch(monkeypatch, 0)
    result = draw()
    assert (result.code, result.out, sizes) == (5, "", [3, 2, 1])
    assert "a smaller --width and --height" in result.err


# ---- the disk: the second picture cannot be written


def no_space(patch: Patch) -> None:
    fsync = durable.fsync_path

    def full(path: Path) -> None:
        if path.name.endswith("a-cat-5.png"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(path)

    patch.setattr(durable, "fsync_path", full)


def no_permission(patch: Patch) -> None:
    for name in ("replace", "link"):
        act = getattr(os, name)

        def refuse(source: Path, target: Path, act: Any = act) -> None:
            if str(target).endswith("a-cat-5.png"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            act(source, target)

        patch.setattr(os, name, refuse)


def no_descriptors(patch: Patch) -> None:
    """A true limit: not one file more can be opened."""
    write_with = durable.write_with

    def starve(path: Path, *rest: Any) -> None:
        if not path.name.endswith("a-cat-5.png"):
            return write_with(path, *rest)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        probe = os.open(os.devnull, os.O_RDONLY)
        os.close(probe)
        resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))  # the lowest number that is free
        try:
            write_with(path, *rest)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    patch.setattr(durable, "write_with", starve)


@pytest.mark.parametrize(
    ("break_disk", "reason"),
    [
        (no_space, "no space left while writing {}"),
        (no_permission, "no permission to write {}"),
        (no_descriptors, "cannot write {}: Too many open files"),
    ],
)
def test_a_picture_that_cannot_be_written(
    draw: Run, monkeypatch: Patch, break_disk: Callable[[Patch], None], reason: str
) -> None:
    """A batch goes on; `generate` ends there, and what it has written stays."""
    with monkeypatch.context() as patch:
        break_disk(patch)
        result = draw()
    file = "out/00002-a-cat-5.png" if kind_of(draw) == "batch" else "out/00001-a-cat-5.png"
    assert result.code == 3 and reason.format(file) in result.err
    assert pixels().keys() == ({"a-dog", "a-red-drum"} if kind_of(draw) == "batch" else {"a-dog"})
    if kind_of(draw) == "batch":
        assert lines()["a cat"]["error"] == reason.format(file)
        assert draw().lines == [file]


@pytest.mark.parametrize("draw", ["batch"], indirect=True)
def test_a_manifest_that_cannot_be_written_ends_the_run(draw: Run, monkeypatch: Patch) -> None:
    write, calls, is_broken = os.write, list[int](), threading.Event()

    def full(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) >= 3:
            is_broken.set()
        if len(calls) >= 2:
            write(descriptor, data[:7])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(manifest.os, "write", full)
        make, drawn = latents.initial_noise, list[int]()

        def initial_noise(seeds: list[int], *rest: Any) -> Any:
            drawn.extend(seeds)
            if len(drawn) == 3:
                assert is_broken.wait(30)
            return make(seeds, *rest)

        patch.setattr(latents, "initial_noise", initial_noise)
        result = draw("-N", 4, "--batch-size", 1)
    assert result.code == 4 and "error: no space left while writing out/manifest.jsonl" in result.err
    assert len(calls) == 3 and len(drawn) in (3, 4) and len(pixels()) == len(result.lines) == 1
    assert len(draw("-N", 4).lines) == 11
