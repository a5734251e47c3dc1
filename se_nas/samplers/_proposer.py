"""What `ParetoSampler` proposes, free of Optuna: from a grid and its history to the next point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from se_nas.errors import InfeasibleError
from se_nas.pareto import free_boxes, improvement, volume
from se_nas.samplers._acquisition import contenders, front_rows, reread
from se_nas.samplers._gp import Points, Surrogate
from se_nas.samplers._grid import Array, Grid, Index
from se_nas.samplers._local_search import local_search
from se_nas.samplers._observations import History, fit_count, thinned

ENUMERATE = 131_072
"""Largest space of which every point is weighed; beyond it, local search."""
SKETCH = 2_048
SIEVE = 512
"""Points of an enumerated space that are weighed in double precision: the best in single precision."""
SHORTLIST = 128
DRAWS = 32
EVALUATED = 64
COMPLETIONS = 512
"""Random points that are weighed if some parameters are given."""
CAP = 256
"""Readings that the process is conditioned on; more are thinned out."""
FIT_CAP = 128


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A point and what the model expects of it.

    Attributes:
        row: (n_params,).
        source: "initial", "model", "repeat", "spread" (nothing better is expected anywhere) or "again"
            (nothing new is left).
        improvement: expected improvement of the hypervolume, as a share of the front's; None without a model.
        mean, sd: prediction per objective, in the study's units; None without a model.
    """

    row: Index
    source: str
    improvement: float | None = None
    mean: tuple[float, ...] | None = None
    sd: tuple[float, ...] | None = None


class Proposer:
    """Proposes points of one grid in one study.

    Args:
        grid: the space with its known objectives.
        signs: (n_objectives,) 1 for an objective that the study maximises, -1 for one that it minimises.
        entropy: seed of everything random; together with the history and the trial's number it decides a proposal.
        repeats: whether points may be read again.
        initial: points of the initial design, counting what the history already has.
        listed: (n, n_params) points that come first, in order.
    """

    def __init__(
        self,
        grid: Grid,
        signs: Array,
        *,
        entropy: int,
        repeats: bool,
        initial: int,
        listed: Sequence[Index] = (),
    ) -> None:
        self.grid, self._signs, self._repeats = grid, signs, repeats
        self._entropy = entropy
        self._known = grid.known_columns
        self._modelled = [m for m in range(len(signs)) if m not in self._known]
        self._fits: dict[tuple[int, int], Array] = {}
        rng = np.random.default_rng([entropy, 0])
        self._pool: Index | None = None
        if grid.total <= ENUMERATE:
            pool = grid.everything()
            self._pool = pool[grid.allowed(pool)]
            sketch = self._pool
        else:
            sketch = grid.sample(SKETCH, rng)
            sketch = sketch[grid.allowed(sketch)]
        if not len(sketch):
            raise InfeasibleError(
                "no point of the space is allowed by `feasible`: loosen the budget or widen the space."
            )
        self._extremes = grid.extremes(sketch)
        sketch = np.concatenate([sketch, self._extremes])
        self._positions = grid.positions(sketch)
        self._sorted = np.sort(grid.functions(sketch), axis=0)
        self._pool_points = None if self._pool is None else self._points(self._pool)
        self._pool_costs = self._costs(self._pool if self._pool is not None else self._extremes)
        self._initial, self._listed = initial, listed

    def _points(self, rows: Index) -> Points:
        """Points with known functions as features of the trend, twice: by value, and by rank as accuracy saturates."""
        values = self.grid.functions(rows)
        columns = []
        for i, ordered in enumerate(self._sorted.T):
            spread = ordered.std()
            if spread > 0:
                columns.append((values[:, i] - ordered.mean()) / spread)
                ranks = np.interp(values[:, i], ordered, np.linspace(-1.7, 1.7, len(ordered)))
                columns.append(ranks)
        features = np.stack(columns, axis=1) / np.sqrt(2) if columns else np.zeros((len(rows), 0))
        return Points(index=rows, features=features)

    def _costs(self, rows: Index) -> Array:
        """(n, n_objectives) known objectives, signed to be maximised; 0 for the modelled ones."""
        out = np.zeros((len(rows), len(self._signs)))
        out[:, self._known] = self.grid.functions(rows)[:, : len(self._known)] * self._signs[self._known]
        return out

    def propose(
        self,
        history: History,
        number: int,
        *,
        fixed: Mapping[int, int] | None = None,
        others: Sequence[tuple[int, History]] = (),
    ) -> Proposal:
        """The next point.

        Args:
            history: what the study has found so far.
            number: of the trial that gets the point.
            fixed: index of each parameter that is given → index of its choice.
            others: trials that are being proposed at this moment, with the history that each of them sees. It
                decides what they propose, so that is worked out here instead of being proposed twice.
        """
        theirs = np.zeros((0, len(self.grid.names)), dtype=np.int64)
        for other, known in others:
            row = self._propose(known.joined_by(theirs, self.grid.keys(theirs)), other).row
            theirs = np.concatenate([theirs, row[None]])
        history = history.joined_by(theirs, self.grid.keys(theirs))
        return self._completed(history, number, fixed) if fixed else self._propose(history, number)

    def _propose(self, history: History, number: int) -> Proposal:
        for first in self._listed:
            if self._unasked(first[None], history)[0]:
                return Proposal(row=first, source="initial")
        rng = np.random.default_rng([self._entropy, 1, number])
        usable = self._usable(history)
        if len(history.keys) < self._initial or not self._enough(usable):
            row = self._spread(history, rng, corners=True)
            return self._again(history, rng) if row is None else Proposal(row=row, source="initial")
        return self._improve(history, usable, rng)

    def _enough(self, usable: NDArray[np.bool_]) -> bool:
        return bool(usable.sum() >= min(3, self._initial)) or not self._modelled

    def _completed(self, history: History, number: int, fixed: Mapping[int, int]) -> Proposal:
        """The best of some random points with the given choices."""
        rng = np.random.default_rng([self._entropy, 1, number])
        rows = self.grid.sample(COMPLETIONS, rng)
        rows[:, list(fixed)] = list(fixed.values())
        rows = self.grid.distinct(rows)
        free = rows[self.grid.allowed(rows) & self._unasked(rows, history)]
        if not len(free):
            return Proposal(row=rows[rng.integers(len(rows))], source="again")
        usable = self._usable(history)
        if not self._enough(usable):
            return Proposal(row=free[rng.integers(len(free))], source="initial")
        return self._improve(history, usable, rng, free)

    def _again(self, history: History, rng: np.random.Generator) -> Proposal:
        """A point once more, as every allowed one was asked for: of those that were read, one with fewest readings."""
        rows = history.rows if len(history.rows) else self._some(rng, 64)
        unique, counts = np.unique(rows, axis=0, return_counts=True)
        least = unique[counts == counts.min()]
        return Proposal(row=least[rng.integers(len(least))], source="again")

    def _some(self, rng: np.random.Generator, count: int) -> Index:
        """Random allowed points, at most ``count``."""
        if self._pool is not None:
            return self._pool[rng.permutation(len(self._pool))[:count]]
        rows = self.grid.sample(2 * count, rng)
        return np.concatenate([self._extremes, rows[self.grid.allowed(rows)][:count]])

    def _unasked(self, rows: Index, history: History) -> NDArray[np.bool_]:
        return np.array([key not in history.keys for key in self.grid.keys(rows)], dtype=bool)

    def _spread(self, history: History, rng: np.random.Generator, *, corners: bool) -> Index | None:
        """The point that is least known a priori; with ``corners``, the cheapest and most expensive come first."""
        if corners:
            free = self._extremes[self._unasked(self._extremes, history)]
            if len(free):
                return free[0]
        rows = self._some(rng, 512)
        rows = rows[self._unasked(rows, history)]
        if not len(rows) and self._pool is not None:
            rows = self._pool[self._unasked(self._pool, history)]
        if not len(rows):
            return None
        asked = np.concatenate([history.rows, history.pending])
        if not len(asked):
            return rows[0]
        blank = Surrogate(
            self._positions,
            self._points(asked[-CAP:]),
            np.zeros(len(asked[-CAP:])),
            by_cost=bool(self._known),
        )
        _, sd = blank.predict(self._points(rows))
        return rows[int(sd.argmax())]

    def _surrogate(self, history: History, usable: NDArray[np.bool_], column: int) -> Surrogate:
        chosen = np.flatnonzero(usable)
        known = fit_count(len(chosen))
        theta = self._fits.get((column, known))
        if theta is None:
            theta = self._gather(history, thinned(chosen[:known], FIT_CAP), column, None).theta
            self._fits[column, known] = theta
        return self._gather(history, thinned(chosen, CAP), column, theta)

    def _gather(self, history: History, chosen: Index, column: int, theta: Array | None) -> Surrogate:
        """The model of some readings; complete ones of a point are pooled, and their scatter tells the noise."""
        rows, values, extra = (
            history.rows[chosen],
            history.values[chosen, column],
            history.extra[chosen, column],
        )
        complete = extra == 0
        unique, member = np.unique(rows[complete], axis=0, return_inverse=True)
        member = member.reshape(-1)
        counts = np.bincount(member, minlength=len(unique)).astype(float)
        means = np.bincount(member, weights=values[complete], minlength=len(unique)) / counts
        within = float(((values[complete] - means[member]) ** 2).sum()), int(complete.sum() - len(unique))
        return Surrogate(
            self._positions,
            self._points(np.concatenate([unique, rows[~complete]])),
            np.concatenate([means, values[~complete]]),
            counts=np.concatenate([counts, np.ones(int((~complete).sum()))]),
            extra=np.concatenate([np.zeros(len(unique)), extra[~complete] ** 2]),
            within=within,
            by_cost=bool(self._known),
            theta=theta,
        )

    def _models(self, history: History, usable: NDArray[np.bool_]) -> dict[int, Surrogate]:
        return {column: self._surrogate(history, usable, column) for column in self._modelled}

    def _predict(self, models: dict[int, Surrogate], points: Points) -> tuple[Array, Array]:
        mean, sd = self._costs(points.index), np.zeros((len(points), len(self._signs)))
        for column, model in models.items():
            mean[:, column], sd[:, column] = model.predict(points)
        return mean, sd

    def predict(self, history: History, rows: Index) -> tuple[Array, Array]:
        """Mean and deviation (n, n_objectives) of the true objectives, in the directions of the study."""
        models = self._models(history, self._usable(history))
        mean, sd = self._predict(models, self._points(rows))
        return mean * self._signs, sd

    def contrast(self, history: History, plus: Index, minus: Index, column: int) -> tuple[float, float]:
        """Mean and deviation of a modelled objective's average over ``plus`` less that over ``minus``."""
        model = self._surrogate(history, self._usable(history), column)
        mean, sd = model.contrast(self._points(plus), self._points(minus))
        return mean * float(self._signs[column]), sd

    def _usable(self, history: History) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(history.values[:, self._modelled]).all(axis=1))

    def _improve(
        self,
        history: History,
        usable: NDArray[np.bool_],
        rng: np.random.Generator,
        among: Index | None = None,
    ) -> Proposal:
        """The point that promises most, of the whole space or of the points ``among``."""
        models = self._models(history, usable)
        read = self.grid.distinct(history.rows[~history.barred])
        evaluated = self.grid.distinct(np.concatenate([read, history.pending]))
        if not len(evaluated):
            evaluated = self.grid.distinct(history.rows)
        evaluated_points = self._points(evaluated)
        means, deviations = self._predict(models, evaluated_points)
        reference = self._reference(means)
        boxes, total = free_boxes(means, reference), volume(means, reference)
        # If all readings are equal, nothing says where to find better ones, so the space is covered.
        flat = bool(models) and not np.ptp(history.values[usable][:, self._modelled], axis=0).any()

        def weigh(rows: Index) -> Array:
            return improvement(*self._predict(models, self._points(rows)), *boxes)

        rows = among if among is not None else self._sieve(models, boxes)
        if rows is None:
            best = evaluated[front_rows(means)]
            rows, scores = local_search(self.grid, best, self._extremes, weigh, rng)
        else:
            scores = weigh(rows)
        picked = self._best_unasked(rows, scores, history)
        if among is None and (flat or not len(picked)):
            left = self._spread(history, rng, corners=False)
            if left is None:
                return self._again(history, rng)
            return self._proposal(models, left, "spread", 0.0, total if total > 0 else 1.0)
        shortlist = self._points(rows[picked])
        chosen = contenders(means, deviations, EVALUATED)
        scores = self._noisy(models, evaluated_points[chosen], shortlist, reference, rng)
        place = int(scores.argmax())
        gain, row = float(scores[place]), shortlist.index[place]
        if self._repeats and models and len(read) and among is None:
            place, promised = self._reread(models, read, reference, history)
            if promised > gain:
                return self._proposal(models, read[place], "repeat", promised, total)
        if gain <= 1e-9 * max(total, 1e-300) and among is None:
            left = self._spread(history, rng, corners=False)
            return self._proposal(models, row if left is None else left, "spread", gain, total)
        return self._proposal(models, row, "model", gain, total)

    def _best_unasked(self, rows: Index, scores: Array, history: History) -> Index:
        """Indices of the `SHORTLIST` best points that nobody has asked for, best first."""
        order = np.argsort(-scores, kind="stable")
        picked: list[int] = []
        for start in range(0, len(order), 2 * SHORTLIST):
            some = order[start : start + 2 * SHORTLIST]
            picked += some[self._unasked(rows[some], history)].tolist()
            if len(picked) >= SHORTLIST:
                break
        return np.array(picked[:SHORTLIST], dtype=np.int64)

    def _proposal(
        self, models: dict[int, Surrogate], row: Index, source: str, gain: float, total: float
    ) -> Proposal:
        mean, sd = self._predict(models, self._points(row[None]))
        return Proposal(
            row=row,
            source=source,
            improvement=gain / total if total > 0 else None,
            mean=tuple((mean[0] * self._signs).tolist()),
            sd=tuple(sd[0].tolist()),
        )

    def _reread(
        self, models: dict[int, Surrogate], read: Index, reference: Array, history: History
    ) -> tuple[int, float]:
        """Index of the point of ``read`` whose next reading promises most, and how much that is."""
        means, deviations = self._predict(models, self._points(read))
        numbers = self.grid.identify(read)
        # What was stopped early is not started again: the rule that stopped it judged the same promise.
        whole = history.rows[(history.extra[:, self._modelled] == 0).all(axis=1)]
        free = np.isin(numbers, self.grid.identify(whole)) & ~np.isin(
            numbers, self.grid.identify(history.pending)
        )
        rows = contenders(means, deviations, EVALUATED)
        noise = np.array([models[m].noise if m in models else 0.0 for m in range(len(self._signs))])
        return reread(means, deviations, noise, reference, rows[free[rows]])

    def _noisy(
        self,
        models: dict[int, Surrogate],
        evaluated: Points,
        at: Points,
        reference: Array,
        rng: np.random.Generator,
    ) -> Array:
        """Improvement, averaged over draws of the true values at ``evaluated``, which includes pending points."""
        values = np.repeat(self._costs(evaluated.index)[None], DRAWS, axis=0)
        means = np.repeat(self._costs(at.index)[None], DRAWS, axis=0)
        sd = np.zeros((len(at), len(self._signs)))
        for column, model in models.items():
            normal = rng.standard_normal((DRAWS, len(evaluated)))
            values[..., column], means[..., column], sd[:, column] = model.draw(evaluated, at, normal)
        total = np.zeros(len(at))
        for drawn, mean in zip(values, means, strict=True):
            total += improvement(mean, sd, *free_boxes(drawn, reference))
        return total / DRAWS

    def _reference(self, means: Array) -> Array:
        """The worst value of every known objective; a little below the worst mean of a modelled one."""
        out = np.empty(len(self._signs))
        for i, column in enumerate(self._known):
            ordered = self._signs[column] * self._sorted[:, i]
            out[column] = ordered.min() - 1e-9 * np.ptp(ordered)
        for column in self._modelled:
            worst, best = means[:, column].min(), means[:, column].max()
            out[column] = worst - 0.1 * max(best - worst, 1e-12)
        return out

    def _sieve(self, models: dict[int, Surrogate], boxes: tuple[Array, Array]) -> Index | None:
        """The most promising points of an enumerated space; None if it is too large to enumerate."""
        if self._pool is None or self._pool_points is None or len(self._pool) <= SIEVE or not models:
            return self._pool
        mean, sd = self._pool_costs.copy(), np.zeros_like(self._pool_costs)
        for column, model in models.items():
            mean[:, column], sd[:, column] = model.rough(self._pool_points)
        kept = np.argpartition(-improvement(mean, sd, *boxes), SIEVE)[:SIEVE]
        return self._pool[np.sort(kept)]
