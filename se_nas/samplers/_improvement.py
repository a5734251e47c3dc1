"""How much points promise to improve a front, under what is believed of the objectives."""

from __future__ import annotations

import numpy as np

from se_nas.pareto import free_boxes, improvement
from se_nas.samplers._acquisition import contenders, reread
from se_nas.samplers._belief import Belief
from se_nas.samplers._grid import Array, Index
from se_nas.samplers._likelihood import Points
from se_nas.samplers._observations import History

SIEVE = 512
"""Points of an enumerated space that are weighed in double precision: the best in single precision."""
DRAWS = 32
EVALUATED = 64


def reference_point(belief: Belief, means: Array) -> Array:
    """(n_objectives,) the worst value of every known objective; a little below the worst of ``means`` of the others.

    Args:
        means: (n, n_objectives) of the points that were evaluated.
    """
    space = belief.space
    out = np.empty(len(space.signs))
    for i, column in enumerate(space.grid.known_columns):
        ordered = space.signs[column] * space.spread[:, i]
        out[column] = ordered.min() - 1e-9 * np.ptp(ordered)
    for column in belief.models:
        worst, best = means[:, column].min(), means[:, column].max()
        out[column] = worst - 0.1 * max(best - worst, 1e-12)
    return out


def sieve(belief: Belief, boxes: tuple[Array, Array]) -> Index | None:
    """The most promising points of an enumerated space; None if it is too large to enumerate.

    Args:
        boxes: where a front may be improved, see `se_nas.pareto.free_boxes`.
    """
    pool, points, costs = belief.space.pool, belief.space.pool_points, belief.space.pool_costs
    if pool is None or points is None or costs is None or len(pool) <= SIEVE or not belief.models:
        return pool
    mean, sd = costs.copy(), np.zeros_like(costs)
    for column, model in belief.models.items():
        mean[:, column], sd[:, column] = model.rough(points)
    kept = np.argpartition(-improvement(mean, sd, *boxes), SIEVE)[:SIEVE]
    return pool[np.sort(kept)]


def noisy_improvement(
    belief: Belief,
    evaluated: Points,
    predictions: tuple[Array, Array],
    at: Points,
    reference: Array,
    rng: np.random.Generator,
) -> Array:
    """(len(at),) the expected improvement at ``at``, averaged over draws of the true values at ``evaluated``.

    Args:
        evaluated: points that were read, or will be soon.
        predictions: their means and deviations, (n_evaluated, n_objectives) each.
        reference: (n_objectives,) of the hypervolume.
    """
    space, evaluated = belief.space, evaluated[contenders(*predictions, EVALUATED)]
    values = np.repeat(space.costs(space.rows(evaluated))[None], DRAWS, axis=0)
    means = np.repeat(space.costs(space.rows(at))[None], DRAWS, axis=0)
    sd = np.zeros((len(at), len(space.signs)))
    for column, model in belief.models.items():
        normal = rng.standard_normal((DRAWS, len(evaluated)))
        values[..., column], means[..., column], sd[:, column] = model.draw(evaluated, at, normal)
    total = np.zeros(len(at))
    for drawn, mean in zip(values, means, strict=True):
        total += improvement(mean, sd, *free_boxes(drawn, reference))
    return total / DRAWS


def promise_of_reading(belief: Belief, read: Index, reference: Array, history: History) -> tuple[int, float]:
    """Index of the row of ``read`` whose next reading promises most, and how much that is."""
    space, points = belief.space, belief.space.points(read)
    means, deviations = belief.predict(points)
    numbers = space.grid.identify(read)
    # What was stopped early is not started again: the rule that stopped it judged the same promise.
    whole = history.rows[(history.extra[:, list(belief.models)] == 0).all(axis=1)]
    free = np.isin(numbers, space.grid.identify(whole)) & ~np.isin(
        numbers, space.grid.identify(history.pending)
    )
    rows = contenders(means, deviations, EVALUATED)
    steps = np.zeros_like(means)
    for column, model in belief.models.items():
        steps[:, column] = model.step(deviations[:, column], points)
    return reread(means, steps, reference, rows[free[rows]])
