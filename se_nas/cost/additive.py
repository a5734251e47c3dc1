"""What gates add to a backbone's latency, as a sum over gates fitted to measured networks.

Five sums are tried, each with all terms of the one before: an overhead for each gate; one for having gates at
all (maps that are kept longer change where everything else is put in memory); a time for each weight of a gate;
a time for each element of its map; the latter by stage. None of the terms is below zero. The sum with the
least error in leave-one-out is taken: where timings are noisy, terms that cannot be told from noise would make
predictions worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from se_nas.architecture import ABSENT
from se_nas.cost.closed_form import COST_NAMES, CostModel

_MAP = COST_NAMES.index("se_elementwise_ops")
_WEIGHTS = COST_NAMES.index("macs")


@dataclass(frozen=True, kw_only=True)
class AddedLatency:
    """What gates add to the unmodified backbone, as shares of its latency.

    Attributes:
        any_gate: what a network that differs from the backbone at all adds.
        fixed: for every site what a gate adds whatever its width.
        slope: for every site what each hidden channel adds.
    """

    any_gate: float
    fixed: tuple[float, ...]
    slope: tuple[float, ...]

    def added(self, widths: np.ndarray, plain: np.ndarray) -> np.ndarray:
        """Shares of the baseline, shape (n,), for widths of shape (n, sites)."""
        gates, hidden = _changes(widths, plain)
        changed = (gates != 0).any(axis=1) | (hidden != 0).any(axis=1)
        return np.asarray(
            self.any_gate * changed + gates @ np.array(self.fixed) + hidden @ np.array(self.slope)
        )


def fit(
    model: CostModel, plain: np.ndarray, widths: np.ndarray, ratios: np.ndarray, spreads: np.ndarray
) -> AddedLatency:
    """The sum that predicts networks best that it has not seen.

    Args:
        model: gives map sizes and weights of every site.
        plain: widths of the unmodified backbone, shape (sites,).
        widths: of the measured networks, shape (n, sites), none of them the backbone.
        ratios: measured, shape (n,).
        spreads: widths of their intervals, above 0, shape (n,).
    """
    terms = _terms(model)
    counts = sorted({1, 2, 3, 4, len(terms)})
    design = np.stack([term.added(widths, plain) for term in terms], axis=1) / spreads[:, None]
    target = (ratios - 1) / spreads
    errors = [_left_out(design[:, :count], target) for count in counts]
    # Equal errors, as without noise, are decided by rounding: the shorter sum then.
    count = counts[int(np.argmin(np.round(np.array(errors) / (target @ target + 1e-300), 12)))]
    shares = _non_negative(design[:, :count], target)

    def total(name: str) -> np.ndarray:
        parts = [share * np.array(getattr(term, name)) for share, term in zip(shares, terms, strict=False)]
        return np.asarray(np.sum(parts, axis=0))

    return AddedLatency(
        any_gate=float(total("any_gate")),
        fixed=tuple(total("fixed").tolist()),
        slope=tuple(total("slope").tolist()),
    )


def _terms(model: CostModel) -> list[AddedLatency]:
    """Each term with a share of 1."""
    maps = np.array([fixed[_MAP] for fixed in model.fixed], dtype=float)
    weights = np.array([slope[_WEIGHTS] for slope in model.slope], dtype=float)
    stages = np.array([site.stage for site in model.sites])
    none = np.zeros_like(maps)
    by_stage = [maps * (stages == stage) for stage in sorted(set(stages.tolist()))]
    sums = [(0, none + 1, none), (1, none, none), (0, none, weights), (0, maps, none)]
    sums += [(0, own, none) for own in by_stage]
    return [
        AddedLatency(any_gate=base, fixed=tuple(fixed), slope=tuple(slope)) for base, fixed, slope in sums
    ]


def _left_out(design: np.ndarray, target: np.ndarray) -> float:
    """Sum of the squared errors of each network by a fit to the others."""
    rest = ~np.eye(len(target), dtype=bool)
    predicted = [design[i] @ _non_negative(design[rest[i]], target[rest[i]]) for i in range(len(target))]
    return float(np.sum((np.array(predicted) - target) ** 2))


def _non_negative(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    scale = np.abs(design).max(axis=0)
    scale[scale == 0] = 1.0
    return np.asarray(nnls(design / scale, target)[0] / scale)


def _changes(widths: np.ndarray, plain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gates = (widths != ABSENT).astype(float) - (plain != ABSENT)
    return gates, np.maximum(widths, 0).astype(float) - np.maximum(plain, 0)
