"""The page of a sweep in a real browser, alone on the disk; and a sheet with long labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, find_browser
from made_batch import draw, job, record

from t2i import images
from t2i.batch.rows import rows_of
from t2i.sweep import Outcome, read_sweep, write_report

PROMPTS = [
    "a corgi playing a trumpet", "a panda to the left of a guitar, on a very long background " * 4,
    "</pre><img src=x onerror=alert(1)>", "x" * 300,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four prompts by two seeds by two numbers of steps: one failed, one missing."""
    place = tmp_path_factory.mktemp("sweep") / "out"
    sweep = read_sweep(None, {}, [f"prompt={'|'.join(PROMPTS)}", f"seed={2**62 + 1},7", "steps=5,10"])
    cells = sweep.cells(seed=0)
    jobs = [
        job(cell.number, cell.config.prompts[0], cell.config.seed or 0, f"pictures/{cell.number}.png",
            steps=cell.config.steps)
        for cell in cells
    ]  # fmt: skip
    shown = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    records = {one.id: draw(place, one, np.roll(shown, 3 * one.line, 1)) for one in jobs[:-2]}
    records[jobs[-2].id] = record(jobs[-2], "failed", error="the decoded picture is <b>not</b> finite " * 3)
    write_report(Outcome(sweep, cells, jobs, rows_of(jobs, records, place)), place, "none", False)
    return place


def test_a_sheet_is_a_picture_of_modest_size(folder: Path) -> None:
    for name in ("grid.png", "grid-2.png"):
        height, width, _ = images.read_pixels(folder / name).shape
        assert 128 * 4 < width < 1000 and 128 * 2 < height < 600
        assert images.read_metadata(folder / name).recipe is None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(find_browser()) as started:
        yield started


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1280])
def test_it_works_alone_and_in_any_width(browser: Browser, folder: Path, width: int) -> None:
    page = shutil.copy(folder / "sweep.html", folder.parent / "alone.html")
    browser.requests.clear()
    browser.open(Path(page), width=width, dark=width == 400)
    browser.screenshot(folder / f"page-{width}.png")
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("document.querySelectorAll('table').length") == 2
    assert browser.ask("[...document.images].slice(0, 3).every(one => one.naturalWidth == 64)")
    assert browser.ask("document.querySelectorAll('td.blank').length") == 2

    browser.ask("document.querySelector('table:first-of-type td a').focus()")
    browser.press("Enter")
    recipe = browser.ask("document.querySelector('dialog[open] pre').textContent")
    assert json.loads(recipe)["image"]["seed"] == 2**62 + 1
    assert json.loads(recipe)["config"]["prompts"] == [PROMPTS[0]]
    assert browser.ask("document.querySelector('dialog').getBoundingClientRect().right") <= width
    assert browser.ask("document.querySelector('dialog a').getAttribute('href')").endswith("pictures/1.png")
    browser.screenshot(folder / f"panel-{width}.png")
    browser.press("Escape")
    assert browser.ask("document.querySelector('dialog[open]')") is None
    assert browser.complaints == []
    assert {address.split(":")[0] for address in browser.requests} <= {"file", "data"}
    assert [address for address in browser.requests if address.endswith(".png")] == []


@pytest.mark.browser
def test_row_heads_stay_in_view(browser: Browser, folder: Path) -> None:
    browser.open(folder / "sweep.html", width=400)
    browser.ask("document.querySelector('.sheet').scrollLeft = 300")
    assert browser.ask("document.querySelector('.sheet').scrollLeft") > 200
    box = "document.querySelector('th[scope=row]').getBoundingClientRect()"
    assert 0 <= browser.ask(f"{box}.left") and browser.ask(f"{box}.right") < 200
