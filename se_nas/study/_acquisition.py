"""Expected hypervolume improvement with exactly known and modelled objectives. Everything is maximised here.

The region that no point of the front dominates is split into boxes; the expected improvement is a sum over
boxes of products over objectives (Emmerich et al., 2006; Yang et al., 2019), in which a known objective's
factor is a length and a modelled one's a difference of two expected improvements.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


def front_of(values: Array) -> Array:
    """The rows (n, n_objectives) that no other row dominates, unique, by ascending last objective."""
    values = values[np.lexsort(values.T)[::-1]]
    if values.shape[1] <= 2:
        first = values[:, 0]
        keep = np.ones(len(values), dtype=bool)
        if values.shape[1] == 1:
            keep[1:] = False
        else:
            keep[1:] = first[1:] > np.maximum.accumulate(first)[:-1]
        return values[keep][::-1]
    kept: list[int] = []
    for i, row in enumerate(values):
        if not (values[kept] >= row).all(axis=1).any():
            kept.append(i)
    return values[kept][::-1]


def free_boxes(front: Array, reference: Array) -> tuple[Array, Array]:
    """Corners, low and high (n_boxes, n_objectives), of what ``front`` leaves free above ``reference``.

    One, two or three objectives. Rows of ``front`` that are not above the reference everywhere are ignored.
    """
    front = front_of(front[(front > reference).all(axis=1)])
    count = len(reference)
    if count == 1:
        low = front.max(initial=reference[0])
        return np.array([[low]]), np.array([[np.inf]])
    if count == 2:
        edges = np.concatenate([[reference[1]], front[:, 1], [np.inf]])
        floors = np.append(front[:, 0], reference[0])
        return np.stack([floors, edges[:-1]], axis=1), np.stack(
            [np.full(len(floors), np.inf), edges[1:]], axis=1
        )
    edges = np.concatenate([[reference[2]], np.unique(front[:, 2]), [np.inf]])
    lows, highs = [], []
    for low, high in pairwise(edges.tolist()):
        flat_low, flat_high = free_boxes(front[front[:, 2] >= high, :2], reference[:2])
        lows.append(np.column_stack([flat_low, np.full(len(flat_low), low)]))
        highs.append(np.column_stack([flat_high, np.full(len(flat_high), high)]))
    return np.concatenate(lows), np.concatenate(highs)


def expected_excess(mean: Array, sd: Array, level: Array) -> Array:
    """E[max(z - level, 0)] for z normal, (n, n_levels); an infinite level gives 0. ``sd`` 0: known."""
    gap = mean[:, None] - level[None, :]
    out = np.maximum(gap, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        score = gap / np.maximum(sd, 1e-300)[:, None]
    # Farther away the deviation adds less than rounding does.
    near = np.abs(score) < 8.0
    score = score[near]
    density = np.exp(-0.5 * score * score) * 0.3989422804014327
    out[near] = np.broadcast_to(sd[:, None], near.shape)[near] * (score * ndtr(score) + density)
    return out


def improvement(means: Array, deviations: Array, lows: Array, highs: Array) -> Array:
    """Expected hypervolume improvement (n,) of independent normal objectives, over the given free boxes.

    Args:
        means: (n, n_objectives).
        deviations: (n, n_objectives); 0 where the objective is known.
        lows: (n_boxes, n_objectives) from `free_boxes`.
        highs: the same.
    """
    product: Array | None = None
    for m in range(means.shape[1]):
        low, high = lows[:, m], highs[:, m]
        if not deviations[:, m].any():
            side = np.clip(means[:, m][:, None] - low, 0.0, high - low)
        else:
            side = _excess_over(means[:, m], deviations[:, m], low)
            closed = np.isfinite(high)
            if closed.any():
                side[:, closed] -= _excess_over(means[:, m], deviations[:, m], high[closed])
        product = side if product is None else product * side
    assert product is not None
    return product.sum(axis=1)


def _excess_over(mean: Array, sd: Array, levels: Array) -> Array:
    """`expected_excess`, worked out once for levels that come up again."""
    distinct, where = np.unique(levels, return_inverse=True)
    found = expected_excess(mean, sd, distinct)
    return found[:, where]


def contenders(means: Array, deviations: Array, limit: int) -> NDArray[np.int64]:
    """Numbers of the rows that may be on the front: not dominated if lucky and all others are not."""
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


def front_rows(means: Array) -> NDArray[np.int64]:
    """Rows of ``means`` on their front."""
    front = {tuple(row) for row in front_of(means)}
    return np.array([i for i, row in enumerate(means) if tuple(row) in front], dtype=np.int64)


def volume(front: Array, reference: Array) -> float:
    """Hypervolume of a front, as the improvement over nothing, point by point."""
    total = 0.0
    for i, row in enumerate(front):
        total += float(improvement(row[None], np.zeros((1, len(row))), *free_boxes(front[:i], reference))[0])
    return total
