"""The comparison as one HTML file, in the style of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from se_nas.arguments import checked
from se_nas.report.chart_data import axis
from se_nas.report.comparison import Comparison
from se_nas.report.page import render_template
from se_nas.report.page_tables import Cell, Column, Row, Table, number_cell
from se_nas.report.placement import placement
from se_nas.run import write_text
from se_nas.wording import printable_data

_BAND = {"value": "accuracy_difference", "low": "low", "high": "high"}


@checked
def write_comparison(comparison: Comparison, path: str | Path) -> Path:
    """Write the comparison as one self-contained page: both fronts in one picture, band, tables, verdict.

    Raises:
        RunError: the file cannot be written.
    """
    path = Path(path)
    write_text(path, render_comparison(comparison))
    return path


def render_comparison(comparison: Comparison) -> str:
    """The page as text: verdict, both fronts in one picture, the difference with its band, tables."""
    cost = comparison.objectives[1]
    return render_template(
        "comparison.html",
        scripts=("charts.js", "comparison.js"),
        data=printable_data(
            {
                "axis": axis(cost),
                "runs": [_run(comparison, index) for index in range(len(comparison.entries))],
                "pairs": [
                    {
                        "title": f"{pair.second} minus {pair.first}",
                        "budgets": [value / cost.scale for value in pair.difference.budgets.tolist()],
                        **{name: pair.to_dict()[key] for name, key in _BAND.items()},
                    }
                    for pair in comparison.pairs
                ],
            }
        ),
        title=" against ".join(comparison.group_names),
        verdicts=comparison.verdict.split("\n")[: len(comparison.pairs)],
        warnings=comparison.verdict.split("\n")[len(comparison.pairs) :],
        tables=[
            (title, f"table-{index}", _table(rows)) for index, (title, rows) in enumerate(comparison.tables())
        ],
        reference=", ".join(
            f"{item.name} {value / item.scale:.4g} {item.unit}"
            for item, value in zip(comparison.objectives, comparison.reference, strict=True)
        ),
        baselines=_baselines(comparison),
    )


def _baselines(comparison: Comparison) -> list[tuple[str, str]]:
    """The first cost's title and the medians of the plain backbones, if it is a ratio on its axis."""
    return [
        (cost.title, f"{value / cost.scale:.{cost.digits}f} {cost.unit} ({backbone.removesuffix(' []')})")
        for cost in comparison.objectives[1:2]
        if f"{cost.name}_ratio" in cost.columns
        for backbone, value in comparison.units.get(cost.name, {}).items()
    ]


def _run(comparison: Comparison, index: int) -> dict[str, Any]:
    entry, cost = comparison.entries[index], comparison.objectives[1]
    group = next(place for place, members in enumerate(comparison.groups) if index in members)
    points = []
    for member, values in zip(entry.members, entry.values.tolist(), strict=True):
        sites = entry.report.sites.get(member.position or "", ())
        points.append(
            {
                "number": member.number,
                "name": placement(sites, member.widths) if len(sites) == len(member.widths) else member.name,
                "accuracy": values[0],
                "cost": values[1] / cost.scale,
                "interval": member.accuracy_interval and list(member.accuracy_interval),
                "front": member.on_front,
                "role": member.baseline,
            }
        )
    return {"name": entry.name, "group": group, "points": points}


def _table(rows: Sequence[Mapping[str, str]]) -> Table:
    names = list(rows[0])
    numeric = {name: all(_is_number(row[name]) for row in rows) for name in names}
    return Table(
        columns=[Column(title=name, numeric=numeric[name]) for name in names],
        rows=[
            Row(cells=[number_cell(row[name]) if numeric[name] else Cell(text=row[name]) for name in names])
            for row in rows
        ],
    )


def _is_number(text: str) -> bool:
    return text in ("", "–") or number_cell(text).sort != ""
