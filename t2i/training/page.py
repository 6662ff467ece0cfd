"""`run.html`: one page about a run, made of what lies in its folder. It asks nobody for anything.

Curves are inside; sample sheets stay the files beside it, named by relative addresses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from t2i import durable
from t2i.catalog import ASSETS
from t2i.charts import to_svg
from t2i.checkpoints import list_checkpoints
from t2i.config import TrainConfig
from t2i.methods import METHODS
from t2i.pages import document, tag, text
from t2i.training import memorisation
from t2i.training.curves import charts_of, read_metrics
from t2i.training.folder import CHECKPOINTS, DONE, SETTINGS
from t2i.training.journal import FILE as JOURNAL
from t2i.training.journal import read_journal
from t2i.training.validation import read_best

PAGE = "run.html"
PICTURES = "'self' file:"  # a page from the disk is of no origin, and 'self' would be nothing
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def write_page(output: Path) -> None:
    """Write OUTPUT/run.html anew, whole or not at all."""
    durable.fault_point("page.write")
    durable.write_bytes(output / PAGE, render_page(output).encode())


def render_page(output: Path) -> str:
    """The page of a run folder, about every stage that has a journal."""
    parts = [tag("h1", f"t2i train: {output.name}")]
    for stage in METHODS:
        if (output / stage / JOURNAL).is_file():
            parts += _stage(output, stage)
    assets = ASSETS / "report"
    page, style, script = (
        (assets / name).read_text(encoding="utf-8") for name in ("page.css", "run.css", "run.js")
    )
    return document(f"t2i train: {output.name}", page + style, parts, PICTURES, script)


def _stage(output: Path, stage: str) -> list[str]:
    folder = output / stage
    journal, settings = read_journal(folder), _read(folder / SETTINGS)
    rows, about = read_metrics(folder), journal.get("about", {})
    done = (folder / DONE).is_file()
    step, total = journal.get("step", 0), about.get("steps", 0)
    state = "trained" if done else "stopped or still training"
    charts = "".join(f"<div>{to_svg(chart)}</div>" for chart in charts_of(rows))
    return [
        f'<section id="{text(stage)}">',
        tag("h2", stage),
        f'<p><span class="{"good" if done else "note"}">{state}</span>, step {step} of {total}</p>',
        *_result(about),
        _facts(folder, about, settings, rows),
        f'<div class="charts">{charts}</div>',
        *_sheets(output, stage),
        *_memorisation(output, stage),
        *_notices(journal.get("notices", [])),
        *_phases(journal.get("seconds", {})),
        *_checkpoints(folder),
        *_settings(settings),
        "</section>",
    ]


def _result(about: dict[str, Any]) -> list[str]:
    if "result" not in about:
        return []
    parts = [f"<p>result: <code>{text(about['result'])}</code></p>"]
    return parts + ([f"<pre>{text(about['command'])}</pre>"] if about.get("command") else [])


def _facts(folder: Path, about: dict[str, Any], settings: dict[str, Any], rows: Sequence[Any]) -> str:
    best = read_best(folder)
    last = rows[-1] if rows else {}
    speeds = sorted(row["images_per_s"] for row in rows if "images_per_s" in row)
    accumulated = settings.get("gradient_accumulation_steps", 1)
    batch = f"{settings.get('batch_size', '?')} pictures" + (
        f" x {accumulated} passes" if accumulated > 1 else ""
    )
    values = {
        "dataset": settings.get("dataset", ""),
        "pictures": f"{about.get('pictures', '?')} to learn from, {about.get('held_out', 0)} held out, "
        f"{about.get('captions', '?')} captions",
        "resolution": f"{settings.get('resolution', '?')} px",
        "batch": batch,
        "parameters that learn": f"{about.get('learning_parameters', 0):,}",
        "last loss": f"{last['loss']:.5g}" if "loss" in last else "",
        "lowest validation loss": f"{best.loss:.5g} at step {best.step}" if best else "",
        "speed": f"{speeds[len(speeds) // 2]:.4g} pictures/s (median)" if speeds else "",
        "most memory held": size_text(about["peak_memory_bytes"]) if "peak_memory_bytes" in about else "",
    }
    return _table((), [(name, value) for name, value in values.items() if value])


def _sheets(output: Path, stage: str) -> list[str]:
    """All sample sheets in order; the script shows one at a time."""
    files = sorted((output / stage / "samples").glob("*.png"))
    if not files:
        return []
    figures = "".join(
        f'<figure><img src="{_address(output, file)}" alt="" loading="lazy">'
        f"<figcaption>step {int(file.stem) if file.stem.isdigit() else text(file.stem)}</figcaption></figure>"
        for file in files
    )
    slider = (
        f'<label hidden>sheet <input type="range" min="0" max="{len(files) - 1}" value="{len(files) - 1}">'
        "</label>"
    )
    return [tag("h3", "Sample sheets"), f'<div class="sheets">{slider}{figures}</div>']


def _memorisation(output: Path, stage: str) -> list[str]:
    found = memorisation.summary(output / stage)
    if not found:
        return []
    kind = "bad" if found["copies"] else "good"
    said = f"{found['copies']} of {found['pictures']} drawn pictures are copies of training pictures"
    rows = [
        (pair["prompt"], "copy" if pair["copy"] else "", f"{pair['distance']:.3f}", f"{pair['ratio']:.2f}",
         pair["training_picture"])
        for pair in found["pairs"]
    ]  # fmt: skip
    head = ("prompt", "", "distance", "ratio", "nearest training picture")
    address = _address(output, output / stage / memorisation.SHEET)
    return [
        tag("h3", "Memorisation"),
        tag("p", said, kind),
        tag("p", f"{found['measure']}. A copy: {found['copy_means']}.", "small"),
        f'<p><img class="pairs" src="{address}" alt="drawn pictures over their nearest training pictures" '
        'loading="lazy"></p>',
        f"<details><summary>each picture</summary>{_table(head, rows)}</details>",
    ]


def _notices(notices: Sequence[dict[str, Any]]) -> list[str]:
    lines = "".join(f"<li>step {notice['step']}: {text(notice['text'])}</li>" for notice in notices)
    return [tag("h3", "Notices"), f"<ul>{lines}</ul>"] if lines else []


def _phases(seconds: dict[str, float]) -> list[str]:
    whole = sum(seconds.values())
    rows = [
        f"<tr><td>{text(name)}</td><td class=number>{time_text(value)}</td>"
        f'<td class="bar"><span style="width:{100 * value / whole:.1f}%"></span></td></tr>'
        for name, value in sorted(seconds.items(), key=lambda item: -item[1])
        if whole > 0
    ]
    return [tag("h3", "Time"), f'<table class="phases">{"".join(rows)}</table>'] if rows else []


def _checkpoints(folder: Path) -> list[str]:
    rows = [
        (path.name, size_text(sum(file.stat().st_size for file in path.iterdir())))
        for path in list_checkpoints(folder / CHECKPOINTS)
    ]
    return [tag("h3", "Checkpoints"), _table((), rows)] if rows else []


def _settings(settings: dict[str, Any]) -> list[str]:
    """Those that were chosen, then all."""
    usual = {name: item.default for name, item in TrainConfig.__dataclass_fields__.items()}
    chosen = {name: value for name, value in settings.items() if not _same(usual.get(name), value)}
    short, whole = (
        _table((), [(name, _shown(value)) for name, value in values.items()]) for values in (chosen, settings)
    )
    return [
        tag("h3", "Settings"),
        short,
        f"<details><summary>all settings</summary>{whole}</details>",
    ]


def _same(usual: Any, value: Any) -> bool:
    return usual == value or (isinstance(usual, tuple) and list(usual) == value)


def _shown(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(tag("th", name) for name in head)
    body = "".join("<tr>" + "".join(tag("td", cell) for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table>{f"<tr>{titles}</tr>" if head else ""}{body}</table></div>'


def _address(output: Path, file: Path) -> str:
    return quote(file.relative_to(output).as_posix(), errors="replace")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def size_text(count: float) -> str:
    """Bytes for a person: "1.5 GiB"."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {UNITS[unit]}" if unit == 0 else f"{count:.1f} {UNITS[unit]}"


def time_text(seconds: float) -> str:
    """Seconds for a person: "12.3 s", "4 min 05 s", "2 h 03 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
