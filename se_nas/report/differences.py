"""Differences between candidates, paired by seed where they share seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from se_nas.report.candidates import Candidate
from se_nas.report.pareto_report import ParetoReport


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A difference with half of its 95 % interval; None where there are no repeats to tell it from."""

    value: float
    half_width: float | None

    def signed(self, digits: int) -> str:
        """``+0.6±0.2``."""
        text = f"{self.value:+.{digits}f}"
        return text if self.half_width is None else f"{text}±{self.half_width:.{digits}f}"

    @property
    def interval(self) -> tuple[float, float] | None:
        return (
            None if self.half_width is None else (self.value - self.half_width, self.value + self.half_width)
        )


def seed_differences(candidate: Candidate, other: Candidate) -> list[float]:
    """Differences of counted accuracies, one for each seed that both have."""
    own, theirs = candidate.by_seed, other.by_seed
    return [own[seed] - theirs[seed] for seed in sorted(own.keys() & theirs.keys())]


def accuracy_gain(report: ParetoReport, candidate: Candidate, other: Candidate) -> Gain | None:
    """Points of accuracy over ``other``: the mean of paired differences where at least two seeds are shared.

    Its interval rests on ``report.residual_noise``. Without shared seeds the means are compared, with the
    scatter between seeds.
    """
    if candidate.accuracy is None or other.accuracy is None:
        return None
    paired = seed_differences(candidate, other)
    if len(paired) > 1 and report.residual_noise is not None:
        half_width = math.sqrt(2) * report.residual_noise.half_width(len(paired))
        return Gain(value=fmean(paired), half_width=half_width)
    half_width = None
    if report.noise is not None:
        count = 1 / (1 / len(candidate.counted) + 1 / len(other.counted))
        half_width = report.noise.half_width(count)
    return Gain(value=candidate.accuracy - other.accuracy, half_width=half_width)


def latency_gain(candidate: Candidate) -> Gain | None:
    """Added latency in percent of the plain backbone, with the interval of the measured ratio."""
    if candidate.latency_ratio is None or math.isnan(candidate.latency_ratio):
        return None
    interval = candidate.latency_interval
    half_width = 100 * (interval[1] - interval[0]) / 2 if interval else None
    return Gain(value=100 * (candidate.latency_ratio - 1), half_width=half_width)
