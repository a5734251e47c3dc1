"""What gates add to a backbone's latency, as a sum over gates fitted to measured networks.

Five sums are tried, each with one more term than the one before: an overhead per gate; one for having gates at all
(maps that are kept longer change where everything else lies in memory); a time per weight of a gate; a time per
element of its map; and the latter by stage. If gates were timed inside the running network (``in_place``), sums that
begin with a multiple of these times are tried first: they miss only what a gate does to the layers around it.

No term is below zero. The first sum is taken whose leave-one-out error is within one standard error of the smallest
(Breiman et al., Classification and Regression Trees, 1984, section 3.4.3): with noisy timings, terms that cannot be
distinguished from noise would make predictions worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from se_nas.cost.closed_form import COST_NAMES, CostModel
from se_nas.documents.typed import Real
from se_nas.sites import ABSENT

_MAP = COST_NAMES.index("se_elementwise_ops")
_WEIGHTS = COST_NAMES.index("macs")


@dataclass(frozen=True, kw_only=True)
class AddedLatency:
    """What gates add to the unmodified backbone, as shares of its latency.

    Attributes:
        any_gate: what any difference from the backbone adds.
        fixed: for every site what a gate adds whatever its width.
        slope: for every site what each hidden channel adds.
    """

    any_gate: Real
    fixed: tuple[Real, ...]
    slope: tuple[Real, ...]

    def added(self, widths: np.ndarray, plain: np.ndarray) -> np.ndarray:
        """Shares of the baseline, shape (n,), for widths of shape (n, sites)."""
        gates, hidden = _changes(widths, plain)
        changed = (gates != 0).any(axis=1) | (hidden != 0).any(axis=1)
        return np.asarray(
            self.any_gate * changed + gates @ np.array(self.fixed) + hidden @ np.array(self.slope)
        )


def unknowns(model: CostModel) -> int:
    """Independent terms of the longest sum: the time of map elements is that of all stages together."""
    return len(_terms(model)) - 1


def fit(
    model: CostModel,
    plain: np.ndarray,
    widths: np.ndarray,
    ratios: np.ndarray,
    spreads: np.ndarray,
    in_place: np.ndarray | None = None,
) -> AddedLatency:
    """The sum that best predicts networks that it has not seen.

    Args:
        model: gives map sizes and weights of every site.
        plain: widths of the unmodified backbone, shape (sites,).
        widths: of the measured networks, shape (n, sites), none of them the backbone.
        ratios: measured, shape (n,).
        spreads: widths of their intervals, above 0, shape (n,).
        in_place: time of each gate as a share of everything outside gates, shape (n, sites); None if unknown.
    """
    terms = _terms(model)
    sums = [terms[:count] for count in sorted({1, 2, 3, 4, len(terms)})]
    target = (ratios - 1) / spreads
    candidates: list[AddedLatency] = []
    errors: list[np.ndarray] = []
    if in_place is not None:
        timed = _own_times(plain, widths, in_place)
        sums = [[timed, *terms[:count]] for count in (0, 1, 2, 4)] + sums
    for parts in sums:
        design = np.stack([part.added(widths, plain) for part in parts], axis=1) / spreads[:, None]
        candidates.append(_weighted(parts, _non_negative(design, target)))
        errors.append(_left_out(design, target))
    return candidates[_simplest(np.array(errors), float(target @ target))]


def _simplest(errors: np.ndarray, scale: float) -> int:
    """First row whose sum is within one standard error of the smallest; ``scale`` · 1e-12 allows for rounding."""
    excess = errors - errors[np.argmin(errors.sum(axis=1))]
    doubt = excess.std(axis=1, ddof=1) * np.sqrt(errors.shape[1])
    return int(np.argmax(excess.sum(axis=1) <= np.maximum(doubt, 1e-12 * scale)))


def _own_times(plain: np.ndarray, widths: np.ndarray, in_place: np.ndarray) -> AddedLatency:
    """A line through each site's times over the hidden width, as shares of the unmodified backbone."""
    gated, hidden = widths != ABSENT, np.maximum(widths, 0).astype(float)
    lines = np.zeros((len(plain), 2))
    for site in np.flatnonzero(gated.any(axis=0)).tolist():
        rows = gated[:, site]
        design = np.stack([np.ones(rows.sum()), hidden[rows, site]], axis=1)
        lines[site] = _non_negative(design, in_place[rows, site])
    native = (plain != ABSENT) @ lines[:, 0] + np.maximum(plain, 0) @ lines[:, 1]
    lines /= 1 + native
    return AddedLatency(any_gate=0.0, fixed=tuple(lines[:, 0].tolist()), slope=tuple(lines[:, 1].tolist()))


def _weighted(parts: list[AddedLatency], shares: np.ndarray) -> AddedLatency:
    def total(name: str) -> np.ndarray:
        terms = [share * np.array(getattr(part, name)) for share, part in zip(shares, parts, strict=True)]
        return np.asarray(np.sum(terms, axis=0))

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


def _left_out(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Squared error of each network by a fit to the others."""
    rest = ~np.eye(len(target), dtype=bool)
    predicted = [design[i] @ _non_negative(design[rest[i]], target[rest[i]]) for i in range(len(target))]
    return np.asarray((np.array(predicted) - target) ** 2)


def _non_negative(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    # Runs without latencies need not have it in memory.
    from scipy.optimize import nnls

    scale = np.abs(design).max(axis=0)
    scale[scale == 0] = 1.0
    return np.asarray(nnls(design / scale, target)[0] / scale)


def _changes(widths: np.ndarray, plain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gates = (widths != ABSENT).astype(float) - (plain != ABSENT)
    return gates, np.maximum(widths, 0).astype(float) - np.maximum(plain, 0)
