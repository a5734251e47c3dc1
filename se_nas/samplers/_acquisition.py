"""Which points may join the front, and which reading promises most. All objectives are maximised here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from se_nas.pareto import free_boxes, front_of, improvement

Array = NDArray[np.float64]


def contenders(means: Array, deviations: Array, limit: int) -> NDArray[np.int64]:
    """Indices of the rows that may be on the front: no pessimistic bound of another row dominates their optimistic one.

    At most ``limit`` of them, those nearest to the front of means.
    """
    lucky, unlucky = means + 2 * deviations, means - 2 * deviations
    rivals = front_of(unlucky)
    no_worse = np.all(rivals[None] >= lucky[:, None], axis=2)
    better = np.any(rivals[None] > lucky[:, None], axis=2)
    dominated = np.any(no_worse & better, axis=1)
    rows = np.flatnonzero(~dominated)
    if len(rows) <= limit:
        return rows
    certain = front_of(means)
    gap = (certain[None] - lucky[rows][:, None]).min(axis=2).max(axis=1)
    return rows[np.argsort(gap, kind="stable")[:limit]]


def reread(means: Array, steps: Array, reference: Array, rows: NDArray[np.int64]) -> tuple[int, float]:
    """The one of ``rows`` whose next reading promises most, and how much that is.

    The knowledge gradient (Frazier et al., 2009) of the point's mean: a reading moves it by a normal step, and the
    front of means grows.

    Args:
        means: (n, n_objectives) of points that were read.
        steps: deviations, of the same shape; 0 if the objective is known.
        reference: (n_objectives,) of the hypervolume.
        rows: indices of the points that may be read again.

    Returns:
        The index of the point and the expected gain of hypervolume; -inf if there is no point.
    """
    best, gain = 0, -np.inf
    for i in rows:
        boxes = free_boxes(np.delete(means, i, axis=0), reference)
        sure = improvement(means[i : i + 1], np.zeros((1, means.shape[1])), *boxes)[0]
        found = float(improvement(means[i : i + 1], steps[i : i + 1], *boxes)[0] - sure)
        if found > gain:
            best, gain = int(i), found
    return best, gain


def front_rows(means: Array) -> NDArray[np.int64]:
    """Rows of ``means`` on their front."""
    front = {tuple(row) for row in front_of(means)}
    return np.array([i for i, row in enumerate(means) if tuple(row) in front], dtype=np.int64)
