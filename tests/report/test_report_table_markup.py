"""Rows of a page's tables as HTML: what each cell carries, and that no text ends it early."""

from se_nas.report.page_tables import Cell, Column, Row
from se_nas.report.table_markup import rows_markup


def test_a_row_with_every_kind_of_cell():
    columns = [
        Column(title="trial", numeric=True),
        Column(title="SE"),
        Column(title="accuracy %", numeric=True),
    ]
    cells = [
        Cell(text="7", sort=7, number=7, kind="num"),
        Cell(text="no SE"),
        Cell(text="91.25±0.10", sort=91.25, kind="num"),
    ]
    assert rows_markup([Row(cells=cells, kind="front")], columns) == (
        '<tr class="front"><td data-label="trial" class="num" data-sort="7">'
        '<button type="button" class="open" data-number="7" aria-label="Open the card of trial 7">7</button></td>'
        '<td data-label="SE">no SE</td>'
        '<td data-label="accuracy %" class="num" data-sort="91.25">91.25±0.10</td></tr>\n'
    )


def test_text_of_others_is_escaped_everywhere():
    evil = "\"'><script>&\x1b"
    safe = "&#34;&#39;&gt;&lt;script&gt;&amp;\\x1b"
    row = Row(cells=[Cell(text=evil, sort=evil, kind=evil)], kind=evil)
    assert rows_markup([row], [Column(title=evil)]) == (
        f'<tr class="{safe}"><td data-label="{safe}" class="{safe}" data-sort="{safe}">{safe}</td></tr>\n'
    )


def test_no_rows():
    assert rows_markup([], [Column(title="SE")]) == ""
