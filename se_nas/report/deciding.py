"""What to do after a run: use one of its networks, or keep the plain backbone."""

from __future__ import annotations

import math

from se_nas.pareto import SeedModel
from se_nas.report.candidates import Candidate
from se_nas.report.decision import KEEP, OPEN, RESOLUTION, USE, Decision, seeds_needed, simultaneous
from se_nas.report.differences import accuracy_gain, cost_ratio, describe
from se_nas.report.pareto_report import ParetoReport


def decide(report: ParetoReport) -> Decision:
    """The verdict on a run, from its counted readings."""
    if not report.front:
        return Decision(choice=OPEN, headline="Nothing to decide yet: no candidate has finished.")
    plain = report.plain
    best = max(report.front, key=lambda member: member.accuracy or -math.inf)
    if plain is None or plain.accuracy is None:
        return Decision(
            choice=OPEN,
            headline="Undecided: the plain backbone was not evaluated, so no gain is known.",
            details=f"Most accurate: {describe(report, best)}.",
        )
    rivals = [candidate for candidate in report.counted if candidate.key != plain.key]
    if not rivals:
        return Decision(choice=OPEN, headline="Nothing to decide yet: only the plain backbone has finished.")
    measured = [candidate for candidate in rivals if report.deviation(candidate, plain) is not None]
    if report.noise is None or not measured:
        return Decision(
            choice=KEEP,
            candidate=plain,
            headline="Keep the plain backbone for now: each accuracy is a single reading, so differences may be"
            " due to chance.",
            details=f"{_leader(report, rivals, plain)}Two seeds each would show how much is chance.",
            comparisons=len(rivals),
        )
    return _weigh(report, report.noise, plain, measured)


def _weigh(report: ParetoReport, noise: SeedModel, plain: Candidate, rivals: list[Candidate]) -> Decision:
    places = [report.places[candidate.key] for candidate in rivals]
    widening = simultaneous(noise, report.places[plain.key], places)
    gains = {candidate.key: accuracy_gain(report, candidate, plain) for candidate in rivals}

    def value(candidate: Candidate) -> float:
        gain = gains[candidate.key]
        return -math.inf if gain is None else gain.value

    better = [
        candidate
        for candidate in rivals
        if (gain := gains[candidate.key]) is not None and gain.value > widening * (gain.half_width or 0.0)
    ]
    number = len(rivals)
    which = "both" if number == 2 else f"all {number}"
    rests = (
        "At 95 % confidence."
        if number == 1
        else f"At 95 % confidence for {which} comparisons together, for which intervals are {widening:.1f}"
        " times as wide as for a single one."
    )
    if better:
        winner = max(better, key=value)
        return Decision(
            choice=USE,
            candidate=winner,
            headline=f"{'Use' if report.final else 'Provisionally, use'} {describe(report, winner)};"
            " significantly more accurate than the plain backbone.",
            details=f"{rests}{_cheapest(report, better, winner)}",
            comparisons=number,
            widening=widening,
        )
    best = max(rivals, key=value)
    now = min(len(best.by_seed), len(plain.by_seed))
    more = seeds_needed(noise, report.places[best.key], report.places[plain.key], now=now)
    return Decision(
        choice=KEEP,
        candidate=plain,
        headline="Keep the plain backbone: nothing is significantly more accurate; "
        + _resolution(more, report.manifest.data.num_val),
        details=f"{_leader(report, rivals, plain)}{rests} {_power(noise, more)}".rstrip(),
        comparisons=number,
        widening=widening,
        more_seeds=more,
    )


def _leader(report: ParetoReport, rivals: list[Candidate], plain: Candidate) -> str:
    """Who is the most accurate all the same; empty if that is the plain backbone."""
    best = max(rivals, key=lambda candidate: candidate.accuracy or -math.inf)
    if (best.accuracy or 0.0) <= (plain.accuracy or 0.0):
        return ""
    return f"Most accurate: {describe(report, best)}. "


def _cheapest(report: ParetoReport, better: list[Candidate], winner: Candidate) -> str:
    """The cheapest of the significantly better ones, if that is another one."""
    cost = report.costs[0]
    known = [candidate for candidate in better if cost_ratio(report, candidate, cost) is not None]
    cheapest = min(known, key=lambda candidate: candidate.value(cost) or math.inf, default=winner)
    if cheapest.key == winner.key:
        return ""
    return f" The cheapest that is significantly more accurate is {describe(report, cheapest)}."


def _resolution(more: int | None, images: int) -> str:
    if more is None:
        return f"{images:,} validation images are too few to resolve {RESOLUTION:g} point."
    if more == 0:
        return f"a gain of {RESOLUTION:g} point would probably have shown."
    return f"about {more} more seed{'' if more == 1 else 's'} each would resolve {RESOLUTION:g} point."


def _power(noise: SeedModel, more: int | None) -> str:
    """What the number of seeds rests on."""
    if more is None:
        return ""
    return (
        f"The number of seeds is for finding a true gain of {RESOLUTION:g} point with 80 % probability in one"
        f" comparison paired by seed, given the deviation of {noise.sd:.2f} points per reading that was seen"
        f" ({noise.dof:g} degree{'' if noise.dof == 1 else 's'} of freedom)."
    )
