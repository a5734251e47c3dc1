"""Picks from a front, with the reason in words."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from se_nas.arguments import checked
from se_nas.errors import RunError, nearest
from se_nas.objectives import COSTS, Objective
from se_nas.pareto import knee
from se_nas.report.candidates import Candidate
from se_nas.report.differences import cost_ratio, describe
from se_nas.report.pareto_report import ParetoReport

PICKS = ("best", "knee", "one-se")
ALIASES = {"cheapest": "one-se"}
"""Names of picks in earlier versions."""
_BUDGET = re.compile(r"(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>[a-zA-Z]*)")
_MULTIPLE = "x"


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A chosen candidate, the name by which it was asked for, and the reason why it is this one."""

    name: str
    candidate: Candidate
    reason: str


@checked
def pick(report: ParetoReport, name: str | int = "best") -> Pick:
    """The candidate that ``name`` asks for.

    Args:
        report: the report to choose from.
        name: ``best`` accuracy; ``knee`` (the front's largest sum of gains, each scaled to the front's range:
            the point farthest from the line between the front's ends); ``one-se``, the cheapest within one
            standard error of the best (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3;
            ``cheapest`` in earlier versions); ``under:BUDGET``, the best accuracy within ``6.5ms``,
            ``27Mparams``, ``4.1Gmacs`` or ``1.05x`` (a multiple of the plain backbone's first cost;
            ``1.05xparams`` names another); or a trial's number, or the beginning of a key. The name of a cost
            may be left out if its unit is enough.

    Raises:
        RunError: no candidate has finished, the name is unknown or ambiguous, or nothing meets the budget.
    """
    if not report.front:
        raise RunError(f"nothing can be picked from {report.name}: no candidate has finished yet.")
    name = ALIASES.get(str(name), str(name))
    if name.startswith("under:"):
        candidate, why = _under(report, name.removeprefix("under:").strip())
    elif name in _RULES:
        candidate, why = _RULES[name](report)
    else:
        candidate, why = _by_id(report, name), "chosen by its trial number or key"
    return Pick(name=name, candidate=candidate, reason=f"{describe(report, candidate)} ({why}).")


def _best(report: ParetoReport) -> tuple[Candidate, str]:
    best = max(report.front, key=lambda member: member.accuracy or -math.inf)
    return best, f"the best accuracy on the front, {best.accuracy:.2f} %"


def _knee(report: ParetoReport) -> tuple[Candidate, str]:
    index = knee(report.values(report.front), report.directions)
    assert index is not None
    if len(report.front) < 3:
        why = f"the knee of a front of {len(report.front)}, which has no bend to speak of"
    else:
        why = "the front's knee, farthest from the line between its ends"
    return report.front[index], why


def _one_standard_error(report: ParetoReport) -> tuple[Candidate, str]:
    best, _ = _best(report)
    accuracy = best.accuracy or 0.0
    known = report.standard_error(best)
    if known is not None:
        error, kind = known, "over seeds"
    else:
        images = report.manifest.data.num_val or 1
        error = 100 * math.sqrt(max(accuracy / 100 * (1 - accuracy / 100), 0.0) / images)
        kind = f"over {images} validation images, no repeats"
    within = [member for member in report.front if (member.accuracy or 0) >= accuracy - error]
    return within[0], f"the cheapest within one standard error of the best, {error:.2f} points {kind}"


_RULES = {"best": _best, "knee": _knee, "one-se": _one_standard_error}


def _under(report: ParetoReport, budget: str) -> tuple[Candidate, str]:
    cost, limit, multiple = _parse_budget(report, budget)
    values = {
        candidate.key: cost_ratio(report, candidate, cost) if multiple else candidate.value(cost)
        for candidate in report.counted
    }
    known = {key: value for key, value in values.items() if value is not None}
    within = [candidate for candidate in report.counted if known.get(candidate.key, math.inf) <= limit]
    if not within:
        if not known:
            raise RunError(f"no candidate of {report.name} is under {budget}: {cost.title} is not known.")
        least = min(known.values())
        smallest = f"{least:.6g}{_MULTIPLE}" if multiple else f"{least / cost.scale:.6g} {cost.unit}"
        raise RunError(
            f"no candidate of {report.name} is under {budget}: the smallest value is {smallest} ({cost.title})."
        )
    best = max(within, key=lambda candidate: candidate.accuracy or -math.inf)
    return best, f"the best accuracy under {budget}"


def _parse_budget(report: ParetoReport, budget: str) -> tuple[Objective, float, bool]:
    """The cost, the largest value allowed, and whether that is a multiple of the plain backbone's."""
    match = _BUDGET.fullmatch(budget)
    if match is None:
        raise RunError(f"the budget is {budget!r}; write it as {_examples()}.")
    value, asked = float(match["value"]), match["unit"].lower()
    if asked == _MULTIPLE:
        return report.costs[0], value, True
    unnamed = []
    for cost in COSTS.values():
        if asked == f"{_MULTIPLE}{cost.name}":
            return cost, value, True
        for unit, factor in cost.limit_units.items():
            if asked == f"{unit.lower()}{cost.name}":
                return cost, value * factor, False
            if asked == unit.lower():
                unnamed.append((cost, value * factor, False))
    if len(unnamed) > 1:
        unnamed = [found for found in unnamed if found[0] in report.costs]
    if len(unnamed) == 1:
        return unnamed[0]
    raise RunError(f"the budget is {budget!r}; write it as {_examples()}.")


def _examples() -> str:
    """One budget for each cost, with the cost's name if others share the unit."""
    examples = [f"1.05{_MULTIPLE}"]
    for cost in COSTS.values():
        shared = any(other.limit_units == cost.limit_units for other in COSTS.values() if other is not cost)
        examples.append(f"{cost.limit_example.split(' or ')[-1]}{cost.name if shared else ''}")
    return f"{', '.join(examples[:-1])} or {examples[-1]}"


def _by_id(report: ParetoReport, name: str) -> Candidate:
    for candidate in report.candidates:
        if name in [str(reading.number) for reading in candidate.readings]:
            return _finished(candidate, name)
    matches = [candidate for candidate in report.candidates if candidate.key.startswith(name)] if name else []
    if len(matches) == 1:
        return _finished(matches[0], name)
    if matches:
        raise RunError(
            f"{name!r} is the beginning of {len(matches)} keys: {', '.join(match.key for match in matches[:5])}."
        )
    raise RunError(
        f"there is no pick {name!r} in {report.name}; allowed: {', '.join(PICKS)}, under:BUDGET, a trial number"
        f" (0 to {max(row.number for row in report.rows)}) or a key.{nearest(name, (*PICKS, *ALIASES))}"
    )


def _finished(candidate: Candidate, name: str) -> Candidate:
    if candidate.state != "complete":
        reason = next((reading.error for reading in candidate.readings if reading.error), None)
        detail = f": {reason}" if reason else ""
        raise RunError(f"{name!r} cannot be picked: its state is {candidate.state}{detail}.")
    return candidate


def names_of(report: ParetoReport) -> dict[str, tuple[str, ...]]:
    """The standing picks of a front by key, to mark them in tables and pictures."""
    picks: dict[str, list[str]] = {}
    for name in PICKS if report.front else ():
        picks.setdefault(_RULES[name](report)[0].key, []).append(name)
    return {key: tuple(names) for key, names in picks.items()}
