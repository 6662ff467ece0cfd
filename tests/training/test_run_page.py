"""`run.html`: what it says of a run folder, and how it works in a real browser, alone on the disk."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i import durable
from t2i.charts import Chart, Curve, smoothed, thinned, to_pixels, to_svg
from t2i.training.curves import charts_of, read_metrics, write_curves
from t2i.training.page import PAGE, render_page, size_text, time_text, write_page

sys.path.append(str(Path(__file__).parents[1] / "batch"))
from browser import Browser, find_browser

PROGRAM = find_browser()
HOSTILE = '</script><img src=x onerror=alert(1)> & "quoted" ' + "long" * 60


def make_run(output: Path, steps: int = 400) -> Path:
    """The folder of a run whose vae stage is done and whose unet stage is under way, without any training."""
    for stage in ("vae", "unet"):
        folder = output / stage
        lines = [{"step": 0, "val_loss": 1.2}]
        for step in range(10, steps + 1, 10):
            figures = {"loss": math.exp(-step / 100) + 0.1 * (step % 30 == 0), "learning_rate": 1e-3,
                       "images_per_s": 50 + step % 7}  # fmt: skip
            lines.append({"step": step, **figures, **({"val_loss": 0.9} if step % 100 == 0 else {})})
        durable.write_bytes(
            folder / "metrics.jsonl", "\n".join(map(json.dumps, lines)).encode() + b'\n{"step": 4'
        )
        settings = {"dataset": HOSTILE, "resolution": 32, "batch_size": 4, "unet_channels": [8, 16]}
        durable.write_json(folder / "config.json", settings)
        about = {"pictures": 20, "held_out": 4, "captions": 24, "learning_parameters": 64796, "steps": 800,
                 "peak_memory_bytes": 3 * 2**30, "result": "runs/x/model",
                 "command": "t2i generate 'a'"}  # fmt: skip
        durable.write_json(folder / "journal.json", {
            "step": steps, "run_id": "a", "about": about, "seconds": {"training": 3700.5, "saving": 61.0},
            "notices": [{"step": 0, "text": HOSTILE}],
        })  # fmt: skip
        for step in (0, 100, 200):
            path = folder / "samples" / f"{step:08d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (768, 192), (step, 100, 50)).save(path)
        place = folder / "checkpoints" / f"checkpoint-{steps:08d}"
        place.mkdir(parents=True)
        (place / "weights.safetensors").write_bytes(b"x" * 2048)
    durable.write_json(output / "vae" / "done.json", {"step": steps, "exact": True})
    durable.write_json(output / "unet" / "memorisation.json", {
        "copies": 1, "pictures": 2, "training_pictures": 20, "measure": "a", "copy_means": "b", "pairs": [
            {"prompt": HOSTILE, "copy": True, "distance": 0.01, "ratio": 0.1, "training_picture": "1.png",
             "caption": ""},
        ],
    })  # fmt: skip
    Image.new("RGB", (768, 192), "gray").save(output / "unet" / "memorisation.png")
    write_curves(output / "unet")
    write_page(output)
    return output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "my run & more")


def test_it_says_what_lies_in_the_folder(made: Path) -> None:
    page = (made / PAGE).read_text()
    assert page == render_page(made), "nothing but the folder decides it"
    for told in (
        "step 400 of 800", "20 to learn from, 4 held out", "64,796", "3.0 GiB", "1 h 02 min", "2.0 KiB",
        "1 of 2 drawn pictures are copies", "t2i generate &#x27;a&#x27;", "unet/samples/00000100.png",
    ):  # fmt: skip
        assert told in page, told
    assert "<img src=x" not in page and "http" not in page.replace("http-equiv", "")
    assert page.index('id="vae"') < page.index('id="unet"')
    assert '<span class="good">trained</span>' in page.split('id="unet"')[0]
    assert '<span class="good">trained</span>' not in page.split('id="unet"')[1]
    with Image.open(made / "unet" / "loss.png") as curves:
        assert curves.width == 560 and curves.height == 3 * 260


def test_a_line_torn_by_a_kill_and_a_repeated_step_are_read(tmp_path: Path) -> None:
    lines = ['{"step": 2, "loss": 1.0}', '{"step": 1, "loss": 2.0}', '{"step": 2, "val_loss": 3.0}', '{"st']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    rows = read_metrics(tmp_path)
    assert rows == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "val_loss": 3.0}]
    assert [curve.name for curve in charts_of(rows)[0].curves] == ["loss", "validation"]
    assert read_metrics(tmp_path / "missing") == [] and charts_of([]) == []


def test_curves_are_where_their_figures_are() -> None:
    """The first and last point of a line, against the ticks of its own axes."""
    svg = to_svg(Chart("t", "step", [Curve("a", [(0, 1.0), (5, float("nan")), (10, 3.0)])]))
    points = svg.split('points="')[1].split('"')[0].split()
    assert [point.split(",")[0] for point in points] == ["62.0", "544.0"]
    heights = {tick.split(">")[1].split("<")[0]: float(tick.split('y="')[1].split('"')[0]) - 4
               for tick in svg.split("<text")[2:] if 'text-anchor="end"' in tick}  # fmt: skip
    assert float(points[0].split(",")[1]) == pytest.approx(heights["1"], abs=0.11)
    assert float(points[1].split(",")[1]) == pytest.approx(heights["3"], abs=0.11)
    decades = to_svg(Chart("t", "step", [Curve("a", [(0, 1e-3), (1, 10.0)])]))
    assert all(f">{tick}<" in decades for tick in ("0.001", "0.01", "0.1", "1", "10"))
    assert to_pixels([Chart("t", "x", [Curve("one", [(3.0, 2.0)])])]).shape == (260, 560, 3)


def test_smoothing_and_thinning_keep_the_ends() -> None:
    points = [(float(x), float(x % 2)) for x in range(1000)]
    assert len(thinned(points, 100)) == 100 and thinned(points, 100)[-1] == points[-1]
    assert smoothed(points, 0.1)[-1] == (999.0, 0.5) and smoothed(points, 0.1)[0] == (0.0, 0.0)
    whole = [np.mean([y for _, y in points[max(0, k - 99) : k + 1]]) for k in range(1000)]
    assert [y for _, y in smoothed(points, 0.1)] == pytest.approx(whole)


def test_sizes_and_times_in_words() -> None:
    assert [size_text(count) for count in (0, 1023, 1536, 5 * 2**30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 GiB",
    ]
    assert [time_text(s) for s in (0.04, 65, 7384)] == ["0.0 s", "1 min 05 s", "2 h 03 min"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("no Chromium on this machine")
    with Browser(PROGRAM) as started:
        yield started


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1280])
def test_it_works_alone_and_in_any_width(browser: Browser, made: Path, width: int) -> None:
    browser.requests.clear()
    browser.open(made / PAGE, width=width, dark=width == 400)
    browser.screenshot(made / f"page-{width}.png")
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("document.querySelectorAll('svg polyline').length") == 2 * 4
    box = "document.querySelector('polyline').getBoundingClientRect()"
    assert browser.ask(f"{box}.width") > 200 and browser.ask(f"{box}.height") > 50
    sheets = "document.querySelector('#unet .sheets')"
    assert browser.ask(f"{sheets}.querySelectorAll('figure:not([hidden])').length") == 1
    assert "step 200" in browser.ask(f"{sheets}.querySelector('figure:not([hidden])').textContent")
    move = f"const s = {sheets}.querySelector('input'); s.value = 0; s.dispatchEvent(new Event('input'))"
    browser.ask(f"(() => {{ {move} }})()")
    assert "step 0" in browser.ask(f"{sheets}.querySelector('figure:not([hidden])').textContent")
    browser.ask(f"{sheets}.scrollIntoView()")
    loaded = "new Promise(done => { const p = document.querySelector('#unet figure:not([hidden]) img');"
    assert (
        browser.ask(f"{loaded} p.complete ? done(p.naturalWidth) : p.onload = () => done(p.naturalWidth) }})")
        == 768
    )
    browser.screenshot(made / f"sheets-{width}.png")
    assert browser.complaints == []
    assert {address.split(":")[0] for address in browser.requests} == {"file"}
