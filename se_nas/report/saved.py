"""The saved form of a report: a versioned JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from se_nas.documents.typed import check_schema
from se_nas.errors import RunError
from se_nas.report.pareto_report import ParetoReport
from se_nas.report.per_image import from_text, to_text
from se_nas.run import REPORT, Manifest, read_json, rows_from_json

SCHEMA = 2
KIND = "se-nas report"


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


def read_saved(path: Path) -> ParetoReport:
    """The report of a file that holds a saved form.

    Raises:
        RunError: it is something else, damaged, or of a newer schema than this program's.
    """
    data = read_json(path)
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise RunError(
            f"{path} is not a report of se-nas: give a run folder or a {REPORT} that se-nas saved."
        )
    check_schema(data, SCHEMA, str(path), RunError)
    missing = [name for name in ("manifest", "trials") if name not in data]
    if missing:
        raise RunError(f"{path} is damaged: it lacks {', '.join(missing)}.")
    source, config = data.get("source"), data.get("config") or {}
    if not isinstance(source, str | None) or not isinstance(config, Mapping):
        raise RunError(f"{path} is damaged: its source must be text, and its config a JSON object.")
    return ParetoReport(
        manifest=Manifest.from_json(data["manifest"], f"the manifest in {path}"),
        rows=rows_from_json(data["trials"], f"the table of trials in {path}"),
        source=source,
        config=config,
        correct=from_text(data.get("correct")),
    )
