"""HTML pages of one file that ask nobody for anything: styles and script inside, every text escaped.

What a page may load is said in its Content-Security-Policy, so that text which got through unescaped could
still neither run nor fetch.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape

from t2i.texts import printable


def document(title: str, style: str, body: Iterable[str], pictures: str, script: str = "") -> str:
    """A whole page.

    Args:
        title: Plain text.
        style: CSS.
        body: Elements, escaped already.
        pictures: Where pictures may come from, in the words of a Content-Security-Policy.
        script: Runs after the body; nothing else may.
    """
    policy = f"default-src 'none'; base-uri 'none'; img-src {pictures}; style-src 'unsafe-inline'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{style}</style></head>\n<body>\n"
        + "\n".join(body)
        + (f"\n<script>{script}</script>" if script else "")
        + "\n</body></html>\n"
    )


def text(value: str) -> str:
    """Plain text as it stands in a page, also inside quotes."""
    return escape(printable(value))


def tag(name: str, value: str, kind: str = "") -> str:
    """An element with plain text in it."""
    return f"<{name}{f' class={kind}' if kind else ''}>{text(value)}</{name}>"


def data_address(picture: bytes) -> str:
    """A PNG or WebP file as an address that holds it whole."""
    kind = "png" if picture.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
