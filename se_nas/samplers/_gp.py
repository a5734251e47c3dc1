"""A Gaussian process over categorical parameters, for few and noisy readings.

The covariance of two points is a sum of

* main effects, one variance per parameter (additive Gaussian processes: Duvenaud et al., NeurIPS 2011);
* pairwise effects, the second elementary symmetric polynomial of the main effects (ibid., equation 5);
* everything else: an exponential of the weighted Hamming distance;
* a linear trend in the given features (known costs, a cheap estimate), which a few points suffice to learn.

If the choices of a parameter have an order, near ones correlate more. How far that holds is learned (`_kernel`),
so an order that means nothing costs little. Hyperparameters are the maximum of the posterior under weak priors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs
from scipy.optimize import minimize

from se_nas.samplers._kernel import ChoiceCorrelations

Array = NDArray[np.float64]
Index = NDArray[np.int64]

_BIAS = 9.0
"""Variance of the constant, in variances of the readings: large, so it is practically unknown."""
_NOISE_FLOOR = 1e-4
_PAIR, _REST, _RANGE, _SHARE, _SCALE, _POWER, _TREND, _NOISE = range(-8, 0)
_ORDER = slice(_SHARE, _POWER + 1)
# The noise starts at 0.29 of the readings' deviation: networks of one space differ little, and a prior with less
# noise makes the first models far too certain.
# If choices are ordered by what they cost, fits to many readings nearly always find that the order explains almost
# everything (a logit of 5 and more). An order by value may mislead: 0 may mean "none", other numbers a divisor.
_CENTRES = (-1.9, -1.9, 0.7, 2.5, 0.0, -0.7, -0.7, -2.5)
_SPREADS = (1.0, 1.0, 0.7, 2.0, 0.5, 0.5, 1.0, 1.0)
_SHARE_BY_VALUE, _SCALE_BY_VALUE = (2.0, 1.5), (-0.4, 0.5)


@dataclass(frozen=True, kw_only=True)
class Points:
    """Where the process is read or predicted.

    Attributes:
        index: (n, n_params) index of each parameter's choice.
        features: (n, n_features) standardised features of the linear trend.
    """

    index: Index
    features: Array

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Points:
        return Points(index=self.index[rows], features=self.features[rows])


class Surrogate:
    """A process fitted on readings; it predicts means and deviations in the unit of the readings.

    Args:
        positions: for every parameter, the (n_choices,) positions in [0, 1] of its choices on their order;
            NaN for a choice that has none.
        points: where readings were taken; rows may repeat.
        values: (n,) readings.
        counts: (n,) how many readings each value is the mean of.
        extra: (n,) further variance of each value (0 for a complete reading), in squared units.
        within: sum of squares of the single readings around their means, and its degrees of freedom.
        by_cost: whether the positions follow a cost, which tells more than the choices' values do.
        theta: hyperparameters, from an earlier fit; None: they are fitted here.
    """

    def __init__(
        self,
        positions: list[Array],
        points: Points,
        values: Array,
        *,
        counts: Array | None = None,
        extra: Array | None = None,
        within: tuple[float, int] = (0.0, 0),
        by_cost: bool = True,
        theta: Array | None = None,
    ) -> None:
        n = len(points)
        self.points = points
        self._positions = positions
        self._offsets = np.cumsum([0] + [len(p) for p in positions])
        self._mean = float(values.mean())
        spread = float(values.std())
        self.scale = spread if spread > 1e-12 * max(1.0, abs(self._mean)) else 1.0
        self._y = (values - self._mean) / self.scale
        self._counts = np.ones(n) if counts is None else counts
        self._extra = np.zeros(n) if extra is None else extra / self.scale**2
        self._within = (within[0] / self.scale**2, within[1])
        self._choices, self._by_cost = ChoiceCorrelations(positions), by_cost
        self.theta = self._fit() if theta is None else theta
        self._tables = self._choices.tables(*self.theta[_ORDER])
        self._condition()

    def _prior(self) -> tuple[Array, Array]:
        d = len(self._positions)
        centre, spread = np.append(np.full(d, -np.log(d)), _CENTRES), np.append(np.ones(d), _SPREADS)
        if not self._by_cost:
            centre[_SHARE], spread[_SHARE] = _SHARE_BY_VALUE
            centre[_SCALE], spread[_SCALE] = _SCALE_BY_VALUE
        return centre, spread

    def covariance(self, a: Points, b: Points, dtype: type[np.floating[Any]] = np.float64) -> Array:
        """(len(a), len(b)) prior covariance of the standardised function."""
        theta = self.theta
        weights = np.exp(theta[: len(self._positions)])
        columns = np.concatenate(
            [w * t[:, b.index[:, d]] for d, (w, t) in enumerate(zip(weights, self._tables, strict=True))]
        )
        columns = columns.astype(dtype)
        onehot = np.zeros((len(a), self._offsets[-1]), dtype=dtype)
        for d, offset in enumerate(self._offsets[:-1]):
            onehot[np.arange(len(a)), offset + a.index[:, d]] = 1.0
        main = onehot @ columns
        out = main * main
        out -= onehot @ (columns * columns)
        out *= float(0.5 * np.exp(theta[_PAIR]))
        out += float(np.exp(theta[_TREND])) * (a.features.astype(dtype) @ b.features.T.astype(dtype))
        out += _BIAS
        out += main
        main -= float(weights.sum())
        main *= float(np.exp(theta[_RANGE]))
        np.exp(main, out=main)
        main *= float(np.exp(theta[_REST]))
        out += main
        return out

    def variance(self, a: Points) -> Array:
        """(len(a),) prior variance of the standardised function."""
        theta, weights = self.theta, np.exp(self.theta[: len(self._positions)])
        pairs = 0.5 * (weights.sum() ** 2 - (weights**2).sum())
        flat = _BIAS + weights.sum() + np.exp(theta[_PAIR]) * pairs + np.exp(theta[_REST])
        return flat + np.exp(theta[_TREND]) * (a.features**2).sum(axis=1)

    def _fit(self) -> Array:
        centre, spread = self._prior()
        if len(self.points) < 3 or not self._y.any():
            return centre
        index, d, n = self.points.index, len(self._positions), len(self.points)
        # The covariance is symmetric, so everything below is for the pairs i >= j only.
        i, j = np.tril_indices(n)
        twice = np.where(i == j, 1.0, 2.0)
        place, diagonal = i * n + j, np.flatnonzero(i == j)
        codes = np.stack([index[i, k] * len(self._positions[k]) + index[j, k] for k in range(d)])
        r = (index.T[:, i] == index.T[:, j]).astype(float)
        squares = r * r
        ordered = self._choices.ordered
        linear = (self.points.features @ self.points.features.T)[i, j]
        y, counts, extra, (ss, dof) = self._y, self._counts, self._extra, self._within

        def objective(theta: Array) -> tuple[float, Array]:
            w = np.exp(theta[:d])
            pair, rest, reach = np.exp(theta[_PAIR]), np.exp(theta[_REST]), np.exp(theta[_RANGE])
            trend, noise = np.exp(theta[_TREND]), np.exp(theta[_NOISE]) + _NOISE_FLOOR
            tables = self._choices.tables(*theta[_ORDER])
            for k in ordered:
                np.take(tables[k].ravel(), codes[k], out=r[k])
                np.multiply(r[k], r[k], out=squares[k])
            main = w @ r
            far = rest * np.exp(reach * (main - w.sum()))
            both = 0.5 * (main * main - (w * w) @ squares)
            k_matrix = np.zeros((n, n))
            flat = k_matrix.ravel()
            flat[place] = _BIAS + trend * linear + main + pair * both + far
            flat[:: n + 1] += noise / counts + extra
            # The lower half in C's order is the upper half in Fortran's, so that LAPACK works in place.
            root, failed = dpotrf(k_matrix.T, lower=0, clean=0, overwrite_a=1)
            if failed:
                return 1e10, np.zeros_like(theta)
            logdet = float(np.log(np.diag(root)).sum())
            alpha = dpotrs(root, y, lower=0)[0]
            inverse = dpotri(root, lower=0, overwrite_c=1)[0].T.ravel()[place]
            value = 0.5 * y @ alpha + logdet + 0.5 * dof * np.log(noise) + 0.5 * ss / noise
            q = 0.5 * (inverse - alpha[i] * alpha[j])
            at_noise = (q[diagonal] / counts).sum() + 0.5 * dof / noise - 0.5 * ss / noise**2
            q *= twice
            qs = q * (1 + pair * main + reach * far)
            by_far = q @ far
            grad = np.empty_like(theta)
            grad[:d] = w * (r @ qs - pair * w * (squares @ q) - reach * by_far)
            grad[_PAIR] = pair * (q @ both)
            grad[_REST] = by_far
            grad[_RANGE] = reach * ((q * far) @ (main - w.sum()))
            grad[_TREND] = trend * (q @ linear)
            grad[_NOISE] = np.exp(theta[_NOISE]) * at_noise
            grad[_ORDER] = 0.0
            for k in ordered:
                # Derivative by the correlation of two choices: the sum over all pairs of points that have them.
                size = tables[k].size
                worth = w[k] * (
                    np.bincount(codes[k], weights=qs, minlength=size)
                    - pair * w[k] * tables[k].ravel() * np.bincount(codes[k], weights=q, minlength=size)
                )
                slopes = self._choices.slopes(k, *theta[_ORDER])
                grad[_ORDER] += [worth @ slope.ravel() for slope in slopes]
            off = (theta - centre) / spread
            return value + 0.5 * off @ off, grad + off / spread

        bounds = list(zip(centre - 4 * spread, centre + 4 * spread, strict=True))
        options = {"maxiter": 60}
        # One start suffices: of 324 fits to 3 to 100 readings of 9 tables, none had a better optimum elsewhere.
        return minimize(objective, centre, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x

    def _condition(self) -> None:
        k = self.covariance(self.points, self.points)
        noise = np.exp(self.theta[_NOISE]) + _NOISE_FLOOR
        k[np.diag_indices_from(k)] += noise / self._counts + self._extra
        self._root = cholesky(k, lower=True, check_finite=False)
        self._alpha = cho_solve((self._root, True), self._y, check_finite=False)

    @property
    def noise(self) -> float:
        """Deviation of one reading, in the unit of the readings."""
        return float(np.sqrt(np.exp(self.theta[_NOISE]) + _NOISE_FLOOR)) * self.scale

    def rough(self, at: Points) -> tuple[Array, Array]:
        """Mean and deviation (n,) as in `predict`, but in single precision, to sieve many points."""
        whiten = solve_triangular(self._root, np.eye(len(self._root)), lower=True, check_finite=False)
        alpha, whiten = self._alpha.astype(np.float32), whiten.T.astype(np.float32)
        mean, known = np.empty(len(at)), np.empty(len(at))
        # Pieces that fit a processor's cache make this twice as fast.
        for start in range(0, len(at), 512):
            piece = slice(start, start + 512)
            cross = self.covariance(at[piece], self.points, np.float32)
            mean[piece] = cross @ alpha
            half = cross @ whiten
            known[piece] = np.einsum("ij,ij->i", half, half)
        var = np.maximum(self.variance(at) - known, 1e-10)
        return self._mean + self.scale * mean, self.scale * np.sqrt(var)

    def predict(self, at: Points) -> tuple[Array, Array]:
        """Mean and deviation (n,) of the true function, without the noise of a reading."""
        cross = self.covariance(at, self.points)
        mean = cross @ self._alpha
        half = solve_triangular(self._root, cross.T, lower=True, check_finite=False)
        var = self.variance(at) - np.einsum("ij,ij->j", half, half)
        return self._mean + self.scale * mean, self.scale * np.sqrt(np.maximum(var, 1e-10))

    def contrast(self, plus: Points, minus: Points) -> tuple[float, float]:
        """Mean and deviation of the average of the true function over ``plus`` less that over ``minus``."""
        both = Points(
            index=np.concatenate([plus.index, minus.index]),
            features=np.concatenate([plus.features, minus.features]),
        )
        weights = np.concatenate([np.full(len(plus), 1 / len(plus)), np.full(len(minus), -1 / len(minus))])
        cross = weights @ self.covariance(both, self.points)
        half = solve_triangular(self._root, cross, lower=True, check_finite=False)
        variance = float(weights @ self.covariance(both, both) @ weights - half @ half)
        return self.scale * float(cross @ self._alpha), self.scale * max(variance, 0.0) ** 0.5

    def draw(self, evaluated: Points, at: Points, draws: Array) -> tuple[Array, Array, Array]:
        """Draws of the true function at ``evaluated``, and what each of them leaves unknown at ``at``.

        Args:
            draws: (n_draws, len(evaluated)) standard normal numbers.

        Returns:
            Values at ``evaluated`` (n_draws, n_evaluated); means at ``at`` given each draw (n_draws, n); the
            deviation at ``at`` given any draw (n,).
        """
        count = len(evaluated)
        both = Points(
            index=np.concatenate([evaluated.index, at.index]),
            features=np.concatenate([evaluated.features, at.features]),
        )
        cross = self.covariance(both, self.points)
        half = solve_triangular(self._root, cross.T, lower=True, check_finite=False)
        mean = self._mean + self.scale * (cross @ self._alpha)
        joint = self.covariance(both, evaluated) - half.T @ half[:, :count]
        eigenvalues, vectors = np.linalg.eigh(joint[:count])
        # A covariance that may be singular has an exact square root without its directions of no variance.
        kept = eigenvalues > 1e-8 * max(1e-12, eigenvalues[-1])
        root = np.sqrt(eigenvalues[kept])
        normal = draws[:, : int(kept.sum())]
        values = mean[:count] + self.scale * (normal * root) @ vectors[:, kept].T
        loadings = joint[count:] @ vectors[:, kept] / root
        left = self.variance(at) - np.einsum("ij,ij->j", half[:, count:], half[:, count:])
        left -= (loadings**2).sum(axis=1)
        means = mean[count:] + self.scale * normal @ loadings.T
        return values, means, self.scale * np.sqrt(np.maximum(left, 1e-10))
