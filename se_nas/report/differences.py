"""Differences to another candidate, each with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from se_nas.report.candidates import Candidate
from se_nas.report.pareto_report import ParetoReport


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A difference with half of its 95 % interval; None where there are no repeats to tell it from."""

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


def latency_gain(candidate: Candidate) -> Gain | None:
    """Added latency in percent of the plain backbone, with the interval of the measured ratio."""
    if candidate.latency_ratio is None or math.isnan(candidate.latency_ratio):
        return None
    interval = candidate.latency_interval
    half_width = 100 * (interval[1] - interval[0]) / 2 if interval else None
    return Gain(value=100 * (candidate.latency_ratio - 1), half_width=half_width)
