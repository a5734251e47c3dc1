"""Two outputs of one Gaussian process: an objective, and an attribute that is evidence about it.

The readings of a point, the objective's and the attribute's, are mixtures of two independent processes. Both have the
covariance of `_gp` with the same hyperparameters, so whatever shows in one output which parameters matter helps the
other; they differ in their variance and in their noise (a model of intrinsic coregionalisation: Álvarez, Rosasco &
Lawrence, "Kernels for vector-valued functions", 2012, section 4.2). Mixed, true values and noises each get any
correlation. If every point has both readings, the two processes separate, so their cost is that of two covariances to
factor. Readings without an attribute, and extrapolated ones, are readings of both with an error that is integrated
out.

The columns of the mixing matrix are (cos a, sin a) and (sin b, cos b). What is learned is a + b, how much the two
outputs have in common, and a - b. Both have a prior with a peak at 0, where the attribute's values say nothing of the
objective's, and heavy tails, so that an attribute that has much to do with the objective is believed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular

from se_nas.samplers._gp import drawn, explained
from se_nas.samplers._kernel import ChoiceCorrelations, Positions
from se_nas.samplers._likelihood import (
    NOISE,
    NOISE_FLOOR,
    Array,
    Covariance,
    Factored,
    Likelihood,
    Points,
    fitted,
    prior,
    scaled,
)

_OWN = 4
"""Hyperparameters that come after those of `_likelihood`, which the two processes share."""
_RATIO, _ANGLES = -4, slice(-2, None)
_NOISES = (NOISE - _OWN, -3)
_SCALE_SPREAD = 1.0
_NOISE_CENTRE = -1.5
"""Of the logarithm of both noises. With a second output noise can be told from signal, so it may be expected."""
_TOLERANCE = 1e-4
"""Of a fit. SciPy's own takes twice the steps and predicts no better."""
_ANGLE_SPREADS = (1.0, 0.5)
"""Scales of the Cauchy priors of a + b and a - b."""
_ANGLE_BOUND = 1.3
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
        values: (n, 2) readings; NaN in the second column where there is none.
        counts: (n,) how many readings each row is the mean of; 1 where the second reading is missing.
        extra: (n,) further variance of each first reading, in squared units; infinite if there is none.
        within: sum of squares and products (2, 2) of the single readings around their means, and its degrees of
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
        self._y = np.where(np.isnan(values), 0.0, (values - self._means) / self.scales)
        self._counts = np.ones(n) if counts is None else counts
        squares, dof = (np.zeros((2, 2)), 0) if within is None else within
        self._within = squares / np.outer(self.scales, self.scales), dof
        errors = np.zeros((n, 2))
        errors[:, 0] = 0.0 if extra is None else extra / self.scales[0] ** 2
        errors[~present, 1] = np.inf
        self._wrong = np.nonzero(errors)
        self._precision = 1 / errors[self._wrong]
        self._choices, self._by_cost = ChoiceCorrelations(positions), by_cost
        self.theta = self._fit() if theta is None else theta
        self._split()
        self._condition()

    def _fit(self) -> Array:
        sizes = len(self._choices.sizes), len(self._choices.continuous), self.points.estimates
        centre, spread = prior(*sizes, by_cost=self._by_cost)
        centre = np.concatenate([centre, [0.0, _NOISE_CENTRE, 0.0, 0.0]])
        spread = np.concatenate([spread, [_SCALE_SPREAD, spread[NOISE], _ANGLE_BOUND / 4, _ANGLE_BOUND / 4]])
        centre[NOISE - _OWN] = _NOISE_CENTRE
        likelihood = Likelihood(self._choices, self.points, self._counts, np.zeros(len(self.points)))
        (squares, dof), (at_point, at_output), y = self._within, self._wrong, self._y

        def objective(theta: Array) -> tuple[float, Array]:
            shared, ratio, excesses = _taken_apart(theta)
            mixing, slopes = _mixing(theta[_ANGLES])
            separate = np.linalg.inv(mixing)
            parts = likelihood.parts(shared)
            ats = [
                likelihood.factored(total, excess + NOISE_FLOOR)
                for total, excess in zip((parts.total, scaled(parts.total, ratio)), excesses, strict=True)
            ]
            if ats[0] is None or ats[1] is None:
                return 1e10, np.zeros_like(theta)
            factors: list[Factored] = [ats[0], ats[1]]
            latent = y @ separate.T
            alphas = np.stack([at.solved(u) for at, u in zip(factors, latent.T, strict=True)], axis=1)
            value = 0.5 * float((latent * alphas).sum()) + sum(at.logdet for at in factors)
            inverses = [at.inverse() for at in factors]
            # The derivative by the matrix that separates the readings, apart from its determinant.
            by_separate, complete = np.zeros((2, 2)), y
            if len(at_point):
                reach = [
                    likelihood.symmetric(inverse)[:, at_point] * separate[c, at_output]
                    for c, inverse in enumerate(inverses)
                ]
                inner, pull = np.diag(self._precision), np.zeros(len(at_point))
                for c in (0, 1):
                    inner += separate[c, at_output][:, None] * reach[c][at_point]
                    pull += separate[c, at_output] * alphas[at_point, c]
                root = cho_factor(inner, lower=True, check_finite=False)
                errors = -cho_solve(root, pull, check_finite=False)
                value += 0.5 * float(pull @ errors) + float(np.log(np.diag(root[0])).sum())
                complete = y.copy()
                np.add.at(complete, (at_point, at_output), errors)
                for c in (0, 1):
                    alphas[:, c] += reach[c] @ errors
                    solved = cho_solve(root, reach[c].T, check_finite=False)
                    inverses[c] = inverses[c] - likelihood.pairs(reach[c] @ solved)
                    np.add.at(by_separate[c], at_output, solved[np.arange(len(at_point)), at_point])
            by_separate += alphas.T @ complete
            qs = [
                0.5 * (inverse - likelihood.products(alpha))
                for inverse, alpha in zip(inverses, alphas.T, strict=True)
            ]
            grad = np.zeros_like(theta)
            grad[:-_OWN] = likelihood.gradient(parts, qs[0] + ratio * qs[1])
            grad[_RATIO] = likelihood.scaled_gradient(parts, qs[1], ratio)
            for c, (q, excess) in enumerate(zip(qs, excesses, strict=True)):
                noise, ss = excess + NOISE_FLOOR, float(separate[c] @ squares @ separate[c])
                value += 0.5 * dof * np.log(noise) + 0.5 * ss / noise
                by_separate[c] += squares @ separate[c] / noise
                grad[_NOISES[c]] = likelihood.noise_gradient(q, excess, (ss, dof))
            rows = len(y) + dof
            value += rows * float(np.log(np.linalg.det(mixing)))
            by_mixing = separate.T @ (rows * np.eye(2) - by_separate @ separate.T)
            grad[_ANGLES] = [(by_mixing * slope).sum() for slope in slopes]
            off = ((theta - centre) / spread)[:-2]
            value += 0.5 * float(off @ off)
            grad[:-2] += off / spread[:-2]
            angles, scales = theta[_ANGLES], np.array(_ANGLE_SPREADS)
            value += float(np.log1p((angles / scales) ** 2).sum())
            grad[_ANGLES] += 2 * angles / (scales**2 + angles**2)
            return value, grad

        return fitted(objective, centre, spread, tolerance=_TOLERANCE)

    def _split(self) -> None:
        shared, self._ratio, excesses = _taken_apart(self.theta)
        self._mixing = _mixing(self.theta[_ANGLES])[0]
        self._separate = np.linalg.inv(self._mixing)
        self._covariance = Covariance(self._choices, shared)
        self._noises = np.array([excess + NOISE_FLOOR for excess in excesses])

    def _condition(self) -> None:
        (at_point, at_output), latent = self._wrong, self._y @ self._separate.T
        self._roots, self._alphas, self._reach = [], [], []
        inner, pull = np.diag(self._precision), np.zeros(len(at_point))
        own = self._covariance(self.points, self.points)
        for c, k in enumerate((own, scaled(own, self._ratio))):
            k = k + np.diag(self._noises[c] / self._counts)
            root = cholesky(k, lower=True, check_finite=False)
            alpha = cho_solve((root, True), latent[:, c], check_finite=False)
            loads = self._separate[c, at_output]
            spread = np.zeros((len(k), len(at_point)))
            spread[at_point, np.arange(len(at_point))] = loads
            reach = cho_solve((root, True), spread, check_finite=False)
            inner += loads[:, None] * reach[at_point]
            pull += loads * alpha[at_point]
            self._roots.append(root)
            self._alphas.append(alpha)
            self._reach.append(reach)
        self._slack = cholesky(inner, lower=True, check_finite=False)
        errors = -cho_solve((self._slack, True), pull, check_finite=False)
        self._alphas = [
            alpha + reach @ errors for alpha, reach in zip(self._alphas, self._reach, strict=True)
        ]

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
        eye = np.eye(len(self.points))
        whiten = [
            solve_triangular(root, eye, lower=True, check_finite=False).T.astype(single)
            for root in self._roots
        ]
        unslack = solve_triangular(self._slack, np.eye(len(self._slack)), lower=True, check_finite=False).T
        reach = [(one @ unslack).astype(single) for one in self._reach]
        alphas = [alpha.astype(single) for alpha in self._alphas]
        mean, known = np.zeros(len(at)), np.zeros(len(at))
        for start in range(0, len(at), 512):
            piece = slice(start, start + 512)
            loose = np.zeros((len(at[piece]), len(unslack)), dtype=single)
            for c, cross in enumerate(self._crosses(at[piece], single)):
                mean[piece] += cross @ alphas[c]
                half = cross @ whiten[c]
                known[piece] += np.einsum("ij,ij->i", half, half)
                loose += cross @ reach[c]
            known[piece] -= np.einsum("ij,ij->i", loose, loose)
        var = np.maximum(self._variance(at) - known, 1e-10)
        return self._means[0] + self.scales[0] * mean, self.scales[0] * np.sqrt(var)

    def predict(self, at: Points) -> tuple[Array, Array]:
        """As `Surrogate.predict`."""
        mean, half, loose = self._seen(self._crosses(at))
        var = self._variance(at) - (half**2).sum(axis=0) + (loose**2).sum(axis=0)
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
        mean, half, loose = self._seen([weights[None] @ cross for cross in self._crosses(both)])
        variance = float(weights @ self._joint(both, both) @ weights - (half**2).sum() + (loose**2).sum())
        return float(self.scales[0] * mean[0]), float(self.scales[0]) * max(variance, 0.0) ** 0.5

    def draw(self, evaluated: Points, at: Points, draws: Array) -> tuple[Array, Array, Array]:
        """As `Surrogate.draw`."""
        count, both = len(evaluated), evaluated.followed_by(at)
        mean, half, loose = self._seen(self._crosses(both))
        joint = self._joint(both, evaluated) - half.T @ half[:, :count] + loose.T @ loose[:, :count]
        left = self._variance(at) - (half[:, count:] ** 2).sum(axis=0) + (loose[:, count:] ** 2).sum(axis=0)
        scale = float(self.scales[0])
        return drawn(self._means[0] + scale * mean, joint, left, scale, draws)

    def step(self, deviations: Array, at: Points) -> Array:
        """As `Surrogate.step`; a reading brings both values."""
        loads, cross = self._mixing[0], self._covariance(at, self.points)
        halves, loose = np.zeros((2, len(at))), []
        for c, (ratio, own) in enumerate(((1.0, cross), (self._ratio, scaled(cross, self._ratio)))):
            half = solve_triangular(self._roots[c], own.T, lower=True, check_finite=False)
            halves[c] = scaled(self._covariance.variance(at), ratio) - (half**2).sum(axis=0)
            reach = (own @ self._reach[c]).T
            loose.append(solve_triangular(self._slack, reach, lower=True, check_finite=False))
        unknown = np.einsum("ckn,dkn->ncd", np.stack(loose), np.stack(loose))
        unknown[:, [0, 1], [0, 1]] += np.maximum(halves.T, 0.0)
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

    def _seen(self, crosses: list[Array]) -> tuple[Array, Array, Array]:
        """What the readings say of points with these covariances.

        Returns:
            Means (n,), and two matrices with a column a point: the covariance that complete readings would explain is
            the first's product with itself, and what they do not for want of being complete is the second's.
        """
        mean = sum(cross @ alpha for cross, alpha in zip(crosses, self._alphas, strict=True))
        half = np.concatenate(
            [
                solve_triangular(root, cross.T, lower=True, check_finite=False)
                for root, cross in zip(self._roots, crosses, strict=True)
            ]
        )
        loose = sum((cross @ reach).T for cross, reach in zip(crosses, self._reach, strict=True))
        return np.asarray(mean), half, solve_triangular(self._slack, loose, lower=True, check_finite=False)

    def _joint(self, a: Points, b: Points) -> Array:
        """(len(a), len(b)) prior covariance of the objective."""
        return self._mixed(self._covariance(a, b))

    def _variance(self, a: Points) -> Array:
        """(len(a),) prior variance of the objective."""
        return self._mixed(self._covariance.variance(a))

    def _mixed(self, own: Array) -> Array:
        one, other = self._mixing[0] ** 2
        return np.asarray(one * own + other * scaled(own, self._ratio))


def _taken_apart(theta: Array) -> tuple[Array, float, list[float]]:
    """The hyperparameters of the shared covariance, the second variance in firsts, and the noises above the floor."""
    return theta[:-_OWN], float(np.exp(theta[_RATIO])), [float(np.exp(theta[place])) for place in _NOISES]


def _mixing(angles: Array) -> tuple[Array, tuple[Array, Array]]:
    """The mixing matrix (2, 2) from a + b and a - b, and its derivatives by them."""
    a, b = (angles[0] + angles[1]) / 2, (angles[0] - angles[1]) / 2
    mixing = np.array([[np.cos(a), np.sin(b)], [np.sin(a), np.cos(b)]])
    by_a = 0.5 * np.array([[-np.sin(a), 0.0], [np.cos(a), 0.0]])
    by_b = 0.5 * np.array([[0.0, np.cos(b)], [0.0, -np.sin(b)]])
    return mixing, (by_a + by_b, by_a - by_b)


def _correlation(mixing: Array, variances: Array) -> float:
    both = (mixing * variances) @ mixing.T
    return float(both[0, 1] / np.sqrt(both[0, 0] * both[1, 1]))
