"""`sweep.html`: the sheets as one file that needs no other; the recipe of each picture is a click away.

Pictures are in the page in a size to look at; each links to its file, for as long as that lies beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from t2i import images
from t2i.catalog import ASSETS
from t2i.errors import StorageError
from t2i.pages import data_address, document, tag, text
from t2i.sweep.grid import status_of
from t2i.sweep.outcome import Outcome, Sheet, Shown
from t2i.tiles import thumbnail

SIZES = ((100, 512), (500, 256), (10_000, 128))  # up to so many pictures: the longer side of each, pixels
PANEL = """<dialog id="panel" aria-labelledby="panel-title"><header><h2 id="panel-title"></h2>
<button type="button" id="close">close</button></header><img alt=""><p><a>open the picture's file</a></p>
<pre tabindex="0"></pre></dialog>"""


def render_page(outcome: Outcome, folder: Path, grids: Sequence[str]) -> str:
    """The whole page.

    Args:
        outcome: Of the sweep.
        folder: Of its pictures, which are read.
        grids: Names of the sheets as pictures.
    """
    side = next(side for most, side in SIZES if len(outcome.cells) <= most)
    links = [("sweep.csv", "table (CSV)")]
    links += [(name, f"sheet {number}") for number, name in enumerate(grids, 1)]
    parts = [
        tag("h1", outcome.title()),
        tag("p", outcome.settings(), "note"),
        tag("p", _summary(outcome), "note"),
        "<p>" + " ".join(f'<a href="{_address(name)}">{text(what)}</a>' for name, what in links) + "</p>",
    ]
    for sheet in outcome.sheets():
        parts += [tag("h2", sheet.title)] if sheet.title else []
        parts.append(_table(outcome, sheet, folder, side))
    parts.append(PANEL)
    assets = ASSETS / "report"
    styles = [(assets / name).read_text(encoding="utf-8") for name in ("page.css", "sweep.css")]
    script = (assets / "sweep.js").read_text(encoding="utf-8")
    return document(f"t2i sweep: {outcome.title()}", "".join(styles), parts, "data:", script)


def _summary(outcome: Outcome) -> str:
    counts = {kind: sum(row.status == kind for row in outcome.rows) for kind in ("done", "failed", "missing")}
    told = [f"{count} {kind}" for kind, count in counts.items() if count or kind == "done"]
    seconds = sum(row.seconds for row in outcome.rows)
    return f"{len(outcome.cells)} pictures, {', '.join(told)}; {seconds:.1f} s of drawing"


def _table(outcome: Outcome, sheet: Sheet, folder: Path, side: int) -> str:
    across, columns = outcome.sweep.heads(0)
    two = len(outcome.sweep.axes) > 1
    down, heads = outcome.sweep.heads(1) if two else ("", [""])
    corner = '<td class="corner"></td>' if two else ""
    head = corner + "".join(_head(across, value, "col") for value in columns)
    body = "".join(
        "<tr>"
        + (_head(down, value, "row") if two else "")
        + "".join(_cell(shown, folder, side) for shown in row)
        + "</tr>"
        for value, row in zip(heads, sheet.rows, strict=True)
    )
    label = text(sheet.title or outcome.title())
    return (
        f'<div class="sheet" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _head(name: str, value: str, scope: str) -> str:
    label = text(value or "(empty)")
    return f'<th scope="{scope}">{tag("span", name, "note")} <bdi title="{label}">{label}</bdi></th>'


def _cell(shown: Shown, folder: Path, side: int) -> str:
    """A picture with its recipe, or why there is none."""
    row = shown.row
    try:
        if row.status != "done":
            raise StorageError(row.error or "")
        path = folder / str(row.file)
        address = data_address(thumbnail(images.read_pixels(path), side, side))
        recipe = images.read_metadata(path).recipe
    except StorageError as error:
        told = tag("p", status_of(shown), "note" if row.status == "missing" else "bad")
        told += tag("p", error.message, "small") if error.message else ""
        return f'<td class="blank">{told}</td>'
    told = "This picture carries no recipe."
    if recipe is not None:
        told = json.dumps(recipe, indent=2, ensure_ascii=False)
    seed = "" if "seed" in dict(shown.cell.labels) else f", seed {row.seed}"
    label = text(shown.cell.name + seed)
    picture = f'<img src="{address}" alt="" loading="lazy">'
    link = f'<a href="{_address(str(row.file))}" aria-label="{label}">{picture}</a>'
    return f"<td>{link}<pre hidden>{text(told)}</pre></td>"


def _address(file: str) -> str:
    """A relative address of a file in the folder."""
    return quote(file, safe="/", errors="replace")
