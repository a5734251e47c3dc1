"""What `ParetoSampler` proposes, free of Optuna: from a grid and its history to the next point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from se_nas.pareto import free_boxes, improvement, volume
from se_nas.samplers._acquisition import contenders, front_rows, reread
from se_nas.samplers._conditions import Conditions
from se_nas.samplers._gp import Surrogate
from se_nas.samplers._grid import Array, Grid, Index
from se_nas.samplers._likelihood import Points
from se_nas.samplers._local_search import local_search
from se_nas.samplers._models import Learned, Model, equivalent_readings, gathered, says_more
from se_nas.samplers._observations import History, fit_count, thinned
from se_nas.samplers._paired_gp import PairedSurrogate
from se_nas.samplers._reachable import Reachable

SIEVE = 512
"""Points of an enumerated space that are weighed in double precision: the best in single precision."""
SHORTLIST = 128
DRAWS = 32
EVALUATED = 64
COMPLETIONS = PROBES = 512
"""Random points that are weighed if some parameters are given, or if one was never asked for."""
TRUSTED = 2_048
"""Points over which it is judged how far estimates are trusted."""
CAP = 256
"""Readings that the process is conditioned on; more are thinned out."""
FIT_CAP = 128
MOST_SPACES = 4
"""Spaces that are kept: workers that ask at the same instant may know different conditions."""


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
        telling: of every parameter the choices that others may depend on, of which all were had before a
            parameter counts as never asked for; None: all of them.
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
        telling: Sequence[Index] | None = None,
    ) -> None:
        self.grid, self._signs, self._repeats = grid, signs, repeats
        self._entropy = entropy
        self._known = grid.known_columns
        self._modelled = [m for m in range(len(signs)) if m not in self._known]
        self._spaces: dict[Conditions, Reachable] = {}
        self._fits: dict[tuple[int, int, Conditions], tuple[bool, Array]] = {}
        self._initial, self._listed = initial, listed
        self._telling = [np.arange(size) for size in grid.sizes] if telling is None else telling
        self._reach(Conditions())

    def _reach(self, conditions: Conditions) -> None:
        """Look at the points that trials can ask for under ``conditions``."""
        found = self._spaces.get(conditions)
        if found is None:
            found = Reachable(self.grid, conditions, self._signs, self._entropy)
            while len(self._spaces) >= MOST_SPACES:
                del self._spaces[next(iter(self._spaces))]
            self._spaces[conditions] = found
        self._space = found

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
            row = self._propose(self._joined(known, theirs), other).row
            theirs = np.concatenate([theirs, row[None]])
        history = self._joined(history, theirs)
        return self._completed(history, number, fixed) if fixed else self._propose(history, number)

    def _joined(self, history: History, rows: Index) -> History:
        """The history with ``rows`` (n, n_params) also in progress."""
        self._reach(history.conditions)
        return history.joined_by(self._space.canonical(rows), self._space.keys(rows))

    def _propose(self, history: History, number: int) -> Proposal:
        self._reach(history.conditions)
        for first in self._listed:
            if self._unasked(first[None], history)[0]:
                return Proposal(row=first, source="initial")
        probe = self.probe(history)
        if probe is not None:
            return Proposal(row=probe, source="initial")
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
        rows = self._space.completions(fixed, rng, COMPLETIONS)
        free = rows[self._unasked(rows, history)][:COMPLETIONS]
        if not len(free):
            return Proposal(row=rows[0], source="again")
        usable = self._usable(history)
        if not self._enough(usable):
            return Proposal(row=free[rng.integers(len(free))], source="initial")
        return self._improve(history, usable, rng, free)

    def _again(self, history: History, rng: np.random.Generator) -> Proposal:
        """A point once more, as every allowed one was asked for: of those that were read, one with fewest readings."""
        rows = history.rows if len(history.rows) else self._space.some(rng, 64)
        unique, counts = np.unique(rows, axis=0, return_counts=True)
        least = unique[counts == counts.min()]
        return Proposal(row=least[rng.integers(len(least))], source="again")

    def _unasked(self, rows: Index, history: History) -> NDArray[np.bool_]:
        return np.array([key not in history.keys for key in self._space.keys(rows)], dtype=bool)

    def _spread(self, history: History, rng: np.random.Generator, *, corners: bool) -> Index | None:
        """The point that is least known a priori; with ``corners``, the cheapest and most expensive come first."""
        if corners:
            free = self._space.extremes[self._unasked(self._space.extremes, history)]
            if len(free):
                return free[0]
        rows = self._space.some(rng, 512)
        rows = rows[self._unasked(rows, history)]
        if not len(rows) and self._space.pool is not None:
            rows = self._space.pool[self._unasked(self._space.pool, history)]
        if not len(rows):
            return None
        asked = np.concatenate([history.rows, history.pending])
        if not len(asked):
            return rows[0]
        blank = Surrogate(
            self._space.positions,
            self._space.points(asked[-CAP:]),
            np.zeros(len(asked[-CAP:])),
            by_cost=bool(self._known),
        )
        _, sd = blank.predict(self._space.points(rows))
        return rows[int(sd.argmax())]

    def _surrogate(self, history: History, usable: NDArray[np.bool_], column: int) -> Model:
        chosen = np.flatnonzero(usable)
        known = fit_count(len(chosen))
        fit = self._fits.get((column, known, history.conditions))
        by_cost = bool(self._known)
        if fit is None:
            some = thinned(chosen[:known], FIT_CAP)
            paired = says_more(history, some, column)
            fit = paired, gathered(self._space, history, some, column, paired=paired, by_cost=by_cost).theta
            self._fits[column, known, history.conditions] = fit
        paired, theta = fit
        some = thinned(chosen, CAP)
        return gathered(self._space, history, some, column, paired=paired, by_cost=by_cost, theta=theta)

    def _models(self, history: History, usable: NDArray[np.bool_]) -> dict[int, Model]:
        return {column: self._surrogate(history, usable, column) for column in self._modelled}

    def _predict(self, models: dict[int, Model], points: Points) -> tuple[Array, Array]:
        mean = self._space.costs(self._space.rows(points))
        sd = np.zeros_like(mean)
        for column, model in models.items():
            mean[:, column], sd[:, column] = model.predict(points)
        return mean, sd

    def predict(self, history: History, rows: Index) -> tuple[Array, Array]:
        """Mean and deviation (n, n_objectives) of the true objectives, in the directions of the study."""
        self._reach(history.conditions)
        models = self._models(history, self._usable(history))
        mean, sd = self._predict(models, self._space.points(self._space.canonical(rows)))
        return mean * self._signs, sd

    def learned(self, history: History, column: int) -> Learned:
        """What the evidence about a modelled objective has come to."""
        self._reach(history.conditions)
        usable = self._usable(history)
        models = self._models(history, usable)
        read = self.grid.distinct(history.rows[usable & ~history.barred])
        points = self._space.points(read if len(read) else self.grid.distinct(history.rows))
        front = points[front_rows(self._predict(models, points)[0])]
        model = models[column]
        found = model if isinstance(model, PairedSurrogate) else None
        return Learned(
            readings=int((~np.isnan(history.evidence[usable, column])).sum()),
            correlation=None if found is None else found.correlation() * float(self._signs[column]),
            noise_correlation=None
            if found is None
            else found.noise_correlation() * float(self._signs[column]),
            equivalent_readings=equivalent_readings(model, front),
        )

    def trust(self, history: History) -> list[float]:
        """How far each estimate of the first modelled objective is trusted, see `ParetoSampler.trust`."""
        self._reach(history.conditions)
        if not self._modelled:
            return [0.0] * self.grid.num_priors
        model = self._surrogate(history, self._usable(history), self._modelled[0])
        rows = self._space.some(np.random.default_rng([self._entropy, 4]), TRUSTED)
        return [float(share) for share in model.trusts(self._space.points(rows))]

    def contrast(self, history: History, plus: Index, minus: Index, column: int) -> tuple[float, float]:
        """Mean and deviation of a modelled objective's average over ``plus`` less that over ``minus``."""
        self._reach(history.conditions)
        model = self._surrogate(history, self._usable(history), column)
        plus, minus = self._space.canonical(plus), self._space.canonical(minus)
        mean, sd = model.contrast(self._space.points(plus), self._space.points(minus))
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
        evaluated_points = self._space.points(evaluated)
        means, deviations = self._predict(models, evaluated_points)
        reference = self._reference(means)
        boxes, total = free_boxes(means, reference), volume(means, reference)
        # If all readings are equal, nothing says where to find better ones, so the space is covered.
        flat = bool(models) and not np.ptp(history.values[usable][:, self._modelled], axis=0).any()

        def weigh(rows: Index) -> Array:
            return improvement(*self._predict(models, self._space.points(rows)), *boxes)

        rows = among if among is not None else self._sieve(models, boxes)
        if rows is None:
            best = evaluated[front_rows(means)]
            rows, scores = local_search(self._space, best, self._space.extremes, weigh, rng)
        else:
            scores = weigh(rows)
        picked = self._best_unasked(rows, scores, history)
        if among is None and (flat or not len(picked)):
            left = self._spread(history, rng, corners=False)
            if left is None:
                return self._again(history, rng)
            return self._proposal(models, left, "spread", 0.0, total if total > 0 else 1.0)
        shortlist = self._space.points(rows[picked])
        chosen = contenders(means, deviations, EVALUATED)
        scores = self._noisy(models, evaluated_points[chosen], shortlist, reference, rng)
        place = int(scores.argmax())
        gain, row = float(scores[place]), rows[picked][place]
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
        self, models: dict[int, Model], row: Index, source: str, gain: float, total: float
    ) -> Proposal:
        mean, sd = self._predict(models, self._space.points(row[None]))
        return Proposal(
            row=row,
            source=source,
            improvement=gain / total if total > 0 else None,
            mean=tuple((mean[0] * self._signs).tolist()),
            sd=tuple(sd[0].tolist()),
        )

    def _reread(
        self, models: dict[int, Model], read: Index, reference: Array, history: History
    ) -> tuple[int, float]:
        """Index of the point of ``read`` whose next reading promises most, and how much that is."""
        points = self._space.points(read)
        means, deviations = self._predict(models, points)
        numbers = self.grid.identify(read)
        # What was stopped early is not started again: the rule that stopped it judged the same promise.
        whole = history.rows[(history.extra[:, self._modelled] == 0).all(axis=1)]
        free = np.isin(numbers, self.grid.identify(whole)) & ~np.isin(
            numbers, self.grid.identify(history.pending)
        )
        rows = contenders(means, deviations, EVALUATED)
        steps = np.zeros_like(means)
        for column, model in models.items():
            steps[:, column] = model.step(deviations[:, column], points)
        return reread(means, steps, reference, rows[free[rows]])

    def _noisy(
        self,
        models: dict[int, Model],
        evaluated: Points,
        at: Points,
        reference: Array,
        rng: np.random.Generator,
    ) -> Array:
        """Improvement, averaged over draws of the true values at ``evaluated``, which includes pending points."""
        values = np.repeat(self._space.costs(self._space.rows(evaluated))[None], DRAWS, axis=0)
        means = np.repeat(self._space.costs(self._space.rows(at))[None], DRAWS, axis=0)
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
            ordered = self._signs[column] * self._space.spread[:, i]
            out[column] = ordered.min() - 1e-9 * np.ptp(ordered)
        for column in self._modelled:
            worst, best = means[:, column].min(), means[:, column].max()
            out[column] = worst - 0.1 * max(best - worst, 1e-12)
        return out

    def _sieve(self, models: dict[int, Model], boxes: tuple[Array, Array]) -> Index | None:
        """The most promising points of an enumerated space; None if it is too large to enumerate."""
        pool, points, costs = self._space.pool, self._space.pool_points, self._space.pool_costs
        if pool is None or points is None or costs is None or len(pool) <= SIEVE or not models:
            return pool
        mean, sd = costs.copy(), np.zeros_like(costs)
        for column, model in models.items():
            mean[:, column], sd[:, column] = model.rough(points)
        kept = np.argpartition(-improvement(mean, sd, *boxes), SIEVE)[:SIEVE]
        return pool[np.sort(kept)]

    def probe(self, history: History) -> Index | None:
        """While a parameter was never asked for: a point with choices that no trial has had; None if none is left.

        Whatever a parameter depends on, one of these shows it, unless it takes several at once.
        """
        asked = history.asked
        if not len(asked) or not (asked < 0).all(axis=0).any():
            return None
        self._reach(history.conditions)
        rng = np.random.default_rng([self._entropy, 3, len(asked)])
        rows = self._space.some(rng, PROBES)
        rows = self._space.allowed(np.concatenate([rows, self.grid.neighbours(rows[:4])]))
        rows = rows[self._unasked(rows, history)]
        new = np.zeros(rows.shape, dtype=bool)
        for column, choices in enumerate(self._telling):
            shown = asked[:, column]
            if (shown >= 0).any():
                new[:, column] = np.isin(rows[:, column], np.setdiff1d(choices, shown))
        gains = new.sum(axis=1)
        return rows[int(gains.argmax())] if gains.any() else None
