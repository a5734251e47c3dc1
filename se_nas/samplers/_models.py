"""The model of an objective from the readings of a history, with the evidence about it or without."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from se_nas.samplers._gp import Surrogate
from se_nas.samplers._grid import Array, Index
from se_nas.samplers._likelihood import Points
from se_nas.samplers._observations import History
from se_nas.samplers._paired_gp import PairedSurrogate, tells
from se_nas.samplers._reachable import Reachable

Model = Surrogate | PairedSurrogate


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What evidence about an objective has come to.

    Attributes:
        readings: complete readings that have the attribute.
        correlation: of the attribute's true value with the objective's, over the points that were read; None if
            the attribute says nothing: too few readings have it, it is constant, or it is a copy of the objective.
        noise_correlation: of their noises, between readings of one point; None as above.
        equivalent_readings: how many readings of a point would leave its true value as uncertain as it is, on
            average over the front of means.
    """

    readings: int
    correlation: float | None
    noise_correlation: float | None
    equivalent_readings: float


def says_more(history: History, chosen: Index, column: int) -> bool:
    """Whether the evidence of the readings ``chosen`` may say more about an objective than it says itself."""
    return tells(_both(history, chosen, column))


def gathered(
    space: Reachable,
    history: History,
    chosen: Index,
    column: int,
    *,
    paired: bool,
    by_cost: bool,
    theta: Array | None = None,
) -> Model:
    """The model of the readings ``chosen``; complete ones of a point are pooled, and their scatter tells the noise.

    Args:
        column: number of the objective.
        paired: whether the evidence about it is modelled too.
        by_cost: see `Surrogate`.
        theta: hyperparameters, from an earlier fit; None: they are fitted here.
    """
    rows, extra = history.rows[chosen], history.extra[chosen, column]
    values = _both(history, chosen, column)[:, : 2 if paired else 1]
    whole = (extra == 0) & ~np.isnan(values).any(axis=1)
    unique, member = np.unique(rows[whole], axis=0, return_inverse=True)
    member = member.reshape(-1)
    counts = np.bincount(member, minlength=len(unique)).astype(float)
    means = np.stack(
        [np.bincount(member, weights=v, minlength=len(unique)) / counts for v in values[whole].T], axis=1
    )
    scatter, freedom = values[whole] - means[member], int(whole.sum() - len(unique))
    points = space.points(np.concatenate([unique, rows[~whole]]))
    readings = np.concatenate([means, values[~whole]])
    counts = np.concatenate([counts, np.ones(int((~whole).sum()))])
    variances = np.concatenate([np.zeros(len(unique)), extra[~whole] ** 2])
    positions = space.positions
    if paired:
        return PairedSurrogate(
            positions, points, readings, counts=counts, extra=variances,
            within=(scatter.T @ scatter, freedom), by_cost=by_cost, theta=theta,
        )  # fmt: skip
    return Surrogate(
        positions, points, readings[:, 0], counts=counts, extra=variances,
        within=(float((scatter**2).sum()), freedom), by_cost=by_cost, theta=theta,
    )  # fmt: skip


def _both(history: History, chosen: Index, column: int) -> Array:
    """(n, 2) readings of an objective, and of what is evidence about it."""
    return np.stack([history.values[chosen, column], history.evidence[chosen, column]], axis=1)


def equivalent_readings(model: Model, points: Points) -> float:
    """Readings of each point that would leave it as uncertain as it is; the mean of the variances counts."""
    return float(model.noise**2 / (model.predict(points)[1] ** 2).mean())
