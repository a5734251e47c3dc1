"""``curves``: predicts the final accuracy and stops candidates that will not join the front.

A model of learning curves is fitted on the finished candidates of the run. From the readings so far, the costs
and the features (how much SE) it predicts the accuracy at the end. A candidate is stopped if its chance to join
the front at its cost is small, or if it would hardly move the front: its expected improvement of the
hypervolume is a negligible share of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from se_nas.early_stopping._curve_model import CurveModel, in_percent, stretched
from se_nas.early_stopping.records import Record, by_network, finished, is_no_more_expensive
from se_nas.early_stopping.rule import Decision
from se_nas.errors import ConfigError
from se_nas.pareto import free_boxes, front_of, improvement, volume

Array = NDArray[np.float64]
MAX_OBJECTIVES = 3
"""Limit of the expected improvement of the hypervolume; with more objectives the chance alone decides."""
MIN_FINISHED = 3
"""Finished candidates that a prediction needs."""


@dataclass(frozen=True, kw_only=True)
class LearningCurves:
    """Stops what a model of learning curves gives little chance.

    Attributes:
        threshold: chance to join the front below which a candidate is stopped.
        negligible: expected improvement of the hypervolume below which it is stopped, as a share of the
            hypervolume of the finished candidates. That is measured above their worst accuracy and up to a
            tenth of the range beyond the greatest cost of any candidate. 0: nothing is stopped for this reason.
        min_finished: finished candidates before anything is stopped, at least 3.

    Raises:
        ConfigError: an option is invalid.
    """

    threshold: float = 0.1
    negligible: float = 0.001
    min_finished: int = 6

    def __post_init__(self) -> None:
        for name in ("threshold", "negligible"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be a share between 0 and 1.")
        if not isinstance(self.min_finished, int) or self.min_finished < MIN_FINISHED:
            raise ConfigError(
                f"min_finished is {self.min_finished!r}; it must be an integer of at least {MIN_FINISHED}."
            )

    def decide(self, record: Record, epoch: int, others: Sequence[Record], *, reduction: float) -> Decision:
        done = finished(others)
        learned = [r for r in done if epoch in r.rungs]
        if len(learned) < self.min_finished:
            return Decision(stop=False, reason=f"{len(learned)} of {self.min_finished} finished candidates")
        networks = list(by_network(done).values())
        cheaper = [r.final for r in networks if r.final is not None and is_no_more_expensive(r, record)]
        if not cheaper:
            return Decision(stop=False, reason="no finished candidate is as cheap", probability=1.0)
        z, dz, chance = _fit(learned, epoch).predict(
            _row(record, epoch), stretched(record.rungs[epoch]), level=stretched(max(cheaper))
        )
        mean, sd = in_percent(z, dz)
        gain = _gain(record, mean, sd, networks, others)
        reason = (
            f"epoch {epoch}: {mean:.2f} ± {sd:.2f} expected, {max(cheaper):.2f} needed, chance {chance:.3f}"
            f" to join the front, which would grow by {100 * gain:.3g} %"
        )
        stop = chance < self.threshold or gain < self.negligible
        return Decision(stop=stop, reason=reason, probability=chance)


def extrapolate(record: Record, records: Sequence[Record]) -> tuple[float, float] | None:
    """Mean and deviation in percent of the accuracy that a candidate would reach at the end.

    Args:
        record: the candidate with its readings so far; those that are not finite are left out.
        records: the run's; the finished ones teach the model.

    Returns:
        None without a reading, or with fewer than `MIN_FINISHED` finished candidates.
    """
    reached = [rung for rung, accuracy in record.rungs.items() if math.isfinite(accuracy)]
    done = finished(records)
    if not reached or len(done) < MIN_FINISHED:
        return None
    last = max(reached)
    z, dz, _ = _fit(done, last).predict(_row(record, last), stretched(record.rungs[last]))
    return in_percent(z, dz)


def _fit(records: Sequence[Record], epoch: int) -> CurveModel:
    """The model of what finished candidates still gained after ``epoch``."""
    usable = [r for r in records if math.isfinite(r.rungs.get(epoch, math.nan)) and r.final is not None]
    rows = np.array([_row(r, epoch) for r in usable])
    return CurveModel(rows, np.array([stretched(r.final or 0.0) - stretched(r.rungs[epoch]) for r in usable]))


def _row(record: Record, epoch: int) -> list[float]:
    """What the rest of a curve may depend on: the level, the last gain, costs and features."""
    before = [rung for rung, accuracy in record.rungs.items() if rung < epoch and math.isfinite(accuracy)]
    at = stretched(record.rungs[epoch])
    gain = at - stretched(record.rungs[max(before)]) if before else 0.0
    return [at, gain, *record.candidate.costs, *record.candidate.features]


def _gain(
    record: Record, mean: float, sd: float, networks: Sequence[Record], others: Sequence[Record]
) -> float:
    """Expected improvement of the finished networks' hypervolume, as a share of it; infinite if that is 0."""
    values = np.array([[r.final, *(-cost for cost in r.candidate.costs)] for r in networks], dtype=float)
    me = np.array([[mean, *(-cost for cost in record.candidate.costs)]])
    if values.shape[1] > MAX_OBJECTIVES:
        return math.inf
    costs = np.array([r.candidate.costs for r in [record, *others]])
    # A little beyond the greatest cost, or the best of the expensive ones would count for nothing.
    reference = np.array([values[:, 0].min(), *-(costs.max(axis=0) + 0.1 * np.ptp(costs, axis=0))])
    whole = volume(front_of(values), reference)
    deviation = np.zeros_like(me)
    deviation[0, 0] = sd
    gain = float(improvement(me, deviation, *free_boxes(values, reference))[0])
    return gain / whole if whole > 0 else math.inf
