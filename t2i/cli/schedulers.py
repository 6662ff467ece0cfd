"""`t2i schedulers`: the sampling methods that t2i knows by name."""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

PIPED_WIDTH = 180  # columns when stdout is no terminal: no line is broken


def command(
    json: Annotated[bool, typer.Option("--json", help="print JSON, a line per scheduler")] = False,
) -> None:
    """List the sampling methods for --scheduler."""
    from t2i.schedulers import rows

    if json:
        for row in rows():
            print(json_format.dumps(row, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "class", "order", "stochastic", "A1111 and other names", "source", box=None)
    table.columns[0].no_wrap = True
    for row in rows():
        missing = "" if row["available"] else f" [needs {row['needs']}]"
        noise = "yes" if row["stochastic"] else "no"
        others = ", ".join(row["aliases"])
        table.add_row(row["name"], row["class"], str(row["order"]), noise, others, row["source"] + missing)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)
