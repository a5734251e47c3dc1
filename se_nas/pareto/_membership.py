"""What uncertain accuracies do to a front whose costs are exact.

``draws`` has shape (B, n): B joint draws of the accuracies of n candidates, NaN for one that has none.
``costs`` has shape (n,) or (n, c). ``directions`` are those of accuracy and then of each cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from se_nas.pareto._front import Floats, losses
from se_nas.pareto._indicators import hypervolume


def drawn_fronts(draws: ArrayLike, costs: ArrayLike, directions: Sequence[str]) -> NDArray[np.bool_]:
    """For each draw which candidates are non-dominated, shape (B, n); ties as in ``non_dominated``."""
    cost = losses(_columns(costs), directions[1:])
    drawn = np.asarray(draws, dtype=np.float64)
    sign = -1.0 if directions[0] == "minimize" else 1.0
    known = ~np.isnan(drawn) & ~np.isnan(cost).any(axis=1)
    gain = np.where(known, sign * drawn, -np.inf)
    if cost.shape[1] == 1:
        return known & _stand_sorted(gain, cost[:, 0])
    fronts = known.copy()
    for i in range(len(cost)):
        no_dearer = (cost <= cost[i]).all(axis=1)
        cheaper = no_dearer & (cost < cost[i]).any(axis=1)
        equal = no_dearer & ~cheaper
        fronts[:, i] &= gain[:, cheaper].max(axis=1, initial=-np.inf) < gain[:, i]
        fronts[:, i] &= gain[:, equal].max(axis=1, initial=-np.inf) <= gain[:, i]
    return fronts


def _stand_sorted(gain: Floats, cost: Floats) -> NDArray[np.bool_]:
    """Which gains are above all at lower cost and not below any at equal cost, shape (B, n)."""
    order = np.argsort(cost)
    levels, starts, level = np.unique(cost[order], return_index=True, return_inverse=True)
    if not len(levels):
        return np.zeros(gain.shape, dtype=bool)
    best_here = np.maximum.reduceat(gain[:, order], starts, axis=1)
    best_so_far = np.maximum.accumulate(best_here, axis=1)
    below = np.concatenate([np.full((len(gain), 1), -np.inf), best_so_far[:, :-1]], axis=1)
    stand = np.empty(gain.shape, dtype=bool)
    stand[:, order] = (gain[:, order] > below[:, level]) & (gain[:, order] >= best_here[:, level])
    return stand


def probability_non_dominated(draws: ArrayLike, costs: ArrayLike, directions: Sequence[str]) -> Floats:
    """Share of the draws in which each candidate is non-dominated, shape (n,)."""
    share: Floats = drawn_fronts(draws, costs, directions).mean(axis=0)
    return share


def hypervolume_interval(
    mean: ArrayLike, draws: ArrayLike, costs: ArrayLike, reference: ArrayLike, directions: Sequence[str]
) -> tuple[float, float]:
    """95 % interval of the hypervolume of the true accuracies.

    The best of noisy values is too good, in the means as against the truth and in the draws as against the
    means; the basic bootstrap interval takes that off, as the plain quantiles of the draws would double it.

    Args:
        mean: estimated accuracies, shape (n,); ``draws`` scatter around them.
        reference: shape (1 + c,).
    """
    centre = _volumes(np.asarray(mean, dtype=np.float64)[None], costs, reference, directions)[0]
    volumes = _volumes(np.asarray(draws, dtype=np.float64), costs, reference, directions)
    low, high = np.quantile(volumes, [0.025, 0.975])
    return max(2 * float(centre) - float(high), 0.0), max(2 * float(centre) - float(low), 0.0)


def _volumes(draws: Floats, costs: ArrayLike, reference: ArrayLike, directions: Sequence[str]) -> Floats:
    """Hypervolume of each draw, shape (B,)."""
    columns = _columns(costs)
    if columns.shape[1] > 1:
        values = (np.column_stack([row, columns]) for row in draws)
        return np.array([hypervolume(matrix, reference, directions) for matrix in values])
    bound = losses(np.asarray(reference)[None], directions)[0]
    cost = losses(columns, directions[1:])[:, 0]
    order = np.argsort(cost)
    order = order[cost[order] < bound[1]]
    sign = -1.0 if directions[0] == "maximize" else 1.0
    height = np.nan_to_num(np.maximum(bound[0] - sign * draws[:, order], 0.0))
    width = np.diff(np.append(cost[order], bound[1]))
    areas: Floats = np.maximum.accumulate(height, axis=1) @ width
    return areas


def attained_draws(
    draws: ArrayLike, costs: ArrayLike, budgets: ArrayLike, directions: Sequence[str]
) -> Floats:
    """Best accuracy within each budget, for each draw: shape (B, number of budgets); NaN if nothing is.

    One cost. Subtracted between two runs whose draws come from one ``SeedModel``, this is the paired
    difference of accuracy at equal cost.
    """
    cost = losses(_columns(costs), directions[1:])[:, 0]
    sign = -1.0 if directions[0] == "maximize" else 1.0
    loss = np.nan_to_num(sign * np.asarray(draws, dtype=np.float64), nan=np.inf)
    limits = losses(np.asarray(budgets, dtype=np.float64).reshape(-1, 1), directions[1:])[:, 0]
    best = np.stack([loss[:, cost <= limit].min(axis=1, initial=np.inf) for limit in limits], axis=1)
    return np.where(np.isinf(best), np.nan, sign * best)


def _columns(costs: ArrayLike) -> Floats:
    matrix = np.asarray(costs, dtype=np.float64)
    return matrix[:, None] if matrix.ndim == 1 else matrix
