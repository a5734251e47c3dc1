"""What gates add to a backbone's latency, as a sum over gates fitted to measured networks.

Four sums are tried, each with all terms of the one before: an overhead for each gate; a time for each of its
weights; a time for each element of its map; the latter by stage. None of the terms is below zero. Of those the
simplest is taken whose error in leave-one-out is within one standard error of the least (Breiman et al. 1984,
section 3.4.3): where timings are noisy, terms that cannot be told from noise would make predictions worse.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from se_nas.architecture import ABSENT
from se_nas.cost.closed_form import COST_NAMES, CostModel

_MAP = COST_NAMES.index("se_elementwise_ops")
_WEIGHTS = COST_NAMES.index("macs")


def fit(
    model: CostModel, plain: np.ndarray, widths: np.ndarray, ratios: np.ndarray, spreads: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the baseline that gates add: (fixed, slope), each of shape (number of sites,).

    Args:
        model: gives map sizes and weights of every site.
        plain: widths of the unmodified backbone, shape (sites,).
        widths: of the measured networks, shape (n, sites).
        ratios: measured, shape (n,).
        spreads: widths of their intervals, above 0, shape (n,).
    """
    gates, hidden = _changes(widths, plain)
    terms = _terms(model)
    sure = 1 / spreads
    target = (ratios - 1) * sure

    def design(count: int) -> np.ndarray:
        return np.stack([gates @ fixed + hidden @ slope for fixed, slope in terms[:count]], axis=1)

    counts = sorted({1, 2, 3, len(terms)})
    errors = [_left_out(design(count) * sure[:, None], target) for count in counts]
    means = [float(np.mean(error)) for error in errors]
    best = int(np.argmin(means))
    enough = means[best] + float(np.std(errors[best], ddof=1)) / np.sqrt(len(ratios))
    count = counts[next(i for i, mean in enumerate(means) if mean <= enough)]
    shares = _non_negative(design(count) * sure[:, None], target)
    fixed, slope = (
        sum(share * term[side] for share, term in zip(shares, terms, strict=False)) for side in (0, 1)
    )
    return np.asarray(fixed, dtype=float), np.asarray(slope, dtype=float)


def added(widths: np.ndarray, plain: np.ndarray, fixed: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """What gates add to the unmodified backbone, as a share of its latency, shape (n,)."""
    gates, hidden = _changes(widths, plain)
    return gates @ fixed + hidden @ slope


def _terms(model: CostModel) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each term what it counts at every site: for a gate whatever its width, and for a hidden channel."""
    maps = np.array([fixed[_MAP] for fixed in model.fixed], dtype=float)
    weights = np.array([slope[_WEIGHTS] for slope in model.slope], dtype=float)
    stages = np.array([site.stage for site in model.sites])
    none = np.zeros_like(maps)
    by_stage = [maps * (stages == stage) for stage in sorted(set(stages.tolist()))]
    return [(none + 1, none), (none, weights), (maps, none), *((own, none) for own in by_stage)]


def _left_out(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Squared error of each network by a fit to the others."""
    rest = ~np.eye(len(target), dtype=bool)
    predicted = [design[i] @ _non_negative(design[rest[i]], target[rest[i]]) for i in range(len(target))]
    return np.asarray((np.array(predicted) - target) ** 2)


def _non_negative(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    scale = np.abs(design).max(axis=0)
    scale[scale == 0] = 1.0
    return np.asarray(nnls(design / scale, target)[0] / scale)


def _changes(widths: np.ndarray, plain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gates = (widths != ABSENT).astype(float) - (plain != ABSENT)
    return gates, np.maximum(widths, 0).astype(float) - np.maximum(plain, 0)
