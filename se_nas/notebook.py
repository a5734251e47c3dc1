"""The HTML that notebooks show: self-contained, escaped, and readable on a light or dark ground."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from se_nas.wording import printable

_CELL = "padding:2px 8px;text-align:left;vertical-align:top;border-bottom:1px solid #8884"


def paragraph(text: str, *, strong: bool = False) -> str:
    """A paragraph of text; ``strong`` for what is to be read first."""
    return f"<p>{'<b>' if strong else ''}{escape(printable(text))}{'</b>' if strong else ''}</p>"


def table(rows: Sequence[Mapping[str, str]], caption: str = "") -> str:
    """A table of text with the columns of its first row; empty without rows."""
    if not rows:
        return ""
    title = f"<caption style='text-align:left'>{escape(printable(caption))}</caption>" if caption else ""
    heads = "".join(f"<th scope='col' style='{_CELL}'>{escape(printable(column))}</th>" for column in rows[0])
    body = "".join(f"<tr>{_cells(row.values())}</tr>" for row in rows)
    return (
        "<div style='overflow-x:auto'><table style='border-collapse:collapse;font-size:0.9em'>"
        f"{title}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def picture(svg: str, text: str) -> str:
    """An SVG file as an image with a description: as an image, it can run nothing and no id meets another's."""
    data = base64.b64encode(svg.encode()).decode()
    return (
        f"<img alt='{escape(printable(text), quote=True)}' style='max-width:100%;background:white'"
        f" src='data:image/svg+xml;base64,{data}'>"
    )


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"<td style='{_CELL}'>{escape(printable(text))}</td>" for text in texts)
