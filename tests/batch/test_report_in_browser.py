"""The report of a batch in a real browser, from the disk: pictures, sorting, filter, recipes, no outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import REQUIRED, Browser, find_browser
from made_batch import ELSEWHERE, draw, job, record

from t2i.batch.golden import read_golden, update_golden
from t2i.batch.report import write_report
from t2i.batch.rows import rows_of
from t2i.batch.verdicts import compare

pytestmark = pytest.mark.browser
PROMPTS = [
    "a corgi playing a trumpet", "a panda to the left of a guitar, on a very long background " * 4,
    "</script><img src=x onerror=alert(1)>", "right to left \u202e gnp.exe, \u05d0\u05d1", "x" * 300,
]  # fmt: skip
SHOWN = "[...document.querySelectorAll('tbody tr')].filter(row => !row.hidden)"
LINES = SHOWN + ".map(row => +row.cells[1].textContent)"
ALL_LOADED = """new Promise(done => {
  const pictures = [...document.querySelectorAll("tbody img")];
  for (const picture of pictures) picture.loading = "eager";
  const wait = () => pictures.every(one => one.naturalWidth > 0) ? done(true) : setTimeout(wait, 20);
  wait();
})"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures: one other than expected, one failed, one missing; seeds fall, and two are long."""
    folder = tmp_path_factory.mktemp("batch") / "out"
    grey = np.linspace(0, 255, 64, dtype=np.uint8)
    shown = np.stack(
        [np.tile(grey, (64, 1)), np.tile(grey[:, None], (1, 64)), np.full((64, 64), 90, np.uint8)], 2
    )
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(12)]
    seeds = [2**62 + 1, 2**62, *range(14, 4, -1)]
    jobs = [job(n, prompt, seed) for n, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True), 1)]
    records = {one.id: draw(folder, one, np.roll(shown, 5 * n, 1)) for n, one in enumerate(jobs[:11])}
    update_golden(folder.parent / "golden.json", jobs[:10], folder, None, "minimal")
    records[jobs[2].id] = draw(folder, jobs[2], shown)
    records[jobs[3].id] = draw(folder, jobs[3], np.clip(np.roll(shown, 15, 1), 1, 255), ELSEWHERE)
    records[jobs[10].id] = record(
        jobs[10], "failed", error="not enough memory for 512x512; try a smaller --width"
    )
    comparison = compare(read_golden(folder.parent / "golden.json"), jobs[:10], jobs[:9], folder, None)
    write_report(
        folder, "prompts.txt", rows_of(jobs, records, folder, (), comparison), comparison, "none", False
    )
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(find_browser()) as started:
        yield started


def test_everything_works_from_the_disk(browser: Browser, report: Path) -> None:
    browser.open(report, width=1280)
    browser.screenshot(report.with_name("wide.png"))
    assert browser.ask(ALL_LOADED)

    assert browser.ask(LINES) == list(range(1, 13))
    browser.ask("document.querySelector('th:nth-child(3) button').focus()")
    browser.press("Enter")  # seeds rise: also those that no double holds
    assert browser.ask(LINES) == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    browser.press("Enter")
    assert browser.ask(LINES)[:2] == [1, 2]
    assert browser.ask("document.querySelector('th:nth-child(3)').ariaSort") == "descending"
    choose = (
        "const f = document.getElementById('filter'); f.value = '{}'; f.dispatchEvent(new Event('change'))"
    )
    for kind, lines in (("failed", [11]), ("missing", [12]), ("different", [3]), ("all", None)):
        browser.ask("{" + choose.format(kind) + "}")
        assert lines is None or browser.ask(LINES) == lines
        assert (
            browser.ask("document.getElementById('shown').textContent")
            == f"{len(lines or range(12))} of 12 shown"
        )

    browser.ask("document.querySelector('#r2 .open').focus()")
    browser.press("Enter")
    recipe = json.loads(browser.ask("document.querySelector('dialog[open] pre').textContent"))
    assert recipe["config"]["prompts"] == [PROMPTS[2]] and recipe["config"]["steps"] == 2
    assert recipe["image"]["seed"] == 14 and recipe["pixels_sha256"]
    browser.screenshot(report.with_name("panel.png"))
    browser.press("Escape")
    browser.ask("document.querySelector('#r0 .open').click()")
    text = browser.ask("document.querySelector('dialog[open] pre').textContent")
    assert json.loads(text)["image"]["seed"] == json.loads(text)["config"]["seed"] == 2**62 + 1
    browser.press("Escape")
    browser.ask("document.querySelector('#r2 .open').click()")
    browser.press("Escape")
    assert browser.ask("document.querySelector('dialog[open]')") is None
    assert browser.ask("document.activeElement.closest('tr').id") == "r2"

    assert browser.complaints == []
    assert [address for address in browser.requests if not address.startswith("file:")] == []
    assert sum(address.endswith(".png") for address in browser.requests) >= 10


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(browser: Browser, report: Path, width: int) -> None:
    browser.open(report, width=width, dark=True)
    browser.screenshot(report.with_name(f"dark-{width}.png"))
    assert browser.ask("document.documentElement.scrollWidth") <= width
    colours = "(e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor])(document.body)"
    assert browser.ask(colours) == ["rgb(230, 230, 230)", "rgb(20, 23, 26)"]
    browser.ask("document.querySelector('#r0 .open').click()")
    browser.screenshot(report.with_name(f"panel-{width}.png"))
    assert browser.ask("document.querySelector('dialog').getBoundingClientRect().right") <= width
    assert browser.complaints == []


def test_what_it_would_complain_about_is_noticed(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\"><script>1</script>"
    )
    browser.open(page, width=400)
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)


def test_where_a_browser_is_required_its_absence_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for value, outcome in (
        ("1", pytest.fail.Exception),
        ("0", pytest.skip.Exception),
        ("", pytest.skip.Exception),
    ):
        monkeypatch.setenv(REQUIRED, value)
        with pytest.raises(outcome, match="on this machine"):
            find_browser()
