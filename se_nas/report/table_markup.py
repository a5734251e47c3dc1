"""Rows of a page's tables as HTML. A template would take ten times as long, and a run may have 10,000 candidates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from se_nas.report.page_tables import Cell, Column, Row
from se_nas.wording import printable

_ESCAPED = re.compile("[&<>\"']")
"""What most texts have none of: to look is faster than to copy."""


def rows_markup(rows: Iterable[Row], columns: Sequence[Column]) -> Markup:
    """One ``<tr>`` per row, with all text escaped and its control characters shown."""
    labels = [f'<td data-label="{_safe(column.title)}"' for column in columns]
    return Markup("".join([_row(row, labels) for row in rows]))


def _row(row: Row, labels: Sequence[str]) -> str:
    kind = f' class="{_safe(row.kind)}"' if row.kind else ""
    cells = [label + _cell(cell) for label, cell in zip(labels, row.cells, strict=True)]
    return f"<tr{kind}>{''.join(cells)}</tr>\n"


def _cell(cell: Cell) -> str:
    """A cell behind its label."""
    kind = f' class="{_safe(cell.kind)}"' if cell.kind else ""
    order = "" if cell.sort is None else f' data-sort="{_safe(cell.sort)}"'
    text = _safe(cell.text)
    if cell.number is not None:
        text = (
            f'<button type="button" class="open" data-number="{cell.number}"'
            f' aria-label="Open the card of trial {cell.number}">{text}</button>'
        )
    return f"{kind}{order}>{text}</td>"


def _safe(value: str | float) -> str:
    if not isinstance(value, str):
        return str(value)
    return str(escape(printable(value))) if _ESCAPED.search(value) or not value.isprintable() else value
