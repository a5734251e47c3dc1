"""How a search went: hypervolume as it grew, and what selection promised against what retraining delivered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from se_nas.pareto import hypervolume, non_dominated, reference_point, selection_bias
from se_nas.report.candidates import Candidate
from se_nas.report.differences import Gain
from se_nas.report.pareto_report import ParetoReport
from se_nas.run import TrialRow


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Hypervolume of the search's readings after so many ``evaluations`` (trials, whatever their end),
    ``epochs`` of training and ``seconds`` of the run."""

    evaluations: int
    epochs: int
    seconds: float | None
    hypervolume: float


def progress(report: ParetoReport) -> list[Progress]:
    """One point per search trial that ended, in the order in which they ended; readings as the search saw them.

    Runs of version 0.1.0 have only the time of day, which counts interruptions too and may have jumped.
    The retraining of finalists is left out: it changes what is known of the front, not what was found.
    """
    ended = [
        (reading, candidate)
        for candidate in report.candidates
        for reading in candidate.readings
        if reading.phase == "search" and reading.state not in ("running", "infeasible")
    ]
    moments = _moments([reading for reading, _ in ended])
    order = sorted(range(len(ended)), key=lambda index: (moments[index] or 0.0, ended[index][0].number))
    ended, moments = [ended[index] for index in order], [moments[index] for index in order]
    values = [_values(report, reading, candidate) for reading, candidate in ended]
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return []
    reference = reference_point([known], report.directions)
    points: list[Progress] = []
    front = np.empty((0, known.shape[1]))
    volume, epochs = 0.0, 0
    for index, ((reading, _), value, seconds) in enumerate(zip(ended, values, moments, strict=True)):
        epochs += reading.epochs
        if value is not None and not _covered(value, front, report.directions):
            joined = np.vstack([front, value])
            front = joined[non_dominated(joined, report.directions)]
            volume = hypervolume(front, reference, report.directions)
        points.append(Progress(evaluations=index + 1, epochs=epochs, seconds=seconds, hypervolume=volume))
    return points


def _covered(value: Sequence[float], front: np.ndarray, directions: Sequence[str]) -> bool:
    """Whether a point of the front is at least as good in everything, so that the value adds nothing."""
    sign = np.array([1.0 if direction == "maximize" else -1.0 for direction in directions])
    return bool((sign * front >= sign * np.array(value)).all(axis=1).any())


def _moments(readings: Sequence[TrialRow]) -> list[float | None]:
    """Seconds of the run at which each ended."""
    if all(reading.elapsed is not None for reading in readings):
        return [reading.elapsed for reading in readings]
    first = min((reading.started for reading in readings if reading.started is not None), default=None)
    return [
        None if first is None or reading.finished is None else (reading.finished - first).total_seconds()
        for reading in readings
    ]


def _values(report: ParetoReport, reading: TrialRow, candidate: Candidate) -> list[float] | None:
    if not reading.complete:
        return None
    values = [reading.accuracy, *(candidate.value(cost) for cost in report.costs)]
    return None if any(value is None for value in values) else [float(value or 0) for value in values]


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """Selection's bias (winner's curse): final minus search accuracy of the candidates that were retrained.

    ``selected`` is for those that the search chose by their readings, ``baselines`` for those that are always
    retrained, whatever they read, and so are not selected: the difference between the two is the bias without
    what a longer schedule changes for all.
    """

    selected: Gain | None
    baselines: Gain | None
    same_schedule: bool


def retrained(report: ParetoReport) -> list[Candidate]:
    """Candidates with both a search and a final reading, in order of their trials."""
    return [candidate for candidate in report.candidates if candidate.searched and candidate.final]


def retraining(report: ParetoReport) -> Retraining | None:
    """None if nothing was retrained."""
    both = retrained(report)
    if not both:
        return None
    schedules = {
        reading.epochs_planned for candidate in both for reading in (*candidate.searched, *candidate.final)
    }
    return Retraining(
        selected=_mean_change([candidate for candidate in both if not candidate.baselines]),
        baselines=_mean_change([candidate for candidate in both if candidate.baselines]),
        same_schedule=len(schedules) == 1,
    )


def _mean_change(candidates: list[Candidate]) -> Gain | None:
    if not candidates:
        return None
    finals = [fmean(reading.accuracy or 0.0 for reading in candidate.final) for candidate in candidates]
    searched = [candidate.selection_accuracy or 0.0 for candidate in candidates]
    bias, half_width = selection_bias(searched, finals)
    return Gain(value=-bias, half_width=half_width if math.isfinite(half_width) else None)
