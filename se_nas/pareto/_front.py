"""Dominance: who is on the front, in which rank, and which point of the front to name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from se_nas.errors import ConfigError

DIRECTIONS = ("maximize", "minimize")
Floats = NDArray[np.float64]


def losses(values: ArrayLike, directions: Sequence[str]) -> Floats:
    """``values`` as float64 (n, m) with every objective to be minimised.

    Raises:
        ConfigError: a direction is unknown, or their number is not that of the columns.
    """
    for direction in directions:
        if direction not in DIRECTIONS:
            raise ConfigError(f"direction is {direction!r}; allowed: {', '.join(DIRECTIONS)}.")
    matrix = np.asarray(values, dtype=np.float64)
    if matrix.size == 0:
        matrix = matrix.reshape(0, len(directions))
    if matrix.ndim != 2 or matrix.shape[1] != len(directions):
        raise ConfigError(
            f"values have shape {matrix.shape}; with {len(directions)} directions it must be"
            f" (n, {len(directions)})."
        )
    return matrix * np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])


def non_dominated(values: ArrayLike, directions: Sequence[str]) -> NDArray[np.bool_]:
    """Which points no other point dominates, as a mask of shape (n,).

    A point dominates another if it is nowhere worse and somewhere better. Equal points do not dominate each
    other: all copies of a point of the front are on it. A row with a NaN is never on the front and dominates
    nothing; infinities compare as numbers.
    """
    loss = losses(values, directions)
    mask = np.zeros(len(loss), dtype=bool)
    known = np.flatnonzero(~np.isnan(loss).any(axis=1))
    if len(known):
        distinct, inverse = np.unique(loss[known], axis=0, return_inverse=True)
        mask[known] = _front_of_sorted(distinct)[inverse.reshape(-1)]
    return mask


def _front_of_sorted(points: Floats) -> NDArray[np.bool_]:
    """The front of distinct rows in lexicographic order."""
    mask = np.zeros(len(points), dtype=bool)
    if points.shape[1] == 1:
        mask[0] = True
    elif points.shape[1] == 2:
        best_before = np.concatenate([[np.inf], np.minimum.accumulate(points[:, 1])[:-1]])
        mask = points[:, 1] < best_before
        mask[0] = True
    else:
        left = np.arange(len(points))
        while len(left):
            # Nothing later in lexicographic order can dominate the first one left.
            mask[left[0]] = True
            left = left[(points[left] < points[left[0]]).any(axis=1)]
    return mask


def ranks(values: ArrayLike, directions: Sequence[str]) -> NDArray[np.int64]:
    """Non-dominated rank of each point, shape (n,): 0 on the front, 1 on the front of the rest, and so on.

    Rows with a NaN come last, one rank behind all others. Source: Srinivas and Deb, "Multiobjective
    optimization using nondominated sorting in genetic algorithms", 1994.
    """
    matrix = np.asarray(values, dtype=np.float64)
    loss = losses(matrix, directions)
    rank = np.full(len(loss), -1, dtype=np.int64)
    left = np.flatnonzero(~np.isnan(loss).any(axis=1))
    number = 0
    while len(left):
        front = non_dominated(matrix[left], directions)
        rank[left[front]] = number
        left, number = left[~front], number + 1
    rank[rank < 0] = number
    return rank


def knee(values: ArrayLike, directions: Sequence[str]) -> int | None:
    """Index of the front's knee; None if there is no front.

    Objectives are scaled to 0 at the best and 1 at the worst of the front; the knee has the smallest sum of
    scaled losses. With two objectives that is the point farthest from the line through the two ends, on the
    better side. Among equals the first index.
    """
    loss = losses(values, directions)
    front = np.flatnonzero(non_dominated(values, directions))
    if not len(front):
        return None
    low, high = loss[front].min(axis=0), loss[front].max(axis=0)
    scaled = (loss[front] - low) / np.where(high > low, high - low, 1.0)
    return int(front[np.argmin(np.round(scaled.sum(axis=1), 12))])


def attained(
    values: ArrayLike, at: ArrayLike, directions: Sequence[str], *, objective: int = 0, given: int = 1
) -> Floats:
    """Best value of one objective among points that keep within a limit on another.

    With columns (accuracy, cost) this is the best accuracy at equal cost; with ``objective=1, given=0`` the
    cost at equal accuracy.

    Args:
        values: shape (n, m).
        at: limits on column ``given``, shape (k,).
        directions: for each column.
        objective: column whose best value is returned.
        given: column that must be no worse than the limit.

    Returns:
        Shape (k,); NaN if no point keeps within the limit.
    """
    matrix = losses(values, directions)
    matrix = matrix[~np.isnan(matrix).any(axis=1)]
    signs = losses(np.ones((1, len(directions))), directions)[0]
    limits = np.asarray(at, dtype=np.float64).reshape(-1) * signs[given]
    within = matrix[None, :, given] <= limits[:, None]
    best = np.where(within, matrix[None, :, objective], np.inf).min(axis=1, initial=np.inf)
    return np.where(within.any(axis=1), best * signs[objective], np.nan)
