"""Numbers that judge a front as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from se_nas.errors import ConfigError
from se_nas.pareto._front import Floats, losses, non_dominated


def hypervolume(values: ArrayLike, reference: ArrayLike, directions: Sequence[str]) -> float:
    """Volume that the points dominate, bounded by the reference point; exact for any number of objectives.

    Points that are not better than the reference in every objective add nothing, rows with a NaN neither. The
    unit is the product of the objectives' units. Two objectives cost O(n log n); each further one multiplies
    by the size of the front. Source: Zitzler and Thiele, "Multiobjective optimization using evolutionary
    algorithms", 1998; computed by slicing objectives, as in While et al., "A faster algorithm for calculating
    hypervolume", 2006.

    Args:
        values: shape (n, m).
        reference: shape (m,), finite; worse than the front.
        directions: "maximize" or "minimize" for each objective.
    """
    point = losses(np.asarray(reference)[None], directions)[0]
    if not np.isfinite(point).all():
        raise ConfigError(f"reference is {reference!r}; it must be finite in every objective.")
    loss = losses(values, directions)
    inside = loss[(loss < point).all(axis=1)]
    return _volume(inside, point) if len(inside) else 0.0


def _volume(points: Floats, reference: Floats) -> float:
    if points.shape[1] == 1:
        return float(reference[0] - points[:, 0].min())
    if points.shape[1] == 2:
        points = points[np.lexsort((points[:, 1], points[:, 0]))]
        steps = np.minimum.accumulate(np.append(reference[1], points[:, 1]))
        return float((-np.diff(steps) * (reference[0] - points[:, 0])).sum())
    points = points[non_dominated(points, ["minimize"] * points.shape[1])]
    points = points[points[:, 0].argsort()]
    # Between two neighbouring values of the first objective the section is the same: a volume of one
    # dimension less, dominated by the points up to there.
    ends = np.append(points[1:, 0], reference[0])
    return sum(
        (end - point[0]) * _volume(points[: i + 1, 1:], reference[1:])
        for i, (point, end) in enumerate(zip(points, ends, strict=True))
        if end > point[0]
    )


def reference_point(sets: Sequence[ArrayLike], directions: Sequence[str], margin: float = 0.1) -> Floats:
    """A reference point that several sets of points share, shape (m,), in the objectives' own units.

    The worst value of each objective over the union, and ``margin`` times its range beyond, so that the ends
    of a front count. Where an objective does not vary, ``margin`` times its magnitude (or ``margin`` at 0).
    Rows with a NaN are left out.

    Raises:
        ConfigError: no row is without a NaN.
    """
    union = np.concatenate([losses(values, directions) for values in sets]) if sets else np.empty((0, 0))
    union = union[np.isfinite(union).all(axis=1)]
    if not len(union):
        raise ConfigError("no point has finite values, so there is no reference point.")
    low, high = union.min(axis=0), union.max(axis=0)
    span = np.where(high > low, high - low, np.where(high != 0, np.abs(high), 1.0))
    return losses([high + margin * span], directions)[0]


def igd_plus(
    values: ArrayLike, front: ArrayLike, directions: Sequence[str], *, scale: ArrayLike | None = None
) -> float:
    """Inverted generational distance plus: how far, on average, ``values`` fall short of a front's points.

    0 where every point of ``front`` is attained. Source: Ishibuchi et al., "Modified distance calculation in
    generational distance and inverted generational distance", 2015, equation 18.

    Args:
        values: shape (n, m); rows with a NaN are left out.
        front: the points to be attained, shape (k, m), k at least 1.
        directions: for each objective.
        scale: shape (m,), unit of each objective; None is the range of ``front`` (1 if it does not vary).

    Returns:
        The mean over ``front``, in units of ``scale``; inf without points.
    """
    goal, loss = losses(front, directions), losses(values, directions)
    loss = loss[~np.isnan(loss).any(axis=1)]
    if not len(goal):
        raise ConfigError("front has no points; IGD+ needs at least one.")
    if scale is None:
        span = goal.max(axis=0) - goal.min(axis=0)
        unit = np.where(span > 0, span, 1.0)
    else:
        unit = np.asarray(scale, dtype=np.float64)
    short = np.maximum(loss[None, :, :] - goal[:, None, :], 0.0) / unit
    return float(np.sqrt((short**2).sum(axis=2)).min(axis=1, initial=np.inf).mean())


def coverage(values: ArrayLike, others: ArrayLike, directions: Sequence[str]) -> float:
    """Share of ``others`` that some point of ``values`` equals or dominates, from 0 to 1; NaN without others.

    Not symmetric. Rows with a NaN are left out of both. Source: the C metric of Zitzler and Thiele,
    "Multiobjective evolutionary algorithms: a comparative case study and the strength Pareto approach", 1999.
    """
    own, theirs = losses(values, directions), losses(others, directions)
    own, theirs = own[~np.isnan(own).any(axis=1)], theirs[~np.isnan(theirs).any(axis=1)]
    if not len(theirs):
        return float("nan")
    no_worse = (own[None, :, :] <= theirs[:, None, :]).all(axis=2)
    return float(np.any(no_worse, axis=1).mean())
