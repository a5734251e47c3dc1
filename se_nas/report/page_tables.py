"""The tables of a page: text, what they sort by, and which cell opens a candidate's card."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from se_nas.objectives import PARAMS
from se_nas.report.candidates import BASELINE_NAMES, Candidate
from se_nas.report.effects import BLOCK
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.selection import finalists
from se_nas.report.tables import cost_text, front_table, plus_minus

_REDUCTION = re.compile(r"stage(?P<stage>\d+)\.reduction")


@dataclass(frozen=True, kw_only=True)
class Column:
    title: str
    numeric: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """``sort`` orders a numeric column; ``number`` makes the cell a button that opens a trial's card."""

    text: str
    sort: float | str | None = None
    number: int | None = None
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    cells: Sequence[Cell]
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    columns: Sequence[Column]
    rows: Sequence[Row]


def front_rows(report: ParetoReport) -> Table:
    """The front and the baselines beside it."""
    records = front_table(report)
    names = [name for name in records[0] if name != "front"]
    text = {"SE", "note"}
    by_number = {str(candidate.number): candidate for candidate in report.candidates}
    rows = []
    for record in records:
        candidate = by_number[record["trial"]]
        cells = [
            _trial_cell(candidate)
            if name == "trial"
            else Cell(text=record[name], kind="se" if name == "SE" else "")
            if name in text
            else number_cell(record[name])
            for name in names
        ]
        rows.append(Row(cells=cells, kind=_kind(candidate)))
    return Table(columns=[Column(title=name, numeric=name not in text) for name in names], rows=rows)


def candidate_rows(report: ParetoReport) -> Table:
    """Every candidate, with the costs of the run and the number of parameters."""
    costs = report.costs if PARAMS in report.costs else (*report.costs, PARAMS)
    columns = [
        Column(title="trial", numeric=True),
        Column(title="SE"),
        Column(title="role"),
        Column(title="state"),
        Column(title="accuracy %", numeric=True),
        Column(title="search %", numeric=True),
        Column(title="test %", numeric=True),
        *(Column(title=f"{cost.name} {cost.unit}", numeric=True) for cost in costs),
    ]
    rows = []
    for candidate in report.candidates:
        roles = [BASELINE_NAMES.get(name, name) for name in candidate.baselines]
        cells = [
            _trial_cell(candidate),
            Cell(text=candidate.placement, kind="se"),
            Cell(text=", ".join([*(["front"] if candidate.on_front else []), *roles])),
            Cell(text=candidate.state),
            _value_cell(candidate.accuracy, plus_minus(candidate) if candidate.accuracy is not None else ""),
            _value_cell(candidate.selection_accuracy),
            _value_cell(candidate.test_accuracy),
            *(_value_cell(candidate.value(cost), cost_text(candidate, cost)) for cost in costs),
        ]
        rows.append(Row(cells=cells, kind=_kind(candidate)))
    return Table(columns=columns, rows=rows)


def finalist_rows(report: ParetoReport) -> Table | None:
    """Who was retrained, why, and with how many seeds; None if the run does not say."""
    chosen = finalists(report)
    if not chosen:
        return None
    columns = [
        Column(title="trial", numeric=True),
        Column(title="SE"),
        Column(title="retrained as"),
        Column(title="seeds", numeric=True),
        Column(title="why that many"),
    ]
    rows = [
        Row(
            cells=[
                _trial_cell(item.candidate),
                Cell(text=item.candidate.name, kind="se"),
                Cell(text=item.reason),
                Cell(text=str(item.seeds), sort=item.seeds, kind="num"),
                Cell(text=item.why),
            ],
            kind=_kind(item.candidate),
        )
        for item in chosen
    ]
    return Table(columns=columns, rows=rows)


def _trial_cell(candidate: Candidate) -> Cell:
    return Cell(text=str(candidate.number), sort=candidate.number, number=candidate.number, kind="num")


def number_cell(text: str) -> Cell:
    """A cell that sorts by the number that its text begins with."""
    digits = text.split("±")[0].split(" [")[0].lstrip("~").replace("−", "-")
    try:
        return Cell(text=text, sort=float(digits), kind="num")
    except ValueError:
        return Cell(text=text, sort="", kind="num")


def _value_cell(value: float | None, text: str | None = None) -> Cell:
    if value is None:
        return Cell(text="", sort="", kind="num")
    return Cell(text=f"{value:.2f}" if text is None else text, sort=value, kind="num")


def _kind(candidate: Candidate) -> str:
    return "base" if candidate.baselines else "front" if candidate.on_front else ""


def importance_rows(importance: Mapping[str, Any]) -> Table | None:
    """Share of each parameter in reaching the best readings and the front; None if the study could not tell."""
    names = {"objective": "share for accuracy %", "trade_off": "share for the front %"}
    known = {key: importance[key] for key in names if importance.get(key)}
    if not known:
        return None
    parameters = list(dict.fromkeys(name for shares in known.values() for name in shares))
    rows = []
    for parameter in parameters:
        shares = [known[key].get(parameter) for key in known]
        cells = [_value_cell(share, None if share is None else f"{100 * share:.1f}") for share in shares]
        rows.append(Row(cells=[Cell(text=parameter), *cells]))
    columns = [Column(title="parameter"), *(Column(title=names[key], numeric=True) for key in known)]
    return Table(columns=columns, rows=rows)


def effect_rows(effects: Sequence[Mapping[str, Any]]) -> Table | None:
    """The effects in the sampler's model: points of accuracy by stage or choice, and per percent of cost."""
    if not effects:
        return None
    titles = ("points of accuracy", "change of cost %", "points per percent of cost")
    rows = []
    for effect in effects:
        name = _effect_name(str(effect["group"]), effect.get("choice"))
        per_percent = _interval_text(effect.get("per_percent"), effect.get("per_percent_interval"))
        cells = [
            Cell(text=name),
            _value_cell(effect.get("effect"), _interval_text(effect.get("effect"), effect.get("interval"))),
            _value_cell(effect.get("cost_percent")),
            _value_cell(effect.get("per_percent"), per_percent),
        ]
        rows.append(Row(cells=cells))
    return Table(
        columns=[Column(title="SE in"), *(Column(title=title, numeric=True) for title in titles)], rows=rows
    )


def _effect_name(group: str, choice: Any) -> str:
    """A stage, or a choice of the search space in words."""
    block, reduction = BLOCK.fullmatch(group), _REDUCTION.fullmatch(group)
    if choice is None:
        return group
    if block and isinstance(choice, bool):
        return f"stage {block['stage']}, block {block['block']}{'' if choice else ' without SE'}"
    if reduction and not isinstance(choice, str):
        return f"stage {reduction['stage']} at γ={choice:g}"
    return f"{group} = {choice}"


def _interval_text(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None:
        return ""
    text = f"{value:+.3f}" + (f" [{interval[0]:+.3f}, {interval[1]:+.3f}]" if interval else "")
    return text.replace("-", "−")
