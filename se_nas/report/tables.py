"""The front as rows for a terminal or a spreadsheet, and a run in a few sentences."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from se_nas.objectives import COSTS, Objective
from se_nas.report.candidates import BASELINE_NAMES, Candidate
from se_nas.report.differences import accuracy_gain
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.picks import names_of
from se_nas.run import cost_columns
from se_nas.wording import counted, printable


def front_table(report: ParetoReport) -> list[dict[str, str]]:
    """The front and the baselines beside it, cheapest first, as text by column name."""
    cost = report.costs[0]
    members = {candidate.key: candidate for candidate in (*report.front, *report.baselines)}
    picks = names_of(report)
    ordered = sorted(members.values(), key=lambda member: (member.value(cost) or 0, -(member.accuracy or 0)))
    ratios = [
        cost
        for name, cost in COSTS.items()
        if any(name in member.costs and member.costs[name].ratio is not None for member in ordered)
    ]
    return [_front_row(report, candidate, ratios, picks.get(candidate.key, ())) for candidate in ordered]


def _front_row(
    report: ParetoReport, candidate: Candidate, ratios: Sequence[Objective], picks: Sequence[str]
) -> dict[str, str]:
    row = {
        "trial": str(candidate.number),
        "front": "●" if candidate.on_front else "",
        "SE": candidate.placement,
        "accuracy %": plus_minus(candidate),
        "points vs plain": "",
    }
    if report.plain is not None and candidate.key != report.plain.key:
        gain = accuracy_gain(report, candidate, report.plain)
        row["points vs plain"] = gain.signed(2) if gain else ""
    for cost in report.costs:
        row[f"{cost.name} {cost.unit}"] = cost_text(candidate, cost)
    if not report.final:
        row["readings"] = str(len(candidate.counted))
    elif report.noise is not None:
        row["P(front)"] = "" if candidate.probability is None else f"{candidate.probability:.2f}"
    for cost in ratios:
        ratio = candidate.costs[cost.name].ratio if cost.name in candidate.costs else None
        row[f"{cost.name} ratio"] = "" if ratio is None else f"{ratio:.3f}"
    row["note"] = ", ".join([*(BASELINE_NAMES.get(name, name) for name in candidate.baselines), *picks])
    return row


def plus_minus(candidate: Candidate) -> str:
    """Mean accuracy with half of its 95 % interval; without an accuracy, the candidate's state."""
    if candidate.accuracy is None:
        return "–" if candidate.state == "complete" else candidate.state
    if candidate.accuracy_interval is None:
        return f"{candidate.accuracy:.2f}"
    low, high = candidate.accuracy_interval
    return f"{candidate.accuracy:.2f}±{(high - low) / 2:.2f}"


def cost_text(candidate: Candidate, cost: Objective) -> str:
    """A cost in its unit; a predicted one is marked with ~."""
    reading = candidate.costs.get(cost.name)
    if reading is None:
        return ""
    return f"{'' if reading.measured else '~'}{reading.value / cost.scale:.{cost.digits}f}"


def summary(report: ParetoReport) -> str:
    """What the run found, in a few lines of plain text."""
    manifest = report.manifest
    states: dict[str, int] = {}
    for row in report.rows:
        states[row.state] = states.get(row.state, 0) + 1
    counts = ", ".join(
        f"{count} {state}" for state, count in sorted(states.items(), key=lambda item: -item[1])
    )
    lines = [
        f"{report.name}: {manifest.backbone} on {manifest.data.name},"
        f" {counted(len(report.candidates), 'architecture')} in {counted(len(report.rows), 'trial')}"
        f" ({counts or 'none yet'});"
        f" {manifest.status}.",
        f"Front of {len(report.front)} ({report.label}).",
    ]
    decision = report.decision
    lines += [line for line in (decision.headline, decision.details) if line]
    return "\n".join(lines)


def candidates_csv(report: ParetoReport) -> str:
    """Every candidate as CSV: a header, then one line each; numbers unrounded, in the units of their columns."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = _columns()
    writer.writerow(columns)
    for record in candidate_records(report):
        record["on_front"] = int(record["on_front"])
        writer.writerow(
            # Widths are this program's numbers, of which the first may be negative.
            _plain_cell(value) if isinstance(value := record[name], str) and name != "widths" else value
            for name in columns
        )
    return stream.getvalue()


def candidate_records(report: ParetoReport) -> list[dict[str, Any]]:
    """One record of plain values per candidate; None is what is not known."""
    return [_record(candidate) for candidate in report.candidates]


def _columns() -> list[str]:
    return [
        *("number", "key", "placement", "baselines", "position", "widths", "state", "on_front"),
        *("probability", "readings", "accuracy", "accuracy_low", "accuracy_high", "selection_accuracy"),
        *("test_accuracy", *_cost_cells(cost_columns({}))),
    ]


def _record(candidate: Candidate) -> dict[str, Any]:
    accuracy = candidate.accuracy_interval or (None, None)
    return {
        "number": candidate.number,
        "key": candidate.key,
        "placement": candidate.placement,
        "baselines": " ".join(candidate.baselines),
        "position": candidate.position,
        "widths": " ".join(str(width) for width in candidate.widths),
        "state": candidate.state,
        "on_front": candidate.on_front,
        "probability": candidate.probability,
        "readings": len(candidate.counted),
        "accuracy": candidate.accuracy,
        "accuracy_low": accuracy[0],
        "accuracy_high": accuracy[1],
        "selection_accuracy": candidate.selection_accuracy,
        "test_accuracy": candidate.test_accuracy,
        **_cost_cells(cost_columns(candidate.costs)),
    }


def _cost_cells(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of costs, an interval as its two ends."""
    cells: dict[str, Any] = {}
    for name, value in columns.items():
        if name.endswith("_interval"):
            ratio = name.replace("_interval", "_ratio")
            cells[f"{ratio}_low"], cells[f"{ratio}_high"] = value or (None, None)
        else:
            cells[name] = value
    return cells


def _plain_cell(text: str) -> str:
    """Text that no spreadsheet mistakes for a formula, nor a terminal for commands."""
    text = printable(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text
