"""Schedulers against a long solution: known answers, one start for all, and what is printed and written."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import SCHEDULER_CONFIGS
from torch import Generator, Tensor

from t2i import cli, comparison, images, pipeline
from t2i.comparison import references, start_latents
from t2i.comparison.figures import Comparison, observed_order, relative_distance
from t2i.comparison.sheet import sheet
from t2i.config import GenerateConfig
from t2i.config.compare import CompareConfig
from t2i.errors import ModelError
from t2i.families.clip import ClipFamily
from t2i.sampling import noise_levels
from t2i.schedulers import SCHEDULERS, Row, make_scheduler, set_timesteps

SPREAD = 0.5  # s of the Gaussian data N(0, s²) whose best network is known
TRAIN_STEPS = 12  # training timesteps of `short`: its whole reference takes eighteen network calls


@pytest.fixture
def short_unet(tiny_pocket: Path, copy_model: Callable[[Path], Path]) -> Path:
    """The miniature of pocket with few training timesteps."""
    folder = copy_model(tiny_pocket)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_train_timesteps": TRAIN_STEPS}))
    return folder


@pytest.fixture
def short(short_unet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with a network that takes no time."""
    best_network(monkeypatch, TRAIN_STEPS)
    return short_unet


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Replace the UNet by a network whose answer is known; what it was shown comes out here."""
    return best_network(monkeypatch, 1000)


def best_network(monkeypatch: pytest.MonkeyPatch, train_steps: int) -> list[Tensor]:
    """Replace the UNet by the best network for Gaussian data; returns the list of what it will be shown."""
    config = {**SCHEDULER_CONFIGS["pocket"], "num_train_timesteps": train_steps}
    levels = make_scheduler("ddim", config).alphas_cumprod
    shown: list[Tensor] = []

    def network(latents: Tensor, timestep: Tensor) -> Tensor:
        shown.append(latents)
        return velocity_of(latents, levels[int(timestep)])

    monkeypatch.setattr(ClipFamily, "denoiser", lambda *_: network)
    return shown


def velocity_of(latents: Any, level: Any) -> Any:
    """v̂ = √ᾱ ε̂ − √(1−ᾱ) x̂_0, where x̂_0 = √ᾱ s² x_t / (ᾱ s² + 1 − ᾱ)."""
    original = level**0.5 * SPREAD**2 * latents / (level * SPREAD**2 + 1 - level)
    noise = (latents - level**0.5 * original) / (1 - level) ** 0.5
    return level**0.5 * noise - (1 - level) ** 0.5 * original


def ddim_end(steps: int) -> float:
    """x_0 that DDIM reaches from x_T = 1 on the same network: the formulas again, one number, in double."""
    table = make_scheduler("ddim", SCHEDULER_CONFIGS["pocket"]).alphas_cumprod.double().tolist()
    levels = [table[round(1000 - 1000 / steps * index) - 1] for index in range(steps)] + [1.0]
    value = 1.0
    for here, there in pairwise(levels):
        velocity = velocity_of(value, here)
        original = here**0.5 * value - (1 - here) ** 0.5 * velocity
        noise = here**0.5 * velocity + (1 - here) ** 0.5 * value
        value = there**0.5 * original + (1 - there) ** 0.5 * noise
    return value


def compare(model: Path, **options: Any) -> Comparison:
    return comparison.compare(CompareConfig(compare="a dog", model=str(model), seed=5, **options))


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], str]:
    capsys.readouterr()
    code = cli.run(["schedulers", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


# ---- the mathematics


def test_known_answers_with_a_thousand_steps(tiny_pocket: Path, inputs: list[Tensor]) -> None:
    compared = compare(tiny_pocket, steps="1000,10,20,80", scheduler="ddim,lcm")
    assert compared.schedulers == ("ddim", "lcm") and compared.reference.steps == 1000
    exact, reference = SPREAD, ddim_end(1000)  # from ᾱ_T = 2⁻²⁴
    assert compared.reference.distance == pytest.approx(abs(ddim_end(500) - reference) / reference, rel=1e-2)
    assert compared.reference.distance == pytest.approx(abs(exact - reference) / reference, rel=0.2)

    ddim = compared.row("ddim")
    assert [cell.steps for cell in ddim] == [10, 20, 80, 1000]
    for cell in ddim:
        expected = abs(ddim_end(cell.steps) - reference) / reference
        assert cell.distance == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert ddim[-1].distance == 0 and math.isinf(ddim[-1].psnr)
    assert compared.to_dict()["observed_order"]["ddim"]["order"] == pytest.approx(1, abs=0.15)

    assert "takes at most 50" in next(
        c.left_out for c in compared.cells if c.scheduler == "lcm" and c.steps == 80
    )
    assert compared.order("lcm") is None


def test_all_rows_start_from_one_noise_and_come_near(tiny_pocket: Path, inputs: list[Tensor]) -> None:
    compared = compare(tiny_pocket, steps="8,40")
    assert compared.schedulers == tuple(SCHEDULERS)
    starts, place = [], 0
    for calls in (1000, 500, *(cell.network_calls for cell in compared.cells)):
        starts.append(inputs[place])
        place += calls
    assert place == len(inputs)
    expected = torch.randn(1, 4, 16, 16, generator=Generator().manual_seed(5))
    for start in starts:
        torch.testing.assert_close(start, expected, rtol=1e-6, atol=1e-6)
    for name, row in SCHEDULERS.items():
        few, many = compared.row(name)
        assert few.stochastic == row.stochastic and few.seconds > 0
        if not row.stochastic:
            assert few.distance > 1.5 * many.distance and many.distance < 0.15 and few.psnr < many.psnr, name
        else:
            assert many.distance > 0.5, name  # noise of its own: a random picture of the same data


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("row", SCHEDULERS.values(), ids=lambda row: row.name)
def test_the_start_is_the_same_in_every_scale(row: Row, spacing: str) -> None:
    noise = torch.randn(1, 4, 8, 8, generator=Generator().manual_seed(1))
    for config in SCHEDULER_CONFIGS.values():
        scheduler = make_scheduler(row.name, {**config, "timestep_spacing": spacing})
        set_timesteps(scheduler, 7)
        shown = scheduler.scale_model_input(start_latents(noise, scheduler), scheduler.timesteps[0])
        torch.testing.assert_close(shown, noise, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("config", SCHEDULER_CONFIGS.values(), ids=SCHEDULER_CONFIGS)
def test_the_reference_visits_every_level_and_ends_without_noise(config: dict[str, Any]) -> None:
    fine, coarse = references(config, "cpu")
    table = fine.alphas_cumprod.double()
    assert torch.equal(noise_levels(fine), torch.cat([table.flip(0), torch.ones(1)]))
    assert torch.equal(noise_levels(coarse), torch.cat([table.flip(0)[::2], torch.ones(1)]))
    assert not fine.stochastic


def test_cells_are_the_pictures_of_generate(short_unet: Path) -> None:
    names = ("ddim", "heun", "euler-a")
    compared = compare(short_unet, steps="2,4", scheduler=",".join(names), guidance_scale=3.0)
    model = pipeline.load(GenerateConfig(model=str(short_unet)))
    for cell in compared.cells:
        config = GenerateConfig(
            prompts=("a dog",), seed=5, steps=cell.steps, scheduler=cell.scheduler, guidance_scale=3.0
        )
        (picture,) = pipeline.generate(config, model)
        assert cell.pixels is not None
        difference = np.abs(cell.pixels.astype(int) - picture.pixels)  # one rounding of x_T apart for Heun
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01, cell
        assert cell.stochastic == (cell.scheduler == "euler-a")
        assert compared.reference.pixels is not None
        assert cell.psnr == images.psnr(cell.pixels, compared.reference.pixels)
    assert [cell.network_calls for cell in compared.row("heun")] == [2, 6]  # two a step, one at both ends
    pictures = {cell.pixels.tobytes() for cell in compared.cells if cell.pixels is not None}
    assert len(pictures) == len(compared.cells)


def test_the_prompt_is_encoded_once_and_every_call_is_counted(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, loaded, told = ClipFamily.encode_prompts, pipeline.load, list[tuple[int, int]]()
    seen: list[Any] = []
    monkeypatch.setattr(
        ClipFamily,
        "encode_prompts",
        lambda self, texts, *rest: seen.append([*texts]) or encode(self, texts, *rest),
    )
    monkeypatch.setattr(pipeline, "load", lambda *given: seen.append("load") or loaded(*given))
    config = CompareConfig(
        compare="a dog", model=str(short), seed=5, steps="2,3", scheduler="ddim,heun", negative_prompt="red"
    )
    compared = comparison.compare(config, lambda done, total: told.append((done, total)))
    assert seen == ["load", ["a dog"], ["red"]]
    total = TRAIN_STEPS * 3 // 2 + sum(cell.network_calls for cell in compared.cells)
    assert told == [(done, total) for done in range(1, total + 1)]


def test_relative_distance() -> None:
    reference = torch.tensor([[3.0, 4.0], [0.0, 5.0]])
    assert relative_distance(reference, reference) == 0
    assert relative_distance(2 * reference, reference) == pytest.approx(1)
    assert relative_distance(reference + 1, reference) == pytest.approx(2 / 50**0.5)


@pytest.mark.parametrize("order", [1, 2, 3.5])
def test_the_order_of_a_power_law(order: float) -> None:
    points = [(steps, 7 * steps**-order) for steps in (5, 10, 25, 50)]
    found = observed_order(points, 0)
    assert found is not None and found.value == pytest.approx(order) and found.steps == (5, 10, 25, 50)
    found = observed_order(points, points[2][1] / 5.1)  # the last distance is not clearly the row's own
    assert found is not None and found.value == pytest.approx(order) and found.steps == (5, 10, 25)


@pytest.mark.parametrize(
    "distances",
    [(0.4, 0.2), (0.4, 0.2, 0.3), (0.4, 0.2, 0.2), (0.478, 0.131, 0.104, 0.103), (0.4, 0.2, 0.0)],
    ids=["two", "rising", "equal", "bent", "none left"],
)
def test_no_order_where_it_would_mean_nothing(distances: tuple[float, ...]) -> None:
    steps = (5, 10, 25, 50)[: len(distances)]
    assert observed_order(list(zip(steps, distances, strict=True)), 0.0) is None


# ---- the command


def test_table_json_and_sheet_agree(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("t2i.comparison.figures.CLEARLY_ABOVE", 0)  # so short a reference is a poor one
    arguments = [
        "--compare", "a dog", "-m", short, "--seed", 5, "--steps", "8,2,4", "--scheduler", "DDIM,ddpm,heun",
    ]  # fmt: skip
    code, lines, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    *cells, summary = map(json.loads, lines)
    assert [(cell["scheduler"], cell["steps"]) for cell in cells] == [
        (name, steps) for name in ("ddim", "ddpm", "heun") for steps in (2, 4, 8)
    ]
    assert summary["path"] == "a-dog-5-schedulers.png" and summary["reference"]["steps"] == TRAIN_STEPS
    assert (summary["prompt"], summary["seed"], summary["guidance_scale"]) == ("a dog", 5, 4.0)
    assert str(tmp_path) not in "".join(lines)

    code, lines, err = run(capsys, *arguments, "-o", "sheets/")
    assert (code, err, lines[-1]) == (0, "", "sheets/a-dog-5-schedulers.png")
    rows = [line.split() for line in lines if line.split()[0] in SCHEDULERS]
    assert len(rows) == len(cells)
    for cell, words in zip(cells, rows, strict=True):
        assert ("*" in words) == cell["stochastic"] == (cell["scheduler"] == "ddpm")
        name, steps, calls, distance, psnr = [word for word in words if word != "*"][:5]
        assert (name, int(steps), int(calls)) == (cell["scheduler"], cell["steps"], cell["network_calls"])
        assert float(distance) == pytest.approx(cell["distance"], rel=6e-3)
        assert float(psnr) == pytest.approx(cell["psnr_db"], abs=0.06)
        order = summary["observed_order"][name]
        if steps == "2":
            assert order is not None if name == "ddim" else order is None or name == "heun"
            assert words[-1] == "-" if order is None else f"{order['order']:.1f}" in words
    assert any(line.startswith("*: draws noise of its own") for line in lines)

    for path in ("a-dog-5-schedulers.png", "sheets/a-dog-5-schedulers.png"):
        with Image.open(path) as picture:
            assert b"trainedAlgorithmicMedia" in picture.info["xmp"] and picture.height > 4 * 128
        assert images.read_metadata(Path(path)).recipe is None


def test_the_sheet_has_every_picture_in_its_place(short: Path) -> None:
    compared = compare(short, steps="2,4", scheduler="ddim,heun,euler-a")
    drawn = sheet(compared)
    places = {}
    for cell in (compared.reference, *compared.cells):
        assert cell.pixels is not None
        enlarged = cell.pixels.repeat(2, axis=0).repeat(2, axis=1)
        corners = np.argwhere((drawn[:-127, :-127] == enlarged[0, 0]).all(-1))
        hits = [
            (row, column)
            for row, column in corners.tolist()
            if (drawn[row : row + 128, column : column + 128] == enlarged).all()
        ]
        assert len(hits) == 1, cell
        places[cell.scheduler, cell.steps] = hits[0]
    names = compared.schedulers
    for steps in (2, 4):
        rows = [places[name, steps][0] for name in names]
        assert places["ddim", TRAIN_STEPS][0] < rows[0] < rows[1] < rows[2]
        assert len({places[name, steps][1] for name in names}) == 1
    assert places["ddim", 2][1] == places["ddim", TRAIN_STEPS][1] < places["ddim", 4][1]
    assert places["ddim", 2][0] == places["ddim", 4][0]


def test_what_cannot_be_drawn_is_named_and_the_rest_goes_on(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("t2i.schedulers.table.is_available", lambda row: row.needs is None)
    model = ["--compare", "a dog", "-m", short, "-s", 1, "--overwrite", "--steps"]
    code, lines, _ = run(capsys, *model, "2,13", "--json")  # the model has twelve training timesteps
    assert code == 0
    cells = [json.loads(line) for line in lines[:-1]]
    assert len(cells) == 2 * len(SCHEDULERS)
    for cell in cells:
        assert bool(cell["left_out"]) == (cell["network_calls"] == 0)
        if cell["scheduler"] in ("ddim", "ddpm", "euler", "lms"):
            assert bool(cell["left_out"]) == (cell["steps"] == 13 or cell["scheduler"] == "lms")
    assert all(cell["distance"] is None for cell in cells if cell["left_out"])

    code, lines, err = run(capsys, *model, "2", "--scheduler", "ddim,lms")
    assert code == 3 and err.startswith("error: lms: not one picture could be drawn")
    assert "left out: lms: scheduler lms needs the package scipy" in lines and lines[-1].endswith(".png")

    Path("a-dog-1-schedulers.png").unlink()
    code, lines, err = run(capsys, *model, "2", "--scheduler", "lms")
    assert (code, lines) == (2, []) and err.startswith("error: scheduler lms needs the package scipy\n")
    assert list(tmp_path.glob("*.png")) == []


def test_a_picture_that_is_not_finite_stops_no_other(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from t2i import latents

    decode, calls = latents.decode_finite, list[int]()

    def third_fails(vae: Any, final: Tensor) -> Any:
        calls.append(1)
        if len(calls) == 3:  # after the reference and its check
            raise ModelError("the denoised latents are not finite numbers")
        return decode(vae, final)

    monkeypatch.setattr(latents, "decode_finite", third_fails)
    compared = compare(short, steps="2,3", scheduler="ddim")
    first, second = compared.cells
    assert "not finite" in first.left_out and first.pixels is None and second.pixels is not None
    assert any("not finite" in note for note in compared.notes())
    assert first.to_dict()["distance"] is None and not first.to_dict()["equal_pixels"]


BAD = [
    (["--compare", "a dog", "--scheduler", "ddim,eulr"], "unknown scheduler 'eulr'"),
    (["--compare", "a dog", "--scheduler", "ddim,"], "names with commas between them are needed"),
    (["--compare", "a dog", "--steps", "5,0"], "--steps 0: must be at least 1"),
    (["--compare", "a dog", "--steps", "5,1001"], "--steps 1001: must be at most 1000"),
    (["--compare", "a dog", "--steps", "5,,10"], "--steps 5,,10: whole numbers"),
    (["--compare", "a dog", "--steps", "ten"], "--steps ten: whole numbers"),
    (["--compare", "a dog", "--steps", ",".join(map(str, range(1, 22)))], "21 step counts, at most 20"),
    (["--compare", "a dog", "-g", "0.5"], "--guidance-scale 0.5: must be at least 1"),
    (["--compare", "a dog", "-o", "x.gif"], "cannot write .gif"),
    (["--compare"], "requires an argument"),
    (["--compare", "--json"], "--compare --json: a prompt is needed"),
    (["--steps", "5", "--overwrite"], "--steps, --overwrite: only with --compare"),
    (["-o", "x.png", "--json"], "--output: only with --compare"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, lines, err = run(capsys, *arguments)
    assert code == 2 and lines == [] and message in err
    assert all(line.startswith(("error: ", "hint: ", "t2i: ")) for line in err.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_that_is_there_already(
    short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.png").write_bytes(b"mine")
    arguments = ["--compare", "a dog", "-s", 1, "--steps", 2, "--scheduler", "ddim", "-o", "s.png", "-m"]
    code, _, err = run(capsys, *arguments, "./nowhere")  # before the model is looked for
    assert code == 4 and "s.png already exists" in err and Path("s.png").read_bytes() == b"mine"
    code, lines, _ = run(capsys, *arguments, short, "--overwrite")
    assert code == 0 and lines[-1] == "s.png" and images.read_pixels(Path("s.png")).any()


def test_bad_input_imports_nothing_heavy(tmp_path: Path) -> None:
    probe = (
        "import json, sys; from t2i.cli import run\n"
        "codes = [run(['schedulers', *line]) for line in json.loads(sys.argv[1])]\n"
        "print(json.dumps([codes, [n for n in ('torch', 'diffusers', 'numpy', 'PIL') if n in sys.modules]]))"
    )
    lines = [arguments for arguments, _ in BAD]
    done = subprocess.run(
        [sys.executable, "-c", probe, json.dumps(lines)], capture_output=True, text=True, cwd=tmp_path
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [[2] * len(BAD), []]
