"""Boxes that a front leaves free, its hypervolume and its expected improvement. Everything is maximised here.

The region that no point of the front dominates is split into boxes; the expected improvement of the
hypervolume is a sum over boxes of products over objectives (Emmerich et al., 2006; Yang et al., 2019), in which
a known objective's factor is a length and a modelled one's a difference of two expected improvements.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_CELLS = 2**18
"""Points times boxes that are weighed at once, to stay within a processor's cache."""


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
    return _swept(front, reference)


def _swept(front: Array, reference: Array) -> tuple[Array, Array]:
    """Free boxes over three objectives, at most twice as many as points, and one.

    A plane of constant third objective is lowered from infinity. In it the free region is a staircase: over
    each interval of the second objective, what lies above a floor of the first. A point raises the floor of
    some intervals; only those end a box there, the others go on.
    """
    base = float(reference[0])
    # Intervals by ascending second objective: begin, floor, and the third objective from which they hold.
    starts, floors, tops = [float(reference[1])], [base], [np.inf]
    boxes: list[tuple[float, float, float, float, float]] = []
    for first, second, third in front[np.argsort(-front[:, 2], kind="stable")].tolist():
        # Floors fall as the second objective rises: the point raises those from `low` on, up to its own.
        low = next((k for k, floor in enumerate(floors) if floor < first), len(floors))
        high = bisect_left(starts, second)
        if low >= high:
            continue
        for k in range(low, high):
            end = min(second, starts[k + 1] if k + 1 < len(starts) else np.inf)
            boxes.append((floors[k], starts[k], end, third, tops[k]))
        rest_end = starts[high] if high < len(starts) else np.inf
        begins, under, since = [starts[low]], [first], [third]
        if second < rest_end:
            begins, under, since = [*begins, second], [*under, floors[high - 1]], [*since, tops[high - 1]]
        starts[low:high], floors[low:high], tops[low:high] = begins, under, since
    ends = [*starts[1:], np.inf]
    boxes += [
        (floor, start, end, float(reference[2]), top)
        for floor, start, end, top in zip(floors, starts, ends, tops, strict=True)
    ]
    cells = np.array([box for box in boxes if box[3] < box[4]])
    lows, highs = cells[:, [0, 1, 3]], np.column_stack([np.full(len(cells), np.inf), cells[:, [2, 4]]])
    return lows, highs


def volume(front: Array, reference: Array) -> float:
    """Hypervolume of a front: what it leaves of the box between the reference and its best values."""
    front = front[(front > reference).all(axis=1)]
    if not len(front):
        return 0.0
    top = front.max(axis=0)
    lows, highs = free_boxes(front, reference)
    free = np.clip(np.minimum(highs, top) - lows, 0.0, None).prod(axis=1).sum()
    return float((top - reference).prod() - free)


def expected_excess(mean: Array, sd: Array, level: Array) -> Array:
    """E[max(z - level, 0)] for z normal, (n, n_levels); an infinite level gives 0. ``sd`` 0: known."""
    # Readers of reports, who compute no expectation, need not wait for SciPy.
    from scipy.special import ndtr

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
        deviations: (n, n_objectives); 0 if the objective is known.
        lows: (n_boxes, n_objectives) from `free_boxes`.
        highs: the same.
    """
    step = max(1, _CELLS // max(1, len(lows)))
    if len(means) > step:
        parts = range(0, len(means), step)
        return np.concatenate(
            [improvement(means[k : k + step], deviations[k : k + step], lows, highs) for k in parts]
        )
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
