"""The front as rows for a terminal or a spreadsheet, and a run in a few sentences."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from se_nas.report.candidates import BASELINE_NAMES, Candidate, Objective
from se_nas.report.differences import accuracy_gain
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.picks import describe, names_of


def front_table(report: ParetoReport) -> list[dict[str, str]]:
    """The front and the baselines beside it, cheapest first, as text by column name."""
    cost = report.costs[0]
    members = {candidate.key: candidate for candidate in (*report.front, *report.baselines)}
    picks = names_of(report)
    ordered = sorted(members.values(), key=lambda member: (member.value(cost) or 0, -(member.accuracy or 0)))
    return [_front_row(report, candidate, picks.get(candidate.key, ())) for candidate in ordered]


def _front_row(report: ParetoReport, candidate: Candidate, picks: Sequence[str]) -> dict[str, str]:
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
    if report.noise is not None:
        row["P(front)"] = "" if candidate.probability is None else f"{candidate.probability:.2f}"
    if candidate.latency_ratio is not None:
        row["latency ratio"] = f"{candidate.latency_ratio:.3f}"
    row["note"] = ", ".join([*(BASELINE_NAMES.get(name, name) for name in candidate.baselines), *picks])
    return row


def plus_minus(candidate: Candidate) -> str:
    """Mean accuracy with half of its 95 % interval; the candidate's state where it has none."""
    if candidate.accuracy is None:
        return "–" if candidate.state == "complete" else candidate.state
    if candidate.accuracy_interval is None:
        return f"{candidate.accuracy:.2f}"
    low, high = candidate.accuracy_interval
    return f"{candidate.accuracy:.2f}±{(high - low) / 2:.2f}"


def cost_text(candidate: Candidate, cost: Objective) -> str:
    """A cost in its unit, four significant digits or more; predicted latency is marked with ~."""
    value = candidate.value(cost)
    if value is None:
        return ""
    predicted = "~" if cost.name == "latency" and candidate.latency_source == "predicted" else ""
    return f"{predicted}{value / cost.scale:.3f}"


def summary(report: ParetoReport) -> str:
    """What the run found, in a few lines of plain text."""
    manifest = report.manifest
    states: dict[str, int] = {}
    for row in report.rows:
        states[row["state"]] = states.get(row["state"], 0) + 1
    counts = ", ".join(
        f"{count} {state}" for state, count in sorted(states.items(), key=lambda item: -item[1])
    )
    lines = [
        f"{report.name}: {manifest.get('backbone')} on {(manifest.get('data') or {}).get('name')},"
        f" {len(report.candidates)} architectures in {len(report.rows)} trials ({counts or 'none yet'});"
        f" {manifest.get('status')}.",
        f"Front of {len(report.front)} ({report.label}).",
    ]
    if report.front:
        best = max(report.front, key=lambda member: member.accuracy or 0.0)
        lines.append(f"Best: {describe(report, best)}.")
    indistinct = indistinguishable(report)
    if indistinct:
        lines.append(indistinct)
    return "\n".join(lines)


def indistinguishable(report: ParetoReport) -> str:
    """Says so where no candidate's accuracy can be told from the plain backbone's; else empty."""
    if report.plain is None or report.plain.accuracy is None:
        return ""
    gains = [
        accuracy_gain(report, candidate, report.plain)
        for candidate in report.counted
        if candidate.key != report.plain.key
    ]
    known = [gain for gain in gains if gain is not None]
    if not known:
        return ""
    if any(gain.half_width is None for gain in known):
        return "Each accuracy is one reading: differences between candidates may be luck."
    if all(abs(gain.value) <= (gain.half_width or 0) for gain in known):
        return "No candidate's accuracy can be told from the plain backbone's at 95 %."
    return ""


def candidates_csv(report: ParetoReport) -> str:
    """Every candidate as CSV: a header, then one line each; numbers unrounded, in the fields' own units."""
    records = [_record(candidate) for candidate in report.candidates]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue()


_COLUMNS = (
    *("number", "key", "placement", "baselines", "position", "widths", "state", "on_front", "probability"),
    *("readings", "accuracy", "accuracy_low", "accuracy_high", "selection_accuracy", "test_accuracy"),
    *("num_params", "macs", "activations", "latency_ms", "latency_ratio"),
    *("latency_ratio_low", "latency_ratio_high", "latency_source"),
)


def _record(candidate: Candidate) -> dict[str, Any]:
    accuracy, ratio = candidate.accuracy_interval or ("", ""), candidate.latency_interval or ("", "")
    record = candidate.to_dict() | {
        "placement": _plain_cell(candidate.placement),
        "baselines": " ".join(candidate.baselines),
        "position": candidate.position,
        "widths": " ".join(str(width) for width in candidate.widths),
        "on_front": int(candidate.on_front),
        "readings": len(candidate.counted),
        "accuracy_low": accuracy[0],
        "accuracy_high": accuracy[1],
        "latency_ratio_low": ratio[0],
        "latency_ratio_high": ratio[1],
    }
    return {name: record[name] for name in _COLUMNS}


def _plain_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
