"""Tables that fit their width: words stay whole, then columns are left out, then rows are stacked.

In this order, as docs/terminal.md says it:

1. Text breaks between words; short cells and numbers never break.
2. Columns that are empty, then those that the table can do without.
3. One line per cell, with the column's name before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from se_nas.wording import printable

_NUMBERS = frozenset("0123456789.,:+-±–−×~%eKMG●✓[] ")
_GAP = 2
_SHORT = 12
"""Cells of up to so many letters never break."""

Rows = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Column:
    """A column with the least and the natural width of its cells."""

    name: str
    numeric: bool
    least: int
    natural: int

    @classmethod
    def of(cls, name: str, rows: Rows) -> Column:
        cells = [row[name] for row in rows]
        numeric = all(set(cell) <= _NUMBERS for cell in cells)
        heading = max((cell_len(word) for word in name.split()), default=0)
        body = max(_least(cell, whole=numeric) for cell in cells)
        natural = max(cell_len(line) for cell in (*cells, name) for line in cell.split("\n"))
        return cls(name, numeric, max(heading, body), natural)


def fitted(rows: Rows, width: int, optional: Iterable[str] = ()) -> RenderableType:
    """The rows as a table of at most ``width`` columns of the terminal.

    Args:
        rows: text by column name, at least one row; all have the same names.
        width: of the terminal.
        optional: names of columns that the table can do without, the first to be left out first; shell patterns
            such as ``"* ratio"``, of which the last match goes first.
    """
    rows = [{printable(name): printable(cell) for name, cell in row.items()} for row in rows]
    names = list(rows[0])
    left_out: list[str] = []
    for name in ("", *_in_order(names, rows, optional)):
        if name:
            names.remove(name)
            if any(row[name] for row in rows):
                left_out.append(name)
        columns = [Column.of(name, rows) for name in names]
        if _total([column.least for column in columns]) <= width:
            table = _table(columns, rows, width)
            return Group(table, _note(left_out)) if left_out else table
    return _stacked(rows, width)


def least_width(rows: Rows) -> int:
    """The width at which nothing is left out but empty columns."""
    kept = [name for name in rows[0] if any(row[name] for row in rows)]
    return _total([Column.of(name, rows).least for name in kept])


def _in_order(names: Sequence[str], rows: Rows, optional: Iterable[str]) -> list[str]:
    empty = [name for name in names if not any(row[name] for row in rows)]
    matches = [name for pattern in optional for name in reversed(names) if fnmatchcase(name, pattern)]
    # One column is always left.
    return list(dict.fromkeys([*empty, *matches]))[: len(names) - 1]


def _least(cell: str, *, whole: bool) -> int:
    """The width below which a word, a short cell or a number would break."""
    lines = cell.split("\n")
    if whole or all(cell_len(line) <= _SHORT for line in lines):
        return max(cell_len(line) for line in lines)
    return max(_SHORT, *(cell_len(word) for word in cell.split()))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _table(columns: Sequence[Column], rows: Rows, width: int) -> Table:
    table = Table(header_style="bold", pad_edge=False, box=None)
    for column, size in zip(columns, _widths(columns, width), strict=True):
        table.add_column(
            Text(column.name),
            justify="right" if column.numeric else "left",
            width=size,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(row[column.name]) for column in columns))
    return table


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """The least widths, and what is left goes to the columns that still break."""
    widths = [column.least for column in columns]
    spare = width - _total(widths)
    while spare > 0:
        # The shallowest first, so that no cell becomes much higher than the others.
        wanting = [i for i, column in enumerate(columns) if widths[i] < column.natural]
        if not wanting:
            break
        tallest = max(wanting, key=lambda i: columns[i].natural / widths[i])
        widths[tallest] += 1
        spare -= 1
    return widths


def _note(names: Sequence[str]) -> Text:
    return Text(f"Not shown at this width: {', '.join(names)}.", style="dim")


def _stacked(rows: Rows, width: int) -> Group:
    names = [name for name in rows[0] if any(row[name] for row in rows)]
    labels = max(cell_len(name) for name in names)
    values = max(_least(row[name], whole=False) for row in rows for name in names)
    beside = _total([labels, values]) <= width
    blocks: list[RenderableType] = []
    for row in rows:
        if blocks:
            blocks.append(Text())
        shown = [(name, row[name]) for name in names if row[name]]
        if beside:
            table = Table.grid(padding=(0, _GAP, 0, 0))
            table.add_column(style="bold", width=labels)
            table.add_column(overflow="fold")
            for name, cell in shown:
                table.add_row(Text(name), Text(cell))
            blocks.append(table)
        else:
            for name, cell in shown:
                blocks += [Text(name, style="bold"), Text(cell, overflow="fold")]
    return Group(*blocks)


def by_prefix(rows: Rows, prefix: str, heading: str) -> list[dict[str, str]]:
    """Columns such as γ=4 and γ=16 as rows: the part after ``prefix=`` and, under ``heading``, the cell.

    What the others have in common is said in the first row of each group.
    """
    long = []
    for row in rows:
        rest = {name: cell for name, cell in row.items() if not name.startswith(f"{prefix}=")}
        for name in row:
            if name.startswith(f"{prefix}=") and row[name]:
                long.append({**rest, prefix: name.removeprefix(f"{prefix}="), heading: row[name]})
                rest = dict.fromkeys(rest, "")
        if any(rest.values()):
            long.append({**rest, prefix: "", heading: ""})
    return long
