"""The pictures of a run as test cases, in the form of JUnit's XML reports that CI systems show.

Only what the schemas of Jenkins, GitLab and GitHub's readers have in common is used. A picture that was
drawn, and is as expected where that was asked, is a passed case.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from t2i import durable
from t2i.batch.rows import Row
from t2i.batch.verdicts import Comparison
from t2i.errors import StorageError
from t2i.texts import printable

SUITES = "t2i batch"
PROMPT_LETTERS = 100
HEAD = f'<testsuites name="{SUITES}"'


def check_replaceable(path: Path, overwrite: bool) -> None:
    """Refuse to replace a file that is not a report of `t2i batch`.

    Raises:
        StorageError: It is there, or a folder is.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(200)
    except FileNotFoundError:
        return
    except OSError as error:
        raise durable.storage_error(path, error) from error
    if HEAD.encode() not in start and not overwrite:
        raise StorageError(
            f"{path} exists and is no JUnit report of t2i", "choose another name or pass --overwrite"
        )


def render_junit(
    suite: str, rows: Sequence[Row], folder: Path, comparison: Comparison | None = None
) -> bytes:
    """The whole file.

    Args:
        suite: What the cases are of: the name of the prompt file.
        rows: The pictures of the run.
        folder: As it was given; paths of attachments begin with it.
        comparison: Its pictures that are missing become failed cases.
    """
    cases = [_case(suite, row, folder) for row in rows]
    for expected in comparison.missing if comparison else ():
        name = f"{expected.prompt[:PROMPT_LETTERS]} (seed {expected.seed}, not asked for)"
        case = _element("testcase", name=name, classname=suite, time="0")
        text = (
            f"{comparison.golden if comparison else ''} expects it, and the prompt file does not ask for it"
        )
        _failure(case, "missing", text)
        cases.append(case)
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": 0,
    }
    seconds = f"{sum(row.seconds for row in rows):.4f}"
    counted = {name: str(count) for name, count in counts.items()}
    suites = _element("testsuites", name=SUITES, **counted, time=seconds)
    skipped = str(sum(case.find("skipped") is not None for case in cases))
    inner = _element("testsuite", name=suite, **counted, skipped=skipped, time=seconds)
    inner.extend(cases)
    suites.append(inner)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True) + b"\n"


def _case(suite: str, row: Row, folder: Path) -> ElementTree.Element:
    """One picture; the name has its file, which no other has."""
    name = f"line {row.line}: {row.prompt[:PROMPT_LETTERS]} ({row.file})"
    case = _element("testcase", name=name, classname=suite, time=f"{row.seconds:.4f}")
    if row.status == "failed":
        _failure(case, "failed", row.error or "failed")
    elif row.status == "missing":
        case.append(_element("skipped", message="not drawn"))
    elif row.differs and row.verdict is not None:
        _failure(case, row.verdict.kind, row.verdict.text)
    if row.status == "done":
        shown = [folder / file for file in (row.difference_file, row.file) if file is not None]
        output = ElementTree.SubElement(case, "system-out")
        output.text = printable("\n".join(f"[[ATTACHMENT|{path}]]" for path in shown if path.is_file()))
    return case


def _failure(case: ElementTree.Element, kind: str, message: str) -> None:
    failure = _element("failure", message=message, type=kind)
    failure.text = printable(message)
    case.append(failure)


def _element(tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.Element(tag, {name: printable(value) for name, value in attributes.items()})
