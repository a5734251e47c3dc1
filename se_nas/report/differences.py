"""Differences to another candidate, each with its interval, as numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass

from se_nas.objectives import Objective
from se_nas.report.candidates import Candidate
from se_nas.report.pareto_report import ParetoReport
from se_nas.run import FINAL


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A difference with half of its 95 % interval, which is None if there are no repeats to take it from."""

    value: float
    half_width: float | None

    def signed(self, digits: int) -> str:
        """``+0.6±0.2``."""
        text = f"{self.value:+.{digits}f}".replace("-", "−")
        return text if self.half_width is None else f"{text}±{self.half_width:.{digits}f}"

    @property
    def interval(self) -> tuple[float, float] | None:
        return (
            None if self.half_width is None else (self.value - self.half_width, self.value + self.half_width)
        )


def accuracy_gain(report: ParetoReport, candidate: Candidate, other: Candidate) -> Gain | None:
    """Points of accuracy over ``other``, paired by the seeds that both have."""
    if candidate.accuracy is None or other.accuracy is None:
        return None
    value = candidate.accuracy - other.accuracy
    return Gain(value=value, half_width=report.deviation(candidate, other))


def cost_ratio(report: ParetoReport, candidate: Candidate, cost: Objective) -> float | None:
    """A cost as a multiple of the plain backbone's: the measured ratio if there is one, or else the quotient."""
    reading = candidate.costs.get(cost.name)
    if reading is None or reading.ratio is not None:
        return None if reading is None else reading.ratio
    plain = None if report.plain is None else report.plain.value(cost)
    return reading.value / plain if plain else None


def cost_gain(report: ParetoReport, candidate: Candidate, cost: Objective) -> Gain | None:
    """Added cost in percent of the plain backbone's, with the interval of the measured ratio if it has one."""
    ratio = cost_ratio(report, candidate, cost)
    if ratio is None:
        return None
    interval = candidate.costs[cost.name].interval
    half_width = 100 * (interval[1] - interval[0]) / 2 if interval else None
    return Gain(value=100 * (ratio - 1), half_width=half_width)


def describe(report: ParetoReport, candidate: Candidate) -> str:
    """``SE in stages 3 and 4 at γ=8: +0.6±0.2 points for 1.9±0.3 % latency``, against the plain backbone.

    ± is half of the 95 % interval; without repeats there is none, and the text says so.
    """
    if report.plain is None or candidate.key == report.plain.key:
        accuracy = "no accuracy" if candidate.accuracy is None else f"{candidate.accuracy:.2f} %"
        return f"{candidate.placement}: {accuracy}"
    parts = []
    if candidate.accuracy is None and candidate.selection_accuracy is not None:
        tried = any(reading.phase == FINAL for reading in candidate.readings)
        why = "no retraining has finished" if tried else "not retrained"
        parts.append(f"{candidate.selection_accuracy:.2f} % in the search ({why})")
    gain = accuracy_gain(report, candidate, report.plain)
    if gain is not None:
        parts.append(f"{gain.signed(1)} points{'' if gain.half_width else ' (no repeats, so no interval)'}")
    cost = report.costs[0]
    added = cost_gain(report, candidate, cost)
    if added is not None:
        amount = f"{added.value:.2g}".replace("-", "−") if cost.exact else added.signed(1).removeprefix("+")
        parts.append(f"{amount} % {cost.title}")
    return f"{candidate.placement}: {' for '.join(parts)}" if parts else candidate.placement
