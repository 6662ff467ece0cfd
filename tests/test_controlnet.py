"""A ControlNet in pictures: the numbers are Diffusers' own, recipes find it again, and mistakes are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Run
from PIL import Image

from t2i import images, pipeline, weights
from t2i.config import GenerateConfig
from t2i.edges import edges
from t2i.errors import ModelError, UsageError
from t2i.promptfiles.mistakes import Mistakes
from t2i.sweep.axes import read_axes
from t2i.verification import with_places

PROMPT, NEGATIVE = "a corgi playing a trumpet", "blue"
SEED, GUIDANCE, SCALE, STEPS = 7, 3.0, 0.7, 2
DRAWING = ("--steps", 1, "--size", "32x32", "--offline")


def make_controlnet(folder: Path, model: Path, widths: tuple[int, ...], seed: int = 0) -> Path:
    """A ControlNet for the model in `model` whose zero convolutions are random."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_pretrained(model / "unet")
    network = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)
    for name, value in network.named_parameters():
        if "controlnet_" in name:
            torch.nn.init.normal_(value, std=0.2)
    network.save_pretrained(folder)
    return folder


def drawn_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Sixteen fields of random colours."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def pocket_control(tiny_pocket: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_controlnet(tmp_path_factory.mktemp("control") / "lines", tiny_pocket, (16, 32, 96))


def their_latents(kind: str, model: Path, control: Path, picture: Image.Image, scheduler: str) -> Any:
    """Final latents of Diffusers' pipeline for two seeds, (2, 4, 8, 5)."""
    import diffusers

    from t2i.schedulers import make_scheduler

    pipe = getattr(diffusers, kind).from_pretrained(
        str(model), controlnet=diffusers.ControlNetModel.from_pretrained(control)
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_scheduler(scheduler, dict(pipe.scheduler.config))
    return pipe(
        [PROMPT] * 2, image=[picture] * 2, negative_prompt=[NEGATIVE] * 2, width=40, height=64,
        num_inference_steps=STEPS, guidance_scale=GUIDANCE, controlnet_conditioning_scale=SCALE,
        generator=[torch.Generator().manual_seed(SEED + k) for k in range(2)], output_type="latent",
    ).images  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "scheduler"),
    [
        ("sd1", "StableDiffusionControlNetPipeline", "euler-a"),
        ("sdxl", "StableDiffusionXLControlNetPipeline", "heun"),
    ],
)
def test_latents_are_those_of_diffusers(
    name: str, kind: str, scheduler: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(f"tiny_{name}")
    control = make_controlnet(tmp_path / "control", model, (16, 32, 96, 256))
    picture, file = drawn_picture(80, 128), tmp_path / "x.png"  # twice the size that is drawn
    picture.save(file)
    plain = GenerateConfig(
        prompts=(PROMPT,), negative_prompt=NEGATIVE, seed=SEED, num_images=2, batch_size=2, steps=STEPS,
        guidance_scale=GUIDANCE, scheduler=scheduler, width=40, height=64, model=str(model), dtype="fp32",
    )  # fmt: skip
    asked = plain.replace(controlnet=str(control), control_image=str(file), control_scale=SCALE)
    loaded = pipeline.load(asked)

    def final(config: GenerateConfig) -> torch.Tensor:
        steps: list[Any] = []
        list(pipeline.generate(config, loaded, steps.append))
        return steps[-1].step.latents

    found = final(asked)
    expected = their_latents(kind, model, control, picture, scheduler)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    without = final(plain)
    assert (without - found).abs().max() > 0.05, "it does something"
    assert torch.equal(final(asked.replace(control_scale=0.0)), without)
    assert torch.equal(final(asked), found), "and takes turns with pictures that have none"


def test_a_recipe_names_control_and_picture_and_finds_them_again(
    run: Run, tiny_pocket: Path, pocket_control: Path, tmp_path: Path
) -> None:
    places = tmp_path / "elsewhere"
    control, file = shutil.copytree(pocket_control, places / "lines"), places / "map.png"
    drawn_picture(64, 64).save(file)
    asked = (
        "a corgi",
        "-m",
        tiny_pocket,
        "--controlnet",
        f"{control}/",
        "--control-image",
        file,
        "--seed",
        3,
    )
    asked += ("--control-strength", 0.8, *DRAWING)
    plan = run("generate", *asked, "--dry-run", "--json").events[0]["pictures"][0]
    made = run("generate", *asked, "-o", "a.png")
    assert made.code == 0 and "controlnet lines x0.8: follows map.png (64x64)" in made.err, made.err
    recipe = images.read_recipe(tmp_path / "a.png")
    assert recipe["control"] == plan["control"]
    settings = [recipe["config"][name] for name in ("controlnet", "control_image", "control_scale")]
    assert settings == ["lines", "map.png", 0.8] and str(tmp_path) not in json.dumps(recipe)
    assert recipe["control"]["image_size"] == [64, 64] and recipe["control"]["resampling"] == "lanczos"
    assert set(recipe["control"]["files"]) == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert "lines (scale 0.8) follows map.png (64 x 64, sha256 " in run("show", "a.png").out

    where = ("a.png", "-m", tiny_pocket)
    lost = run("verify", *where)
    assert lost.code == 4 and "--controlnet lines: there is no such folder" in lost.err
    renamed = shutil.copytree(control, places / "renamed")
    given = ("--controlnet", renamed, "--control-image", file)
    held = run("verify", *where, *given)
    assert held.code == 0 and "pixels: exact" in held.out, held.out + held.err
    again = run("replay", *where, *given, "-o", "b.png", "--offline")
    assert again.code == 0 and "changed since" not in again.err, again.err
    assert (images.read_pixels(tmp_path / "b.png") == images.read_pixels(tmp_path / "a.png")).all()

    drawn_picture(64, 64, seed=1).save(file)
    make_controlnet(renamed, tiny_pocket, (16, 32, 96), seed=5)
    changed = run("verify", *where, *given)
    assert changed.code == 1 and "pixels: exact" not in changed.out
    assert "changed (control image, controlnet/diffusion_pytorch_model.safetensors)" in changed.out
    with pytest.raises(UsageError, match="the picture was made without a ControlNet"):
        with_places(GenerateConfig(prompts=("a",)), controlnet="lines")


def test_edges_can_be_made_of_a_plain_picture(
    run: Run, tiny_pocket: Path, pocket_control: Path, tmp_path: Path
) -> None:
    photo = drawn_picture(32, 32)
    photo.save("photo.png")
    lines = edges(np.asarray(photo).transpose(2, 0, 1))
    assert lines.any()
    Image.fromarray(np.ascontiguousarray(lines.transpose(1, 2, 0))).save("lines.png")
    asked = ("generate", "a corgi", "-m", tiny_pocket, "--controlnet", pocket_control, "--seed", 3, *DRAWING)
    run(*asked, "--control-image", "photo.png", "--control-kind", "edges", "-o", "a.png")
    run(*asked, "--control-image", "lines.png", "-o", "b.png")
    made, same = (images.read_pixels(tmp_path / f"{name}.png") for name in "ab")
    assert (made == same).all()


def test_lines_of_a_batch_have_their_own_pictures(
    run: Run, tiny_pocket: Path, pocket_control: Path, tmp_path: Path
) -> None:
    for k in range(2):
        drawn_picture(32, 32, k).save(f"{k}.png")
    drawn_picture(32, 64).save("tall.png")
    file = tmp_path / "p.csv"
    lines = "prompt,control-image,control-scale\na,0.png,\na,1.png,\na,0.png,0.5\n"
    file.write_text(lines + "a,tall.png,1\n")
    command = ("batch", file, "-o", "out", "-m", tiny_pocket, "--controlnet", pocket_control, "--seed", 4)
    command += ("--json", "--no-report", *DRAWING)
    refused = run(*command)
    assert refused.code == 2 and "line 5: --control-image tall.png is 32x64, another shape" in refused.err
    file.write_text(lines)
    done = run(*command)
    assert done.code == 0, done.err
    drawn = {event["line"]: event["path"] for event in done.events if event["event"] == "done"}
    pixels = {images.read_pixels(Path(path)).tobytes() for path in drawn.values()}
    assert len(drawn) == len(pixels) == 3
    shutil.copy("1.png", "0.png")
    again = [event["line"] for event in run(*command).events if event["event"] == "done"]
    assert again == [4], "line 2 now asks for the picture of line 3; known by content, not by name"


def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(
    run: Run, tiny_pocket: Path, tiny_sd1: Path, pocket_control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_picture(32, 32).save("x.png")
    drawn_picture(48, 32).save("wide.png")
    Path("text.png").write_text("no picture")
    Path("run/parts").mkdir(parents=True)
    shutil.copytree(pocket_control, "run/parts/controlnet")
    other = Path(shutil.copytree(pocket_control, "other"))
    config = json.loads((other / "config.json").read_text())

    def refusal(*asked: Any, model: Path = tiny_pocket, dry: bool = True) -> tuple[int, str]:
        more = ("-m", model, *DRAWING, *(["--dry-run"] if dry else []))
        done = run("generate", "a corgi", *more, *asked)
        assert done.out == "" and done.err.count("error: ") == 1, done.err
        return done.code, done.err

    given = ("--controlnet", pocket_control, "--control-image")
    code, told = refusal(*given, "wide.png")
    assert code == 2 and "wide.png is 48x32, another shape than the 32x32 to draw" in told
    assert refusal(*given, "wide.png", dry=False)[0] == 2
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "load", lambda *_: pytest.fail("a model was loaded"))
        for option, expected in (
            (("--controlnet", pocket_control), "give one with --control-image"),
            (("--control-image", "x.png"), "name its folder with --controlnet"),
            (("--control-scale", 0.5), "--control-scale: there is no ControlNet"),
            (("--control-kind", "edges"), "--control-kind: there is no ControlNet"),
            ((*given, "x.png", "--control-scale", 11), "--control-scale 11.0: must be at most 10"),
        ):
            code, told = refusal(*option, dry=False)
            assert code == 2 and expected in told
        for option, expected in (
            ((*given, "gone.png"), "--control-image gone.png: there is no such picture"),
            ((*given, "text.png"), "text.png cannot be read: not a PNG, JPEG or WebP picture"),
            (
                ("--controlnet", "gone", "--control-image", "x.png"),
                "--controlnet gone: there is no such folder",
            ),
            (("--controlnet", "x.png", "--control-image", "x.png"), "x.png is a file"),
            (("--controlnet", "run", "--control-image", "x.png"), "did you mean run/parts/controlnet?"),
            (("--controlnet", tiny_pocket / "unet", "--control-image", "x.png"), "holds a UNet2DCondition"),
        ):
            code, told = refusal(*option, dry=False)
            assert code == 4 and expected in told, told
    code, told = refusal(*given, "x.png", model=tiny_sd1)
    assert code == 4 and "it does not shrink its picture by 8, as tiny-sd1 does" in told
    (other / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 64}))
    code, told = refusal("--controlnet", "other", "--control-image", "x.png")
    assert code == 4 and "its cross_attention_dim is 64, that of tiny-pocket 32" in told
    assert refusal("--controlnet", "other", "--control-image", "x.png", dry=False)[0] == 4
    (other / "config.json").write_text(json.dumps(config | {"global_pool_conditions": True}))
    assert "asks for what t2i does not do" in refusal("--controlnet", "other", "--control-image", "x.png")[1]


def test_a_config_that_its_weights_do_not_fit_is_refused(
    tiny_pocket: Path, pocket_control: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(pocket_control, tmp_path / "short"))
    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["controlnet_mid_block.weight"]
    save_file(tensors, file)
    drawn_picture(32, 32).save(tmp_path / "x.png")
    asked = GenerateConfig(
        model=str(tiny_pocket), controlnet=str(folder), control_image=str(tmp_path / "x.png")
    )
    model = weights.load_model(weights.resolve_model(str(tiny_pocket)))
    with pytest.raises(ModelError, match=r"controlnet lacks weights: controlnet_mid_block\.weight"):
        weights.use_adapters(model, weights.find_adapters(asked, ""), lambda line: None)


def test_axes_of_a_sweep_name_no_folders() -> None:
    mistakes = Mistakes()
    pictures, scales = read_axes(["control-image=/a/b/x.png,/a/b/y.png", "control-scale=0,1"], mistakes)
    assert not len(mistakes) and [label for label, _ in pictures.points] == ["b/x.png", "b/y.png"]
    assert [fields for _, fields in scales.points] == [{"control_scale": 0.0}, {"control_scale": 1.0}]
