"""The report as one HTML file that needs nothing else: tables, charts and pictures, no script, no address.

Every text is escaped: prompts and file names come from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from t2i import images
from t2i.errors import StorageError
from t2i.evaluation.figures import Figure
from t2i.evaluation.report import Report, Run, Shown
from t2i.evaluation.tables import remarks
from t2i.pages import data_address, document, tag, text
from t2i.tiles import thumbnail

THUMBNAIL_PX = 128
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff}
body{max-width:1080px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em}
table{border-collapse:collapse;display:block;overflow-x:auto}
th,td{padding:.25em .8em .25em 0;text-align:left;vertical-align:top;border-bottom:1px solid #ddd}
td.n{white-space:nowrap;font-variant-numeric:tabular-nums}
.missing{color:#8a4b00}.small{color:#666;font-size:.85em}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(136px,1fr));gap:12px}
figure{margin:0;font-size:.8em;overflow-wrap:anywhere}
figure img{width:128px;height:128px;object-fit:contain;border:4px solid #ccc;background:#eee}
figure.right img{border-color:#1b8a3a}figure.wrong img{border-color:#c22}
img.plot{max-width:100%}pre{white-space:pre-wrap;overflow-wrap:anywhere}
"""


def render_page(report: Report, plot: bytes, shown_pictures: int) -> str:
    """The whole file.

    Args:
        report: The result.
        plot: Its charts as a PNG file.
        shown_pictures: Most pictures in it, shared evenly among the runs.
    """
    swept = len(report.runs) > 1
    each = shown_pictures // len(report.runs)
    parts = [
        tag("h1", f"Evaluation of {report.subject}"),
        tag("p", "; ".join(report.notes)),
        tag("h2", "Quality, diversity, speed"),
        _trilemma(report.runs, swept),
        tag("h2", "Charts"),
        f'<img class="plot" alt="charts" src="{data_address(plot)}">',
    ]
    for run in report.runs:
        parts.append(tag("h2", f"Figures: {run.label}" if swept else "Figures"))
        parts.append(tag("p", f"failed: {run.failure}", "missing") if run.failure else _figures(run))
    parts += [tag("h2", "Remarks"), _list(remarks(report))]
    for run in report.runs:
        parts += _pictures(run, each, swept)
    parts += [tag("h2", "How it was done"), tag("pre", json.dumps(dict(report.about), indent=2))]
    return document(f"t2i eval: {report.subject}", STYLE, parts, pictures="data:")


def _trilemma(runs: Sequence[Run], swept: bool) -> str:
    rows = []
    for run in runs:
        cells = [
            "not measured" if figure is None else f"{figure.name} {figure.text()}"
            for figure in run.trilemma().values()
        ]
        rows.append(([run.label] if swept else []) + cells)
    return _table((["setting"] if swept else []) + ["quality", "diversity", "speed"], rows)


def _figures(run: Run) -> str:
    def cells(figure: Figure) -> list[str]:
        if figure.value is None:
            return [text(figure.name), '<span class="missing">not measured</span>', "", "",
                    f'<span class="missing">{text(figure.reason)}</span>']  # fmt: skip
        remark = text(figure.how) + (
            f' <span class="missing">{text(figure.warning)}</span>' if figure.warning else ""
        )
        counted = f"{figure.count} {figure.counted}"
        return [*map(text, (figure.name, figure.text(), figure.interval_text(), counted)), remark]

    head = "".join(tag("th", name) for name in ("figure", "value", "95 % interval", "of", "how"))
    body = "".join(
        "<tr>" + "".join(f'<td{" class=n" if k < 4 else ""}>{cell}</td>' for k, cell in enumerate(cells(one)))
        + "</tr>"
        for one in run.figures
    )  # fmt: skip
    return f"<table><tr>{head}</tr>{body}</table>"


def _pictures(run: Run, most: int, swept: bool) -> list[str]:
    """The pictures of a run in the order of its prompts, as many as fit."""
    shown = list(run.pictures[:most])
    if not shown:
        return []
    heading = f"Pictures: {run.label}" if swept else "Pictures"
    said = f"{len(shown)} of {len(run.pictures)} pictures"
    if any(one.answers for one in shown):
        said += "; green: everything asked for is there, red: something is not"
    figures = "".join(map(_picture, shown))
    return [tag("h2", heading), tag("p", said, "small"), f'<div class="pictures">{figures}</div>']


def _picture(shown: Shown) -> str:
    try:
        address = data_address(thumbnail(images.read_pixels(shown.file), THUMBNAIL_PX, 2 * THUMBNAIL_PX))
    except StorageError as error:
        return f"<figure>{text(error.message)}</figure>"
    small = []
    if shown.answers:
        small.append(
            ", ".join(f"{name}: {'yes' if right else 'no'}" for name, right in shown.answers.items())
        )
        small.append(f"seen: {', '.join(shown.found) or 'nothing'} on {shown.background}")
    if shown.clip_score is not None:
        small.append(f"CLIPScore {shown.clip_score:.3f}")
    if shown.seed is not None:
        small.append(f"seed {shown.seed}")
    kind = "" if not shown.answers else "right" if all(shown.answers.values()) else "wrong"
    picture = f'<img alt="" loading="lazy" src="{address}">'
    said = text(shown.prompt or shown.file.name) + "".join(
        f'<br><span class="small">{text(line)}</span>' for line in small
    )
    return f'<figure class="{kind}">{picture}<figcaption>{said}</figcaption></figure>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    titles = "".join(tag("th", name) for name in head)
    body = "".join("<tr>" + "".join(tag("td", cell) for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{body}</table>"


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(tag("li", line) for line in lines) + "</ul>"
