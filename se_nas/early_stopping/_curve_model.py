"""How much accuracy a training will still gain, learned from finished ones: Bayesian linear regression."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_DOF = 2.0
"""Prior degrees of freedom of the residual variance."""
_RELATIVE = 0.03
"""Prior guess of the residual variance, as a share of the variance of the gains."""
_FLOOR = 0.005
"""Least prior deviation of the residual: a handful of equal gains prove nothing."""
_MARGIN = 1.0
"""Percentage points beyond 0 and 100 %, so that both stay finite."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)


class CurveModel:
    """The gain after a rung, from what is known at it: normal-inverse-gamma prior, Student's t predictions.

    The prior precision of the slopes (on standardised features) is the one with the largest evidence.

    Args:
        rows: (n, n_features), n at least 1.
        gains: (n,) final accuracy minus the accuracy at the rung, on any scale, the same for all.
    """

    def __init__(self, rows: Array, gains: Array) -> None:
        self._centre, spread = rows.mean(axis=0), rows.std(axis=0)
        # A feature that never varied says nothing, and must not divide by zero.
        self._spread = np.where(spread > 1e-9 * np.maximum(1.0, np.abs(self._centre)), spread, np.inf)
        self._mean = float(gains.mean())
        x = (rows - self._centre) / self._spread
        y = gains - self._mean
        guess = _RELATIVE * float(y.var()) + _FLOOR**2
        best = -np.inf
        for precision in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0):
            matrix = x.T @ x + precision * np.eye(x.shape[1])
            slopes = np.linalg.solve(matrix, x.T @ y)
            dof = _DOF + len(y) - 1
            scale = _DOF * guess + float(y @ y - slopes @ (x.T @ y))
            _, logdet = np.linalg.slogdet(matrix)
            evidence = 0.5 * (x.shape[1] * np.log(precision) - logdet) - 0.5 * dof * np.log(scale)
            if evidence > best:
                best = evidence
                self._slopes, self._matrix, self._dof, self._variance = slopes, matrix, dof, scale / dof
        self._count = len(y)

    def predict(self, row: list[float], now: float, level: float = np.inf) -> tuple[float, float, float]:
        """Mean and deviation of the final accuracy, and the probability that it is at least ``level``."""
        # Runs that stop nothing need not have it in memory.
        from scipy.special import stdtr

        x = (np.array(row) - self._centre) / self._spread
        mean = now + self._mean + float(x @ self._slopes)
        scale = self._variance * (1 + 1 / self._count + float(x @ np.linalg.solve(self._matrix, x)))
        deviation = float(np.sqrt(scale * self._dof / (self._dof - 2)))
        return mean, deviation, float(stdtr(self._dof, (mean - level) / np.sqrt(scale)))


def stretched(accuracy: float) -> float:
    """Logit of an accuracy in percent: a point counts more near 100, and learning curves look alike."""
    inside = min(max(accuracy, 0.0), 100.0)
    return math.log((inside + _MARGIN) / (100.0 + _MARGIN - inside))


def in_percent(mean: float, sd: float) -> tuple[float, float]:
    """Mean and deviation in percent of an accuracy whose `stretched` value is normal with ``mean`` and ``sd``."""
    values = (100.0 + 2 * _MARGIN) / (1 + np.exp(-(mean + sd * _NODES))) - _MARGIN
    weights = _WEIGHTS / _WEIGHTS.sum()
    centre = float(weights @ values)
    return centre, float(np.sqrt(weights @ (values - centre) ** 2))
