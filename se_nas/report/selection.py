"""Who was retrained, why, and why with so many seeds: the final phase in words."""

from __future__ import annotations

from dataclasses import dataclass

from se_nas.report.candidates import Candidate
from se_nas.report.pareto_report import ParetoReport
from se_nas.run import Chosen, Finals

_FAILED = ("failed", "diverged", "infeasible")
_CUT = {"budget": "the time ran out", "stopped": "the run was stopped"}
_UNTIL = {"decided": "that was decided", **_CUT}


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A candidate that was chosen for retraining.

    Attributes:
        candidate: which one.
        reason: why it was chosen, in words.
        seeds: how many readings it got.
        why: why that many, in words.
    """

    candidate: Candidate
    reason: str
    seeds: int
    why: str


def finalists(report: ParetoReport) -> list[Finalist]:
    """The finalists in the order of their importance; empty if the manifest does not name them."""
    phase = report.manifest.finals
    if phase is None:
        return []
    by_key = {candidate.key: candidate for candidate in report.candidates}
    return [
        Finalist(
            candidate=by_key[chosen.key],
            reason=_reason(chosen),
            seeds=len(by_key[chosen.key].final),
            why=_why(by_key[chosen.key], phase),
        )
        for chosen in phase.chosen
        if chosen.key in by_key
    ]


def _reason(chosen: Chosen) -> str:
    odds = f"P = {chosen.probability:.2f} after the search"
    words = {
        "baseline": "baseline",
        "front": f"probably on the front ({odds})",
        "near the front": f"possibly on the front ({odds})",
    }
    return words.get(chosen.reason, chosen.reason)


def _why(candidate: Candidate, phase: Finals) -> str:
    base, most, ended = phase.base_seeds, phase.most_seeds, phase.ended or ""
    seeds = len(candidate.final)
    failed = [
        reading for reading in candidate.readings if reading.phase == "final" and reading.state in _FAILED
    ]
    if failed:
        state = "was infeasible" if failed[0].state == "infeasible" else failed[0].state
        return f"a training {state}, so no further ones were tried"
    if seeds < base:
        return f"{_CUT.get(ended, 'the phase ended')} before the planned {base}"
    if seeds == base:
        if ended == "decided":
            return "as planned; no further reading was needed to decide who is on the front"
        if ended in _CUT:
            return f"as planned; {_CUT[ended]} before any more"
        return "as planned; further readings were more informative elsewhere" if base > 1 else "as planned"
    more = f"{seeds - base} more than planned, because its readings were the most informative about the front"
    if seeds >= most:
        return f"{more}; {most} is the most allowed"
    return f"{more}, until {_UNTIL.get(ended, 'all planned trainings were used')}"
