"""The points of a grid that trials can ask for, as the model sees them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np

from se_nas.errors import InfeasibleError
from se_nas.samplers._conditions import Conditions
from se_nas.samplers._grid import Array, Grid, Index
from se_nas.samplers._likelihood import Points

ENUMERATE = 131_072
"""Largest space of which every point is weighed; beyond it, local search."""
SKETCH = 2_048
"""Random points that stand for a space that is too large to enumerate."""


class Reachable:
    """The allowed points of a grid, of those that differ only in what trials do not ask for the first.

    Args:
        grid: the space with its known objectives.
        conditions: which parameters trials ask for.
        signs: (n_objectives,) 1 for an objective that the study maximises, -1 for one that it minimises.
        entropy: seed of the sketch.

    Attributes:
        signs: as given.
        pool: (n, n_params) every point; None if the grid has more than `ENUMERATE`.
        extremes: (2 * n_known, n_params) points with the least and the greatest value of each known objective.
        positions: see `Grid.positions`.
        spread: (n, n_known + n_priors) each known function's and estimate's values over the space, sorted.

    Raises:
        InfeasibleError: no point is allowed.
    """

    def __init__(self, grid: Grid, conditions: Conditions, signs: Array, entropy: int) -> None:
        self.grid, self._conditions, self.signs = grid, conditions, signs
        self.pool: Index | None = None
        if grid.total <= ENUMERATE:
            sketch = self.pool = self.allowed(grid.everything())
        else:
            sketch = self.canonical(grid.sample(SKETCH, np.random.default_rng([entropy, 0])))
            sketch = sketch[grid.allowed(sketch)]
        if not len(sketch):
            raise InfeasibleError(
                "no point of the space is allowed by `feasible`: loosen the budget or widen the space."
            )
        self.extremes = self.canonical(grid.extremes(sketch))
        sketch = np.concatenate([sketch, self.extremes])
        left_out = [column for column, _ in conditions.rules]
        self.positions = grid.positions(sketch, conditions.levels(sketch), left_out)
        self.spread = np.sort(grid.functions(sketch), axis=0)
        self.pool_points = None if self.pool is None else self.points(self.pool)
        self.pool_costs = None if self.pool is None else self.costs(self.pool)

    def canonical(self, rows: Index) -> Index:
        """See `Conditions.canonical`."""
        return self._conditions.canonical(rows)

    def allowed(self, rows: Index) -> Index:
        """Those of ``rows`` that may be proposed, in canonical form and each once."""
        rows = self.grid.distinct(self.canonical(rows))
        return rows[self.grid.allowed(rows)]

    def keys(self, rows: Index) -> list[Hashable]:
        """What identifies each point, equal for those that differ only in what is not asked for."""
        return self.grid.keys(self.canonical(rows))

    def some(self, rng: np.random.Generator, count: int) -> Index:
        """Random allowed points, at most ``count``, and the extremes if the space is not enumerated."""
        if self.pool is not None:
            return self.pool[rng.permutation(len(self.pool))[:count]]
        rows = self.canonical(self.grid.sample(2 * count, rng))
        return np.concatenate([self.extremes, rows[self.grid.allowed(rows)][:count]])

    def completions(self, fixed: Mapping[int, int], rng: np.random.Generator, count: int) -> Index:
        """Points with the given choices, in random order: all of an enumerated space, else at most ``count``.

        Points that are not allowed are among them only if no others are.

        Args:
            fixed: index of a parameter → index of its choice. It says nothing about points without the parameter.
        """
        columns, choices = list(fixed), list(fixed.values())
        if self.pool is not None:
            levels = self._conditions.levels(self.pool)[:, columns]
            rows = self.pool[((levels == choices) | (levels < 0)).all(axis=1)]
            if len(rows):
                return rng.permutation(rows)
        rows = self.grid.sample(count, rng)
        rows[:, columns] = choices
        allowed = self.allowed(rows)
        return rng.permutation(allowed) if len(allowed) else self.canonical(rows)

    def points(self, rows: Index) -> Points:
        """Points with known functions and estimates as features, twice: by value, and by rank as accuracy saturates."""
        values = self.grid.functions(rows)
        columns = []
        for i, ordered in enumerate(self.spread.T):
            spread = ordered.std()
            if spread > 0:
                columns.append((values[:, i] - ordered.mean()) / spread)
                ranks = np.interp(values[:, i], ordered, np.linspace(-1.7, 1.7, len(ordered)))
                columns.append(ranks)
            elif i >= len(self.grid.known_columns):
                columns += [np.zeros(len(rows)), np.zeros(len(rows))]
        features = np.stack(columns, axis=1) / np.sqrt(2) if columns else np.zeros((len(rows), 0))
        levels = self._conditions.levels(rows)
        return Points(
            index=np.where(levels < 0, self.grid.sizes, levels),
            features=features,
            estimates=self.grid.num_priors,
        )

    def rows(self, points: Points) -> Index:
        """The rows that `points` was given, in canonical form."""
        return np.where(points.index == self.grid.sizes, 0, points.index)

    def costs(self, rows: Index) -> Array:
        """(n, n_objectives) known objectives, signed to be maximised; 0 for the modelled ones."""
        known = self.grid.known_columns
        out = np.zeros((len(rows), len(self.signs)))
        out[:, known] = self.grid.functions(rows)[:, : len(known)] * self.signs[known]
        return out
