"""What `ParetoSampler` proposes, free of Optuna: from a grid and its history to the next point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from se_nas.pareto import free_boxes, improvement, volume
from se_nas.samplers._acquisition import front_rows
from se_nas.samplers._belief import CAP, Belief, Fits
from se_nas.samplers._conditions import Conditions
from se_nas.samplers._gp import Surrogate
from se_nas.samplers._grid import Array, Grid, Index
from se_nas.samplers._improvement import noisy_improvement, promise_of_reading, reference_point, sieve
from se_nas.samplers._local_search import local_search
from se_nas.samplers._observations import History
from se_nas.samplers._reachable import Reachable

SHORTLIST = 128
COMPLETIONS = PROBES = 512
"""Random points that are weighed if some parameters are given, or if one was never asked for."""
TRUSTED = 2_048
"""Points over which it is judged how far estimates are trusted."""
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
        self._fits = Fits(grid, len(signs))
        self._spaces: dict[Conditions, Reachable] = {}
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
        if len(history.keys) < self._initial or not self._enough(history):
            row = self._spread(history, rng, corners=True)
            return self._again(history, rng) if row is None else Proposal(row=row, source="initial")
        return self._improve(history, rng)

    def _enough(self, history: History) -> bool:
        readings = int(self._fits.usable(history).sum())
        return readings >= min(3, self._initial) or not self._fits.modelled

    def _completed(self, history: History, number: int, fixed: Mapping[int, int]) -> Proposal:
        """The best of some random points with the given choices."""
        rng = np.random.default_rng([self._entropy, 1, number])
        rows = self._space.completions(fixed, rng, COMPLETIONS)
        free = rows[self._unasked(rows, history)][:COMPLETIONS]
        if not len(free):
            return Proposal(row=rows[0], source="again")
        if not self._enough(history):
            return Proposal(row=free[rng.integers(len(free))], source="initial")
        return self._improve(history, rng, free)

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
            by_cost=bool(self.grid.known_columns),
        )
        _, sd = blank.predict(self._space.points(rows))
        return rows[int(sd.argmax())]

    def belief(self, history: History) -> Belief:
        """What is believed of the objectives after ``history``."""
        self._reach(history.conditions)
        return self._fits.belief(self._space, history)

    def trust(self, history: History) -> list[float]:
        """How far each estimate of the first modelled objective is trusted, see `ParetoSampler.trust`."""
        belief = self.belief(history)
        return belief.trust(self._space.some(np.random.default_rng([self._entropy, 4]), TRUSTED))

    def _improve(self, history: History, rng: np.random.Generator, among: Index | None = None) -> Proposal:
        """The point that promises most, of the whole space or of the points ``among``."""
        belief = self._fits.belief(self._space, history)
        read = self.grid.distinct(history.rows[~history.barred])
        evaluated = self.grid.distinct(np.concatenate([read, history.pending]))
        if not len(evaluated):
            evaluated = self.grid.distinct(history.rows)
        evaluated_points = self._space.points(evaluated)
        means, deviations = belief.predict(evaluated_points)
        reference = reference_point(belief, means)
        boxes, total = free_boxes(means, reference), volume(means, reference)

        def weigh(rows: Index) -> Array:
            return improvement(*belief.predict(self._space.points(rows)), *boxes)

        rows = among if among is not None else sieve(belief, boxes)
        if rows is None:
            best = evaluated[front_rows(means)]
            rows, scores = local_search(self._space, best, self._space.extremes, weigh, rng)
        else:
            scores = weigh(rows)
        picked = self._best_unasked(rows, scores, history)
        if among is None and (self._is_flat(history) or not len(picked)):
            left = self._spread(history, rng, corners=False)
            if left is None:
                return self._again(history, rng)
            return self._proposal(belief, left, "spread", 0.0, total if total > 0 else 1.0)
        shortlist = self._space.points(rows[picked])
        scores = noisy_improvement(belief, evaluated_points, (means, deviations), shortlist, reference, rng)
        place = int(scores.argmax())
        gain, row = float(scores[place]), rows[picked][place]
        if self._repeats and self._fits.modelled and len(read) and among is None:
            place, promised = promise_of_reading(belief, read, reference, history)
            if promised > gain:
                return self._proposal(belief, read[place], "repeat", promised, total)
        if gain <= 1e-9 * max(total, 1e-300) and among is None:
            left = self._spread(history, rng, corners=False)
            return self._proposal(belief, row if left is None else left, "spread", gain, total)
        return self._proposal(belief, row, "model", gain, total)

    def _is_flat(self, history: History) -> bool:
        """Whether all readings are equal: then nothing says where to find better ones, so the space is covered."""
        readings = history.values[self._fits.usable(history)][:, self._fits.modelled]
        return bool(self._fits.modelled) and not np.ptp(readings, axis=0).any()

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

    def _proposal(self, belief: Belief, row: Index, source: str, gain: float, total: float) -> Proposal:
        mean, sd = belief.at(row[None])
        return Proposal(
            row=row,
            source=source,
            improvement=gain / total if total > 0 else None,
            mean=tuple(mean[0].tolist()),
            sd=tuple(sd[0].tolist()),
        )

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
