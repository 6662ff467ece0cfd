"""The report of a batch: complete, escaped, told the same way twice, and never in place of another's file."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Result, run_line
from made_batch import draw, job, pixels, record

from t2i import images, latents
from t2i.batch import BatchJob, report
from t2i.batch.junit import render_junit
from t2i.batch.manifest import Records, keep_reports, kept_reports, read_records
from t2i.batch.page import render_page
from t2i.batch.report import check_room, write_report
from t2i.batch.rows import Row, other_rows, rows_of
from t2i.batch.sheet import CELL, GAP, LINE, PROMPT_LINES, TILE, contact_sheet
from t2i.errors import StorageError
from t2i.texts import printable

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "<!--<script>",
    "nul \0 bell \a escape \x1b[31m del \x7f c1 \x9b",
    "right to left \u202e gnp.exe \u2067 and never ended",
    "lone \ud800 surrogate, not a character \ufffe",
    "]]> &amp; {{7*7}} ${x} `y` \u2028",
)


class Page(HTMLParser):
    """Elements with their attributes, and the text inside each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[self.inside][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def made(folder: Path, jobs: Sequence[BatchJob]) -> Records:
    """Pictures of different colours for all of them."""
    return {one.id: draw(folder, one, pixels(red=10 * number)) for number, one in enumerate(jobs)}


def report_of(folder: Path, jobs: Sequence[BatchJob], records: Records, overwrite: bool = False) -> list[Row]:
    rows = rows_of(jobs, records, folder) + other_rows(jobs, records, folder)
    write_report(folder, "p.txt", rows, None, "minimal", overwrite)
    return rows


def test_the_page_says_what_hostile_prompts_say_and_does_not_do_it(tmp_path: Path) -> None:
    prompts = [
        text for text in HOSTILE if "\ud800" not in text
    ]  # no config holds such a prompt; an error may
    jobs = [job(number, prompt) for number, prompt in enumerate(prompts, 1)]
    failed = job(90, HOSTILE[5])
    records = made(tmp_path, jobs) | {failed.id: record(failed, "failed", error=HOSTILE[0] + HOSTILE[5])}
    rows = rows_of([*jobs, failed], records, tmp_path)
    text = render_page(HOSTILE[1], rows, tmp_path, ["contact-sheet.png"], None)
    page = Page(text.encode().decode())
    assert len(page.all("script")) == 2 and len(page.all("img")) == len(jobs) + 1  # + the panel's
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.texts["bdi"] == [printable(one.prompt) for one in (*jobs, failed)]
    assert printable(HOSTILE[0] + HOSTILE[5]) in page.texts["p"]
    recipes = json.loads(page.texts["script"][0])
    assert [own["config"]["prompts"] for _, own in recipes["recipes"].values()] == [
        [text] for text in prompts
    ]
    assert len(recipes["shared"]) == 1  # what all have in common is there once


def test_the_page_says_how_a_picture_came_about(tmp_path: Path) -> None:
    jobs = [job(line, f"dog {line}") for line in range(1, 5)]
    records = made(tmp_path, jobs)
    records[jobs[0].id] |= {"notes": ["decoded once more, in fp32", HOSTILE[0]], "memory": ["smaller batch"]}
    records[jobs[1].id] |= {"memory": ["vae slicing", "vae tiling"]}
    records[jobs[2].id] |= {"notes": "not a list", "memory": {}}  # somebody edited the manifest
    rows = rows_of(jobs[1:], records, tmp_path) + other_rows(jobs[1:], records, tmp_path)
    page = Page(render_page("p.txt", rows, tmp_path, [], None))
    told = ["memory ran out: vae slicing, vae tiling", "decoded once more, in fp32", HOSTILE[0]]
    assert [text for text in page.texts["p"] if text in told] == told
    assert "memory ran out: smaller batch" in page.texts["p"] and len(page.all("script")) == 2
    assert "noted (2)" in page.texts["option"] and "4 pictures, 4 done, 2 noted" in page.texts["p"][0]
    noted = [one["id"] for one in page.all("tr") if "noted" in (one.get("data-kinds") or "")]
    assert noted == ["r0", "r3"]


def test_the_page_asks_nobody(tmp_path: Path) -> None:
    jobs = [job(1, "a dog", file="pets/a b#c?.png"), job(2, "a cat", file="x:y%41.png")]
    rows = rows_of(jobs, made(tmp_path, jobs), tmp_path)
    page = Page(render_page("p.txt", rows, tmp_path, ["contact-sheet.png"], None))
    addresses = [
        attributes[name] for _, attributes in page.elements for name in ("src", "href") if name in attributes
    ]
    assert sorted(map(str, addresses)) == ["contact-sheet.png", "pets/a%20b%23c%3F.png", "x%3Ay%2541.png"]
    policy = next(one["content"] for one in page.all("meta") if "content" in one and "http-equiv" in one)
    assert policy is not None and policy.startswith(
        "default-src 'none'; base-uri 'none'; img-src 'self' file:;"
    )
    assert "unsafe-inline" not in policy.partition("script-src")[2] and "://" not in "".join(
        page.texts["style"]
    )


def test_rows_tell_what_the_files_are(tmp_path: Path) -> None:
    jobs = [job(1, "a dog"), job(2, "a cat"), job(3, "a drum"), job(4, "a fox"), job(5, "a star")]
    records = made(tmp_path, jobs[:2]) | {jobs[2].id: record(jobs[2], "failed", error="no memory")}
    records[jobs[4].id] = draw(tmp_path, jobs[4], pixels())
    (tmp_path / jobs[1].file).unlink()
    rows = rows_of(jobs, records, tmp_path, left={jobs[4].id})
    assert [row.status for row in rows] == ["done", "missing", "failed", "missing", "missing"]
    assert [row.error for row in rows if row.error] == ["no memory"]
    assert [row.prompt for row in other_rows(jobs[1:], records, tmp_path)] == ["a dog"]


def test_every_picture_is_on_a_contact_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [job(line, f"colour {line}") for line in range(1, 13)]
    rows = rows_of(jobs, made(tmp_path, jobs), tmp_path)
    (tmp_path / jobs[3].file).write_bytes(b"damaged")
    sheet = contact_sheet(rows, tmp_path)
    height = TILE + (2 + PROMPT_LINES) * LINE + GAP
    assert sheet.shape == (2 * height + GAP, 10 * CELL + GAP, 3)
    for place in range(12):
        top, left = GAP + place // 10 * height, GAP + place % 10 * CELL
        middle = sheet[top + TILE // 2, left + TILE // 2]
        assert list(middle) == ([255, 255, 255] if place == 3 else [10 * place, 100, 50])
        assert (sheet[top + TILE : top + TILE + LINE, left : left + TILE] < 128).any(), "the label"
    monkeypatch.setattr(report, "PICTURES_PER_SHEET", 5)
    report_of(tmp_path, jobs, read_all(tmp_path, jobs))
    names = {"contact-sheet.png", "contact-sheet-2.png", "contact-sheet-3.png"}
    assert {path.name for path in tmp_path.glob("contact*")} == names
    assert images.read_pixels(tmp_path / "contact-sheet-3.png").shape[1] == 2 * CELL + GAP
    report_of(tmp_path, jobs[:4], {key: value for key, value in read_all(tmp_path, jobs[:4]).items()})
    assert {path.name for path in tmp_path.glob("contact*")} == {"contact-sheet.png"}


def read_all(folder: Path, jobs: Sequence[BatchJob]) -> Records:
    return {one.id: record(one, file=one.file, sha256="0") for one in jobs}


def test_the_same_facts_are_written_once(tmp_path: Path) -> None:
    jobs = [job(1, "a dog"), job(2, "a cat")]
    records = made(tmp_path, jobs)
    report_of(tmp_path, jobs, records)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {"report.html", "contact-sheet.png", "batch.json"} < {path.name for path in before}
    report_of(tmp_path, jobs, records)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    keep_reports(tmp_path, {**kept_reports(tmp_path), "contact-sheet.png": None})  # as a kill leaves it
    report_of(tmp_path, jobs, records)
    changed = {path.name for path in tmp_path.iterdir() if path.stat().st_mtime_ns != before[path]}
    assert changed == {"contact-sheet.png", "batch.json"}
    records[jobs[1].id] = record(jobs[1], "failed", error="no memory")
    report_of(tmp_path, jobs, records)
    assert "no memory" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("name", ["report.html", "contact-sheet.png", "contact-sheet-2.png"])
def test_files_of_others_are_no_reports(tmp_path: Path, name: str) -> None:
    jobs = [job(1, "a dog")]
    (tmp_path / name).write_text("mine")
    with pytest.raises(StorageError, match="not this batch's report"):
        check_room(tmp_path, jobs, 200, overwrite=False)
    check_room(tmp_path, jobs, 200, overwrite=True)
    if "-2" not in name:  # one that came while the pictures were drawn
        with pytest.raises(StorageError, match="already exists"):
            report_of(tmp_path, jobs, made(tmp_path, jobs))
    report_of(tmp_path, jobs, made(tmp_path, jobs), overwrite=True)
    assert ((tmp_path / name).read_bytes() == b"mine") == ("-2" in name)
    with pytest.raises(StorageError, match=r"line 3: .* is the name of a report"):
        check_room(tmp_path, [job(3, "a cat", file="Contact-Sheet.PNG")], 1, overwrite=True)


def test_a_damaged_note_deletes_nothing_of_others(tmp_path: Path) -> None:
    jobs = [job(1, "a dog")]
    (tmp_path / "mine.png").write_text("mine")
    (tmp_path.parent / "victim.png").write_text("mine")
    reports = {
        "mine.png": None,
        "../victim.png": None,
        "differences/../../victim.png": None,
        "manifest.jsonl": 1,
    }
    (tmp_path / "batch.json").write_text(json.dumps({"reports": reports, "run_seed": 5}))
    report_of(tmp_path, jobs, made(tmp_path, jobs))
    assert (tmp_path / "mine.png").exists() and (tmp_path.parent / "victim.png").exists()
    assert json.loads((tmp_path / "batch.json").read_text())["run_seed"] == 5


def test_junit_counts_and_says_why(tmp_path: Path) -> None:
    jobs = [job(1, "a dog"), job(2, HOSTILE[3] + HOSTILE[5] + "<&>"), job(3, "a drum")]
    records = made(tmp_path, jobs[:1]) | {jobs[1].id: record(jobs[1], "failed", error="\x1b[31mno memory\0")}
    root = ElementTree.fromstring(render_junit("p.txt", rows_of(jobs, records, tmp_path), tmp_path))
    suite = root[0]
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    expected = {"tests": "3", "failures": "1", "errors": "0"}
    for one in (root, suite):
        assert expected.items() <= one.attrib.items() and float(one.attrib["time"]) == 0.5
    assert suite.attrib["skipped"] == "1" and set(root.attrib) == {*expected, "name", "time"}
    cases = list(suite)
    assert {frozenset(case.attrib) for case in cases} == {frozenset(("name", "classname", "time"))}
    assert len({case.attrib["name"] for case in cases}) == 3
    assert [[child.tag for child in case] for case in cases] == [["system-out"], ["failure"], ["skipped"]]
    assert cases[0][0].text == f"[[ATTACHMENT|{tmp_path / jobs[0].file}]]"
    assert cases[1][0].attrib == {"message": "\\x1b[31mno memory\\x00", "type": "failed"}


# ---- through the command line


@pytest.fixture
def batch(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_pocket: Path
) -> Any:
    """Run `t2i batch` on three prompts with the miniature of pocket, into out/."""
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a dog --d 5\na cat --d 6\na red drum --d 7\n")
    fixed = ["-m", tiny_pocket, "--steps", 1, "--size", "32x32", "--batch-size", 1, "-o", "out"]

    def run(*arguments: object) -> Result:
        return run_line(capsys, "batch", "p.txt", *fixed, *arguments)

    return run


def test_a_run_with_failures_shards_and_reruns(batch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make = latents.initial_noise

    def initial_noise(seeds: list[int], *rest: Any) -> Any:
        noise, generators = make(seeds, *rest)
        return (noise * float("nan") if 6 in seeds else noise), generators

    with monkeypatch.context() as patch:
        patch.setattr(latents, "initial_noise", initial_noise)
        first = batch("--junit", "junit.xml", "--json")
    assert first.code == 3 and {"event": "report", "path": "out/report.html"} in first.events
    page = Path("out/report.html").read_text()
    assert "3 pictures, 2 done, 1 failed" in page and "finite" in page
    root = ElementTree.parse("junit.xml").getroot()
    assert (root.attrib["tests"], root.attrib["failures"]) == ("3", "1")
    done = {row["job"]: row for row in read_records(Path("out")).values()}
    shards = [batch("--shard", f"{number}/2", "--junit", "junit.xml") for number in (1, 2)]
    assert [one.code for one in shards] == [0, 0] and sum(len(one.lines) for one in shards) == 1
    assert "3 pictures, 3 done;" in Path("out/report.html").read_text() and len(done) == 3
    in_shard = int(ElementTree.parse("junit.xml").getroot().attrib["tests"])
    assert in_shard == sum(int(job_id, 16) % 2 == 1 for job_id in done)


def test_what_is_in_the_way_is_told_before_anything_is_drawn(batch: Any) -> None:
    Path("out").mkdir()
    for name, option in (("out/report.html", ()), ("other.xml", ("--junit", "other.xml"))):
        Path(name).write_text("mine")
        refused = batch(*option)
        assert refused.code == 4 and name in refused.err and refused.out == ""
        assert Path(name).read_text() == "mine" and not list(Path("out").glob("*.png"))
        Path(name).unlink()
    Path("out/report.html").write_text("mine")
    assert batch("--no-report").code == 0 and Path("out/report.html").read_text() == "mine"
    assert not Path("out/contact-sheet.png").exists()
    assert batch("--overwrite").code == 0 and "3 done" in Path("out/report.html").read_text()
    sheet = images.read_pixels(Path("out/contact-sheet.png"))
    assert isinstance(sheet, np.ndarray) and sheet.shape[1] == 3 * CELL + GAP
    assert batch().code == 0  # ours by now
