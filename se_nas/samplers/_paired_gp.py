"""Two outputs of one Gaussian process: an objective, and an attribute that is evidence about it.

The readings of a point, the objective's and the attribute's, are mixtures of two independent processes. Both have the
covariance of `_gp` with the same hyperparameters, so whatever shows in one output which parameters matter helps the
other; they differ in their variance and in their noise (a model of intrinsic coregionalisation: Álvarez, Rosasco &
Lawrence, "Kernels for vector-valued functions", 2012, section 4.2). Mixed, true values and noises each get any
correlation. Readings that have both values separate into the two processes, so their cost is that of two covariances
to factor. Readings without the attribute are of the objective alone, a sum of both processes.

The columns of the mixing matrix are (cos a, sin a) and (sin b, cos b). What is learned is a + b, how much the two
outputs have in common, and a - b. Both have a prior with a peak at 0, where the attribute's values say nothing of the
objective's, and heavy tails, so that an attribute that has much to do with the objective is believed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from se_nas.samplers._gp import drawn, explained
from se_nas.samplers._kernel import ChoiceCorrelations, Positions
from se_nas.samplers._likelihood import NOISE_FLOOR, Array, Covariance, Points, fitted, scaled
from se_nas.samplers._paired_likelihood import PairedLikelihood, mixing_of, paired_prior, taken_apart

_TOLERANCE = 1e-4
"""Of a fit. SciPy's own takes twice the steps and predicts no better."""
COPY = 1e-4
"""An attribute of which a linear function of the objective leaves at most this share of variance is a copy of it."""


def tells(values: Array) -> bool:
    """Whether the second column of ``values`` (n, 2), NaN where it is missing, may say anything about the first.

    It does not if fewer than three readings have it, if it is constant, or if it is a linear function of the first.
    """
    both = values[~np.isnan(values[:, 1])]
    if len(both) < 3:
        return False
    centred = both - both.mean(axis=0)
    scale = np.abs(centred).max(axis=0)
    if (scale <= 1e-12 * np.maximum(1.0, np.abs(both.mean(axis=0)))).any():
        return False
    centred /= scale
    squares, product = (centred**2).sum(axis=0), centred[:, 0] @ centred[:, 1]
    return bool(1 - product**2 / squares.prod() > COPY)


class PairedSurrogate:
    """A process of two outputs, fitted on readings; it predicts the first, in the unit of its readings.

    Args:
        positions, points, by_cost: as in `Surrogate`.
        values: (n, 2) readings; those without a second one come last and have NaN there.
        counts: (n,) how many readings each row is the mean of.
        extra: (n,) further variance of each first reading that has no second, in squared units; 0 elsewhere.
        within: sum of squares and products (2, 2) of the complete readings around their means, and its degrees of
            freedom.
        theta: hyperparameters, from an earlier fit; None: they are fitted here.
    """

    def __init__(
        self,
        positions: Positions,
        points: Points,
        values: Array,
        *,
        counts: Array | None = None,
        extra: Array | None = None,
        within: tuple[Array, int] | None = None,
        by_cost: bool = True,
        theta: Array | None = None,
    ) -> None:
        n = len(points)
        self.points = points
        present = ~np.isnan(values[:, 1])
        self._means = np.array([values[:, 0].mean(), values[present, 1].mean()])
        spreads = np.array([values[:, 0].std(), values[present, 1].std()])
        self.scales = np.where(spreads > 1e-12 * np.maximum(1.0, np.abs(self._means)), spreads, 1.0)
        standard, count = (values - self._means) / self.scales, int(present.sum())
        self._whole, self._single = standard[:count], standard[count:, 0]
        self._counts = np.ones(n) if counts is None else counts
        self._extra = np.zeros(n - count) if extra is None else extra[count:] / self.scales[0] ** 2
        squares, dof = (np.zeros((2, 2)), 0) if within is None else within
        self._within = squares / np.outer(self.scales, self.scales), dof
        self._choices, self._by_cost = ChoiceCorrelations(positions), by_cost
        self.theta = self._fit() if theta is None else theta
        self._split()
        self._condition()

    def _fit(self) -> Array:
        sizes = len(self._choices.sizes), len(self._choices.continuous), self.points.estimates
        centre, spread = paired_prior(*sizes, by_cost=self._by_cost)
        likelihood = PairedLikelihood(
            self._choices,
            self.points,
            self._whole,
            self._single,
            counts=self._counts,
            extra=self._extra,
            within=self._within,
            centre=centre,
            spread=spread,
        )
        return fitted(likelihood, centre, spread, tolerance=_TOLERANCE)

    def _split(self) -> None:
        shared, self._ratio, excesses = taken_apart(self.theta)
        self._mixing, self._separate = mixing_of(self.theta)
        self._covariance = Covariance(self._choices, shared)
        self._noises = np.array([excess + NOISE_FLOOR for excess in excesses])

    def _condition(self) -> None:
        count, n = len(self._whole), len(self.points)
        latent, own = self._separate @ self._whole.T, self._covariance(self.points, self.points)
        self._roots, self._alphas, self._reach = [], [], []
        left, rest = np.diag(self._extra), self._single.copy()
        covariances = own, scaled(own, self._ratio)
        for load, noise, k, u in zip(self._mixing[0], self._noises, covariances, latent, strict=True):
            k = k + np.diag(noise / self._counts)
            root = cholesky(k[:count, :count], lower=True, check_finite=False)
            alpha = cho_solve((root, True), u, check_finite=False)
            told = cho_solve((root, True), k[:count, count:], check_finite=False)
            left += load**2 * (k[count:, count:] - k[count:, :count] @ told)
            rest -= load * (k[count:, :count] @ alpha)
            self._roots.append(root)
            self._alphas.append(np.concatenate([alpha, np.zeros(n - count)]))
            self._reach.append(load * np.concatenate([-told, np.eye(n - count)]))
        self._last = cholesky(left, lower=True, check_finite=False)
        pull = cho_solve((self._last, True), rest, check_finite=False)
        self._alphas = [alpha + reach @ pull for alpha, reach in zip(self._alphas, self._reach, strict=True)]

    @property
    def noise(self) -> float:
        """Deviation of one reading, in the unit of the readings."""
        return float(np.sqrt(self._mixing[0] ** 2 @ self._noises)) * float(self.scales[0])

    def correlation(self) -> float:
        """Correlation of the two outputs' true values."""
        return _correlation(self._mixing, np.array([1.0, self._ratio]))

    def noise_correlation(self) -> float:
        """Correlation of the noises of two readings of a point."""
        return _correlation(self._mixing, self._noises)

    def rough(self, at: Points) -> tuple[Array, Array]:
        """As `Surrogate.rough`."""
        single = np.float32
        count = len(self._whole)
        eye = np.eye(count)
        whiten = [
            solve_triangular(root, eye, lower=True, check_finite=False).T.astype(single)
            for root in self._roots
        ]
        last = solve_triangular(self._last, np.eye(len(self._last)), lower=True, check_finite=False).T
        reach = [(one @ last).astype(single) for one in self._reach]
        alphas = [alpha.astype(single) for alpha in self._alphas]
        mean, known = np.zeros(len(at)), np.zeros(len(at))
        for start in range(0, len(at), 512):
            piece = slice(start, start + 512)
            more = np.zeros((len(at[piece]), len(last)), dtype=single)
            for c, cross in enumerate(self._crosses(at[piece], single)):
                mean[piece] += cross @ alphas[c]
                half = cross[:, :count] @ whiten[c]
                known[piece] += np.einsum("ij,ij->i", half, half)
                more += cross @ reach[c]
            known[piece] += np.einsum("ij,ij->i", more, more)
        var = np.maximum(self._variance(at) - known, 1e-10)
        return self._means[0] + self.scales[0] * mean, self.scales[0] * np.sqrt(var)

    def predict(self, at: Points) -> tuple[Array, Array]:
        """As `Surrogate.predict`."""
        mean, half = self._seen(self._crosses(at))
        var = self._variance(at) - (half**2).sum(axis=0)
        return self._means[0] + self.scales[0] * mean, self.scales[0] * np.sqrt(np.maximum(var, 1e-10))

    def trusts(self, at: Points) -> Array:
        """As `Surrogate.trusts`."""
        parts = np.zeros((at.estimates, len(at)))
        for load, ratio, alpha in zip(self._mixing[0], (1.0, self._ratio), self._alphas, strict=True):
            parts += load * ratio * self._covariance.by_estimates(at, self.points, alpha)
        return explained(self.predict(at)[0], self.scales[0] * parts)

    def contrast(self, plus: Points, minus: Points) -> tuple[float, float]:
        """As `Surrogate.contrast`."""
        both = plus.followed_by(minus)
        weights = np.concatenate([np.full(len(plus), 1 / len(plus)), np.full(len(minus), -1 / len(minus))])
        mean, half = self._seen([weights[None] @ cross for cross in self._crosses(both)])
        variance = float(weights @ self._joint(both, both) @ weights - (half**2).sum())
        return float(self.scales[0] * mean[0]), float(self.scales[0]) * max(variance, 0.0) ** 0.5

    def draw(self, evaluated: Points, at: Points, draws: Array) -> tuple[Array, Array, Array]:
        """As `Surrogate.draw`."""
        count, both = len(evaluated), evaluated.followed_by(at)
        mean, half = self._seen(self._crosses(both))
        joint = self._joint(both, evaluated) - half.T @ half[:, :count]
        left = self._variance(at) - (half[:, count:] ** 2).sum(axis=0)
        scale = float(self.scales[0])
        return drawn(self._means[0] + scale * mean, joint, left, scale, draws)

    def step(self, deviations: Array, at: Points) -> Array:
        """As `Surrogate.step`; a reading brings both values."""
        loads, cross = self._mixing[0], self._covariance(at, self.points)
        left, told, count = np.zeros((2, len(at))), [], len(self._whole)
        for c, (ratio, own) in enumerate(((1.0, cross), (self._ratio, scaled(cross, self._ratio)))):
            half = solve_triangular(self._roots[c], own[:, :count].T, lower=True, check_finite=False)
            left[c] = scaled(self._covariance.variance(at), ratio) - (half**2).sum(axis=0)
            reach = (own @ self._reach[c]).T
            told.append(solve_triangular(self._last, reach, lower=True, check_finite=False))
        unknown = -np.einsum("ckn,dkn->ncd", np.stack(told), np.stack(told))
        unknown[:, [0, 1], [0, 1]] += left.T
        unknown[:, [0, 1], [0, 1]] = np.maximum(unknown[:, [0, 1], [0, 1]], 0.0)
        gain = unknown @ loads
        moved = np.linalg.solve(unknown + np.diag(self._noises), gain[:, :, None])[:, :, 0]
        return np.asarray(self.scales[0] * np.sqrt(np.maximum((gain * moved).sum(axis=1), 0.0)))

    def _crosses(self, at: Points, dtype: type[np.floating[Any]] = np.float64) -> list[Array]:
        """For both processes the (len(at), n) covariance of the objective at ``at`` with it at the readings."""
        own = self._covariance(at, self.points, dtype)
        return [
            load.astype(dtype) * k
            for load, k in zip(self._mixing[0], (own, scaled(own, self._ratio)), strict=True)
        ]

    def _seen(self, crosses: list[Array]) -> tuple[Array, Array]:
        """What the readings say of points with these covariances.

        Returns:
            Means (n,), and a matrix with a column a point, whose product with itself is the covariance that the
            readings explain.
        """
        mean = sum(cross @ alpha for cross, alpha in zip(crosses, self._alphas, strict=True))
        more = sum((cross @ reach).T for cross, reach in zip(crosses, self._reach, strict=True))
        sides = [cross[:, : len(self._whole)].T for cross in crosses] + [more]
        half = [
            solve_triangular(root, side, lower=True, check_finite=False)
            for root, side in zip([*self._roots, self._last], sides, strict=True)
        ]
        return np.asarray(mean), np.concatenate(half)

    def _joint(self, a: Points, b: Points) -> Array:
        """(len(a), len(b)) prior covariance of the objective."""
        return self._mixed(self._covariance(a, b))

    def _variance(self, a: Points) -> Array:
        """(len(a),) prior variance of the objective."""
        return self._mixed(self._covariance.variance(a))

    def _mixed(self, own: Array) -> Array:
        one, other = self._mixing[0] ** 2
        return np.asarray(one * own + other * scaled(own, self._ratio))


def _correlation(mixing: Array, variances: Array) -> float:
    both = (mixing * variances) @ mixing.T
    return float(both[0, 1] / np.sqrt(both[0, 0] * both[1, 1]))
