"""Running out of memory: what is given up, in which order, what is kept, told and written down."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from t2i import memory, pipeline, weights
from t2i.config import GenerateConfig
from t2i.errors import ModelError, OutOfMemory
from t2i.pipeline import Picture, Room
from t2i.weights import LoadedModel


@pytest.fixture(scope="module")
def pocket(tiny_pocket: Path) -> LoadedModel:
    return pipeline.load(GenerateConfig(model=str(tiny_pocket)))


def draw(model: LoadedModel, room: Room | None = None, **config: Any) -> tuple[dict[int, Picture], list[str]]:
    """Seed → picture, and what was told of memory; calls of the UNet are counted by `limit_unet`."""
    values = {"prompts": ("a dog",), "steps": 2, "seed": 5, "width": 32, "height": 32, **config}
    warned: list[str] = []
    made = pipeline.generate_each(GenerateConfig(**values), model, warn=warned.append, room=room)
    pictures = [picture for picture in made if isinstance(picture, Picture)]
    return {picture.seed: picture for picture in pictures}, warned


def limit_unet(monkeypatch: pytest.MonkeyPatch, model: LoadedModel, fits: Callable[[int], bool]) -> list[int]:
    """Let the UNet run out of memory unless `fits` says so of the batch size; returns the sizes to come."""
    kind, sizes = type(model.family), list[int]()
    make = kind.denoiser

    def denoiser(family: Any, cond: Any, *rest: Any) -> Any:
        sizes.append(len(cond))
        if not fits(len(cond)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return make(family, cond, *rest)

    monkeypatch.setattr(kind, "denoiser", denoiser)
    return sizes


def limit_vae(
    monkeypatch: pytest.MonkeyPatch, model: LoadedModel, fits: Callable[[torch.Tensor], bool]
) -> list[tuple[int, ...]]:
    """The same for the decoder; returns the shapes to come."""
    forward, shapes = model.vae.decoder.forward, list[tuple[int, ...]]()

    def decoder(latents: torch.Tensor, *rest: Any) -> Any:
        shapes.append(tuple(latents.shape))
        if not fits(latents):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(latents, *rest)

    monkeypatch.setattr(model.vae.decoder, "forward", decoder)
    return shapes


def assert_nearly_equal(first: dict[int, Picture], second: dict[int, Picture]) -> None:
    """What t2i promises in fp32 across batch shapes."""
    assert first.keys() == second.keys()
    for seed, picture in first.items():
        difference = np.abs(picture.pixels.astype(int) - second[seed].pixels.astype(int))
        assert difference.max() <= 1 and (difference > 0).mean() <= 0.001


def assert_drawn_again(picture: Picture, model: LoadedModel) -> None:
    """From its recipe, to the bit, and with the same recipe."""
    runtime = pipeline.recorded_runtime(picture.recipe)
    again = pipeline.redraw(picture.recipe, model, runtime, weights.hash_files(model.files))
    assert (again.pixels == picture.pixels).all() and again.recipe == picture.recipe


def test_what_counts_as_out_of_memory() -> None:
    errors = [torch.OutOfMemoryError("x"), MemoryError(), OutOfMemory("x"), RuntimeError("MPS out of memory")]
    errors += [RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")]
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**47)
    errors.append(caught.value)
    assert all(map(memory.is_out_of_memory, errors))
    others = [RuntimeError("shapes do not fit"), ModelError("out of memory"), ValueError("out of memory")]
    assert not any(map(memory.is_out_of_memory, others))


def test_smaller_batches_stay_for_all_pictures_of_that_size(
    pocket: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = draw(pocket, num_images=6)
    room = Room(pocket)
    with monkeypatch.context() as patch:
        sizes = limit_unet(patch, pocket, lambda size: size <= 2)
        made, warned = draw(pocket, room, num_images=6)
        assert sizes == [6, 3, 2, 2, 2]
        assert warned == [f"out of memory; going on with batches of {size}" for size in (3, 2)]
        sizes.clear()
        again, warned = draw(pocket, room, num_images=5, steps=1)
        assert sizes == [2, 2, 1] and warned == []
        other, _ = draw(pocket, room, num_images=2, width=40)
        assert sizes[3:] == [2] and "memory" not in other[5].recipe["runtime"]
        with pytest.raises(OutOfMemory):  # a size that was asked for is tried all the same
            draw(pocket, room, num_images=4, batch_size=4)
        assert sizes[4:] == [4]
    assert_nearly_equal(made, expected)
    for picture in (made[5], again[9]):
        assert picture.recipe["runtime"]["memory"] == ["smaller batch"]
    assert_drawn_again(made[6], pocket)


def test_the_vae_decodes_one_after_the_other(pocket: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = draw(pocket, num_images=3)
    sizes = limit_unet(monkeypatch, pocket, lambda size: True)
    shapes = limit_vae(monkeypatch, pocket, lambda latents: len(latents) == 1)
    made, warned = draw(pocket, num_images=3, batch_size=3)  # the size that was asked for stays
    assert sizes == [3] and [shape[0] for shape in shapes] == [3, 1, 1, 1]
    assert warned == ["out of memory; going on with the pictures of a batch decoded one after the other"]
    assert made[5].recipe["runtime"]["memory"] == ["vae slicing"]
    assert_nearly_equal(made, expected)
    assert not pocket.vae.use_slicing
    assert_drawn_again(made[7], pocket)


def test_tiles_come_last_and_not_with_deterministic(
    pocket: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = draw(pocket, width=96, height=64)
    shapes = limit_vae(monkeypatch, pocket, lambda latents: max(latents.shape[2:]) <= 16)
    made, warned = draw(pocket, width=96, height=64)
    assert shapes[0] == (1, 4, 16, 24) and {shape[3] for shape in shapes[1:]} == {16, 12}
    assert warned == [
        "out of memory; going on with pictures decoded in tiles, so that colours may differ from tile to tile"
    ]
    assert made[5].recipe["runtime"]["memory"] == ["vae tiling"] and made[5].pixels.shape == (64, 96, 3)
    assert np.abs(made[5].pixels.astype(int) - expected[5].pixels).mean() < 20
    assert_drawn_again(made[5], pocket)
    with pytest.raises(OutOfMemory, match="96x64") as caught:
        draw(pocket, width=96, height=64, deterministic=True)
    assert caught.value.hint == "try a smaller --width and --height"


@pytest.mark.parametrize("stage", ["unet", "vae"])
def test_offload(pocket: LoadedModel, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """On a CPU nothing really moves; where each network would be sent is what can be seen."""
    expected, _ = draw(pocket)
    networks = {"unet": pocket.unet, "vae": pocket.vae, "text": pocket.family.parts.text_encoders[0]}
    sent: list[tuple[str, str]] = []
    for name, network in networks.items():
        monkeypatch.setattr(network, "to", lambda *where, name=name, **_: sent.append((name, str(where[0]))))
    monkeypatch.setattr(memory, "can_offload", lambda device: True)
    room = Room(pocket)
    room.device = torch.device("cuda")  # said to be there; `_runtime_of` must believe it
    monkeypatch.setattr("t2i.pipeline._runtime_of", lambda model, config, room: runtime)
    runtime = pipeline.recorded_runtime(expected[5].recipe)
    if stage == "unet":
        limit_unet(monkeypatch, pocket, lambda size: room.offloading)
    else:
        limit_vae(monkeypatch, pocket, lambda latents: room.offloading)
    made, warned = draw(pocket, room, num_images=1)
    assert warned[-1] == "out of memory; going on with each network on the CPU while another computes"
    assert "cpu offload" in made[5].recipe["runtime"]["memory"]
    assert (made[5].pixels == expected[5].pixels).all()
    assert sent[:3] == [("unet", "cpu"), ("vae", "cpu"), ("text", "cpu")]
    turns = [("unet", "cuda"), ("unet", "cpu")] if stage == "unet" else []  # the prompt stays encoded
    assert sent[3:] == [*turns, ("vae", "cuda"), ("vae", "cpu")]
    sent.clear()
    room.restore()
    assert sent == [("unet", "cuda"), ("vae", "cuda"), ("text", "cuda")] and not room.offloading


def test_nothing_is_left_to_give_up(pocket: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_unet(monkeypatch, pocket, lambda size: False)
    warned: list[str] = []
    config = GenerateConfig(("a dog",), steps=1, seed=5, width=32, height=32, num_images=4)
    with pytest.raises(OutOfMemory) as caught:
        list(pipeline.generate_each(config, pocket, warn=warned.append))
    assert [line.split()[-1] for line in warned] == ["2", "1"]
    assert caught.value.hint == "try a smaller --width and --height" and caught.value.exit_code == 5


def test_a_model_that_does_not_fit(tiny_pocket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffusers

    def refuse(*_: Any, **__: Any) -> None:
        torch.empty(2**47)

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "from_pretrained", refuse)
    with pytest.raises(OutOfMemory, match="does not fit into memory") as caught:
        pipeline.load(GenerateConfig(model=str(tiny_pocket)))
    assert caught.value.hint == "try --dtype fp16 or bf16"


def test_a_failed_attempt_holds_no_tensors(pocket: LoadedModel) -> None:
    config = GenerateConfig(width=32, height=32)
    held: list[Any] = []

    def work() -> str:
        if not held:
            large = torch.zeros(1000)
            held.append(weakref.ref(large))
            raise torch.OutOfMemoryError("out of memory")
        return "done" if held[0]() is None else "still there"

    fit = memory.Fit(Room(pocket), config, 4, lambda line: None)
    assert fit.attempt(work, 4) is None and fit.batch_size == 2
    assert fit.attempt(work, 2) == "done"
