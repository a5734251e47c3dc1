"""What is believed of the objectives after a history: the known ones exactly, a model of each of the others."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from se_nas.samplers._acquisition import front_rows
from se_nas.samplers._conditions import Conditions
from se_nas.samplers._grid import Array, Grid, Index
from se_nas.samplers._likelihood import Points
from se_nas.samplers._models import Learned, Model, equivalent_readings, gathered, says_more
from se_nas.samplers._observations import History, fit_count, thinned
from se_nas.samplers._paired_gp import PairedSurrogate
from se_nas.samplers._reachable import Reachable

CAP = 256
"""Readings that a process is conditioned on; more are thinned out."""
FIT_CAP = 128


class Belief:
    """Predictions of all objectives. Points are `Reachable`'s, and objectives are maximised, unless it says otherwise.

    Args:
        space: the points that trials can ask for.
        history: what the study has found.
        usable: (n_readings,) which of its readings teach the models.
        models: number of an objective that is not known → its model.
    """

    def __init__(
        self, space: Reachable, history: History, usable: NDArray[np.bool_], models: dict[int, Model]
    ) -> None:
        self.space, self.models = space, models
        self._history, self._usable = history, usable

    def predict(self, points: Points) -> tuple[Array, Array]:
        """Mean and deviation (n, n_objectives) of the true objectives."""
        mean = self.space.costs(self.space.rows(points))
        sd = np.zeros_like(mean)
        for column, model in self.models.items():
            mean[:, column], sd[:, column] = model.predict(points)
        return mean, sd

    def at(self, rows: Index) -> tuple[Array, Array]:
        """As `predict` for rows (n, n_params), in the directions of the study."""
        mean, sd = self.predict(self._points(rows))
        return mean * self.space.signs, sd

    def contrast(self, plus: Index, minus: Index, column: int) -> tuple[float, float]:
        """Mean and deviation of a modelled objective's average over the rows ``plus`` less that over ``minus``.

        It is in the direction of the study.
        """
        mean, sd = self.models[column].contrast(self._points(plus), self._points(minus))
        return mean * float(self.space.signs[column]), sd

    def trust(self, rows: Index) -> list[float]:
        """How far each estimate of the first modelled objective is trusted over ``rows``, see `ParetoSampler.trust`."""
        if not self.models:
            return [0.0] * self.space.grid.num_priors
        return [float(share) for share in self.models[min(self.models)].trusts(self.space.points(rows))]

    def learned(self, column: int) -> Learned:
        """What the evidence about a modelled objective has come to."""
        distinct, history, usable = self.space.grid.distinct, self._history, self._usable
        read = distinct(history.rows[usable & ~history.barred])
        points = self.space.points(read if len(read) else distinct(history.rows))
        front = points[front_rows(self.predict(points)[0])]
        model, sign = self.models[column], float(self.space.signs[column])
        found = model if isinstance(model, PairedSurrogate) else None
        return Learned(
            readings=int((~np.isnan(history.evidence[usable, column])).sum()),
            correlation=None if found is None else found.correlation() * sign,
            noise_correlation=None if found is None else found.noise_correlation() * sign,
            equivalent_readings=equivalent_readings(model, front),
        )

    def _points(self, rows: Index) -> Points:
        return self.space.points(self.space.canonical(rows))


class Fits:
    """Models of one grid's objectives. What was fitted is kept, so that a refit comes only with more readings.

    Args:
        grid: the space with its known objectives.
        objectives: how many there are.
    """

    def __init__(self, grid: Grid, objectives: int) -> None:
        self._by_cost = bool(grid.known_columns)
        self.modelled = [column for column in range(objectives) if column not in grid.known_columns]
        self._kept: dict[tuple[int, Conditions, bytes], tuple[bool, Array]] = {}

    def usable(self, history: History) -> NDArray[np.bool_]:
        """(n_readings,) which readings have every modelled objective."""
        return np.asarray(np.isfinite(history.values[:, self.modelled]).all(axis=1))

    def belief(self, space: Reachable, history: History) -> Belief:
        """What is believed after ``history``; ``space`` is that of its conditions."""
        usable = self.usable(history)
        chosen = np.flatnonzero(usable)
        models = {column: self._model(space, history, chosen, column) for column in self.modelled}
        return Belief(space, history, usable, models)

    def _model(self, space: Reachable, history: History, chosen: Index, column: int) -> Model:
        some = thinned(chosen[: fit_count(len(chosen))], FIT_CAP)
        # Workers that see equally many readings need not see the same ones.
        content = hashlib.blake2b(digest_size=16)
        for part in (history.rows, history.values, history.extra, history.evidence):
            content.update(part[some].tobytes())
        of = column, history.conditions, content.digest()
        fit = self._kept.get(of)
        if fit is None:
            paired = says_more(history, some, column)
            fitted = gathered(space, history, some, column, paired=paired, by_cost=self._by_cost)
            fit = self._kept[of] = paired, fitted.theta
        paired, theta = fit
        some = thinned(chosen, CAP)
        return gathered(space, history, some, column, paired=paired, by_cost=self._by_cost, theta=theta)
