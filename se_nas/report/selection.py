"""Who was retrained, why, and why with so many seeds: the final phase in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from se_nas.report.candidates import Candidate
from se_nas.report.pareto_report import ParetoReport

_FAILED = ("failed", "diverged", "infeasible")
_CUT = {"budget": "the time ran out", "stopped": "the run was stopped"}


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A candidate that was chosen for retraining.

    Attributes:
        candidate: who.
        reason: why it was chosen, in words.
        seeds: readings that it got.
        why: why it got as many, in words.
    """

    candidate: Candidate
    reason: str
    seeds: int
    why: str


def finalists(report: ParetoReport) -> list[Finalist]:
    """The finalists in the order of their importance; empty where the manifest does not name them."""
    phase: Mapping[str, Any] = report.manifest.get("finals") or {}
    by_key = {candidate.key: candidate for candidate in report.candidates}
    return [
        Finalist(
            candidate=by_key[entry["key"]],
            reason=_reason(entry),
            seeds=len(by_key[entry["key"]].final),
            why=_why(by_key[entry["key"]], phase),
        )
        for entry in phase.get("chosen") or ()
        if entry["key"] in by_key
    ]


def _reason(entry: Mapping[str, Any]) -> str:
    odds = f"P = {entry['probability']:.2f} after the search"
    words = {
        "baseline": "baseline",
        "front": f"probably on the front ({odds})",
        "near the front": f"could be on the front ({odds})",
    }
    return words.get(entry["reason"], str(entry["reason"]))


def _why(candidate: Candidate, phase: Mapping[str, Any]) -> str:
    base, most, ended = phase["base_seeds"], phase["most_seeds"], phase["ended"]
    seeds = len(candidate.final)
    failed = [
        reading for reading in candidate.readings if reading.phase == "final" and reading.state in _FAILED
    ]
    if failed:
        return f"a training {failed[0].state}, so no more were tried"
    if seeds < base:
        return f"{_CUT.get(ended, 'the phase ended')} before it had the {base} that each was to get"
    if seeds == base:
        if ended == "decided":
            return "what each gets; no further reading was needed to say who is on the front"
        if ended in _CUT:
            return f"what each gets; {_CUT[ended]} before more"
        return (
            "what each gets; further trainings told more of the front elsewhere" if base > 1 else "as asked"
        )
    more = f"{seeds - base} more than each gets: its readings told most of who is on the front"
    if seeds >= most:
        return f"{more}, up to the {most} allowed"
    return f"{more}, until that was decided" if ended == "decided" else f"{more}, as far as trainings went"
