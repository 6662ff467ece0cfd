"""`report.html` of a batch: every picture with its prompt, status and recipe, to be sorted and filtered.

The pictures stay files beside it, named by relative addresses and loaded when they come into view, so a
page of thousands opens at once. Without a script the table is still there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from t2i import images
from t2i.batch.rows import Row
from t2i.batch.verdicts import Comparison
from t2i.catalog import ASSETS
from t2i.errors import StorageError
from t2i.pages import document, tag, text

PICTURES = "'self' file:"  # a page from the disk is of no origin, and 'self' would be nothing
COLUMNS = ("line", "seed", "prompt", "status", "seconds")
PANEL = """<dialog id="panel" aria-labelledby="panel-title"><header><h2 id="panel-title"></h2>
<button type="button" id="close">close</button></header><img alt=""><pre tabindex="0"></pre></dialog>"""


def render_page(
    source: str, rows: Sequence[Row], folder: Path, sheets: Sequence[str], comparison: Comparison | None
) -> str:
    """The whole page.

    Args:
        source: Name of the prompt file.
        rows: In the order in which they are shown first.
        folder: Of the pictures, whose recipes are read.
        sheets: Names of the contact sheets.
        comparison: With the expected pictures.
    """
    counts = {"all": len(rows)}
    for kind in ("done", "failed", "missing", "different", "noted"):
        count = sum(kind in _kinds(row) for row in rows)
        if count:
            counts[kind] = count
    columns = (*COLUMNS, *(["expected"] if comparison else []))
    heads = "".join(f'<th scope="col"><button type="button">{name}</button></th>' for name in columns)
    parts = [
        tag("h1", f"t2i batch: {source}"),
        _summary(counts, rows),
        *_compared(comparison),
        _links("contact sheet", sheets),
        _filter(counts),
        f'<table><thead><tr><th scope="col" class="note">picture</th>{heads}</tr></thead><tbody>',
        *(_row(place, row, columns) for place, row in enumerate(rows)),
        "</tbody></table>",
        PANEL,
        f'<script type="application/json" id="recipes">{_json(_recipes(rows, folder))}</script>',
    ]
    assets = ASSETS / "report"
    names = ("page.css", "report.css", "report.js")
    page, table, script = ((assets / name).read_text(encoding="utf-8") for name in names)
    return document(f"t2i batch: {source}", page + table, parts, PICTURES, script)


def _kinds(row: Row) -> list[str]:
    """What a row is filtered by."""
    more = {"different": row.differs, "noted": bool(row.notes)}
    return ["all", row.status, *(kind for kind, holds in more.items() if holds)]


def _summary(counts: dict[str, int], rows: Sequence[Row]) -> str:
    parts = [f"{counts['all']} pictures"]
    parts += [f"{count} {kind}" for kind, count in counts.items() if kind != "all"]
    seconds = sum(row.seconds for row in rows)
    return tag("p", ", ".join(parts) + f"; {seconds:.1f} s of drawing", "note")


def _compared(comparison: Comparison | None) -> list[str]:
    """What the comparison with the expected pictures came to."""
    if comparison is None:
        return []
    compared, missing = len(comparison.verdicts), comparison.missing
    if not comparison.differences:
        return [tag("p", f"as {comparison.golden} expects: {compared} of {compared} pictures", "good")]
    wrong = comparison.differences - len(missing)
    lines = [tag("p", f"not as {comparison.golden} expects: {wrong} of {compared} pictures", "bad")]
    if missing:
        lines.append(tag("p", f"expected, and not asked for: {len(missing)}", "bad"))
        lines.append("<ul>" + "".join(f"<li><bdi>{text(one.name)}</bdi></li>" for one in missing) + "</ul>")
    return lines


def _links(what: str, names: Sequence[str]) -> str:
    """A line of links; empty without any."""
    links = (
        f'<a href="{_address(name)}">{what}{f" {number}" if len(names) > 1 else ""}</a>'
        for number, name in enumerate(names, 1)
    )
    return f"<p>{' '.join(links)}</p>" if names else ""


def _filter(counts: dict[str, int]) -> str:
    options = "".join(f'<option value="{kind}">{kind} ({count})</option>' for kind, count in counts.items())
    return (
        f'<p id="controls" hidden><label>show <select id="filter">{options}</select></label> '
        '<span id="shown" class="note" role="status"></span></p>'
    )


def _row(place: int, row: Row, columns: Sequence[str]) -> str:
    """One row; the key of a cell is what it is sorted by."""
    if row.status == "done":
        label = text(f"recipe of line {row.line}, seed {row.seed}")
        picture = (
            f'<button type="button" class="open" aria-label="{label}">'
            f'<img src="{_address(row.file)}" alt="" width="96" height="96" loading="lazy"></button>'
        )
    else:
        picture = '<span class="blank">none</span>'
    words = f"<bdi>{text(row.prompt)}</bdi>" + (tag("p", row.error, "bad") if row.error else "")
    words += "".join(tag("p", note) for note in row.notes)
    words += tag("p", row.file, "small") if row.status == "done" and row.file else ""
    status = f'<span class="{"good" if row.status == "done" else "bad"}">{row.status}</span>'
    seconds = f"{row.seconds:.2f}"
    cells = [
        f"<td>{picture}</td>",
        f'<td class="number" data-name="line" data-key="{row.line}">{row.line}</td>',
        f'<td class="number" data-name="seed" data-key="{row.seed}">{row.seed}</td>',
        f'<td class="words" data-key="{text(row.prompt)}">{words}</td>',
        f'<td data-key="{row.status}">{status}</td>',
        f'<td class="number" data-name="seconds" data-key="{seconds}">{seconds if row.seconds else ""}</td>',
    ]
    if "expected" in columns:
        cells.append(_verdict(row))
    return f'<tr id="r{place}" data-kinds="{" ".join(_kinds(row))}">{"".join(cells)}</tr>'


def _verdict(row: Row) -> str:
    """The cell of the comparison, with the difference as a picture where there is one."""
    if row.verdict is None:
        return '<td data-key="">not compared</td>'
    inner = tag("span", row.verdict.kind, "good" if row.verdict.holds else "bad")
    inner += tag("p", row.verdict.text, "small") if row.verdict.kind != "equal" else ""
    if row.difference_file is not None:
        address = _address(row.difference_file)
        inner += f'<p><a href="{address}"><img class="difference" src="{address}" alt="difference" '
        inner += 'loading="lazy"></a></p>'
    return f'<td class="verdict" data-name="expected" data-key="{row.verdict.kind}">{inner}</td>'


def _recipes(rows: Sequence[Row], folder: Path) -> dict[str, Any]:
    """The recipes of the pictures; what many have in common is there once."""
    shared: dict[str, int] = {}
    recipes: dict[str, tuple[int, dict[str, Any]]] = {}
    for place, row in enumerate(rows):
        if row.status != "done":
            continue
        try:
            recipe = images.read_metadata(folder / str(row.file)).recipe
        except StorageError:
            continue
        if recipe is None:
            continue
        config = recipe["config"]
        own: dict[str, Any] = {
            name: recipe.pop(name) for name in ("image", "pixels_sha256") if name in recipe
        }
        own["config"] = {name: config.pop(name) for name in ("prompts", "seed") if name in config}
        for part in (own["config"], own.get("image", {})):
            if "seed" in part:
                part["seed"] = str(part["seed"])  # a number has 53 bits in JavaScript
        number = shared.setdefault(json.dumps(recipe, sort_keys=True), len(shared))
        recipes[f"r{place}"] = number, own
    return {"shared": [json.loads(one) for one in shared], "recipes": recipes}


def _json(value: Any) -> str:
    """JSON that nothing in it can end: neither the element that it stands in nor a comment."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _address(file: str | None) -> str:
    """A relative address of a file in the folder."""
    return quote(str(file), safe="/", errors="replace")
