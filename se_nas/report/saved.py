"""The saved form of a report: a versioned JSON file."""

from __future__ import annotations

from typing import Any

from se_nas.report.pareto_report import KIND, SCHEMA, ParetoReport
from se_nas.report.per_image import to_text


def saved_form(report: ParetoReport) -> dict[str, Any]:
    """What ``report.json`` holds, JSON-ready."""
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "name": report.name,
        "source": report.source,
        "final": report.final,
        "label": report.label,
        "decision": report.decision.to_dict(),
        "objectives": [
            {"name": item.name, "field": item.column, "direction": item.direction}
            for item in report.objectives
        ],
        "reference": list(report.reference) if report.counted else None,
        "hypervolume": report.hypervolume(),
        "hypervolume_interval": report.hypervolume_interval and list(report.hypervolume_interval),
        "seed_deviation": report.seed_deviation,
        "basis": report.basis if report.noise is not None else None,
        "front": [candidate.key for candidate in report.front],
        "candidates": [candidate.to_dict() for candidate in report.candidates],
        "config": dict(report.config),
        "manifest": report.manifest.to_json(),
        "trials": [row.to_json() for row in report.rows],
        "correct": to_text(report.correct),
    }
