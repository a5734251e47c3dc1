"""The covariance of `_gp` with its hyperparameters: their priors, and the likelihood of readings with its gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs

from se_nas.samplers._kernel import ChoiceCorrelations

Array = NDArray[np.float64]
Index = NDArray[np.int64]

BIAS = 9.0
"""Variance of the constant, in variances of the readings: large, so it is practically unknown."""
NOISE_FLOOR = 1e-4
"""Least variance of a reading's noise, in variances of the readings."""
_PAIR, _REST, _RANGE, _SHARE, _SCALE, _POWER, _TREND, NOISE = range(-8, 0)
_ORDER = slice(_SHARE, _POWER + 1)
# The noise starts at 0.29 of the readings' deviation: networks of one space differ little, and a prior with less
# noise makes the first models far too certain.
# If choices are ordered by what they cost, fits to many readings nearly always find that the order explains almost
# everything (a logit of 5 and more). An order by value may mislead: 0 may mean "none", other numbers a divisor.
_CENTRES = (-1.9, -1.9, 0.7, 2.5, 0.0, -0.7, -0.7, -2.5)
_SPREADS = (1.0, 1.0, 0.7, 2.0, 0.5, 0.5, 1.0, 1.0)
_SHARE_BY_VALUE, _SCALE_BY_VALUE = (2.0, 1.5), (-0.4, 0.5)
_TRUST = (-2.5, 2.0)
"""Prior of the logarithm of the variance of an estimate's slope: low, because with the first readings a wrong estimate
cannot be told from a right one, and wide, so that it ends up with none."""
_REACH = (-0.5, 0.7)
"""Prior of the logarithm of the distance at which a continuous parameter's values are alike, in ranges."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """Where the process is read or predicted.

    Attributes:
        index: (n, n_params) index of each parameter's choice.
        features: (n, n_features) standardised features of the linear trend.
        estimates: how many estimates of the function are among the features: two columns for each, the last ones.
            How far each is trusted is learned by itself.
    """

    index: Index
    features: Array
    estimates: int = 0

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Points:
        return Points(index=self.index[rows], features=self.features[rows], estimates=self.estimates)

    def followed_by(self, other: Points) -> Points:
        """These points and then the ``other`` ones."""
        return Points(
            index=np.concatenate([self.index, other.index]),
            features=np.concatenate([self.features, other.features]),
            estimates=self.estimates,
        )

    @property
    def trend(self) -> Array:
        """(n, n_others) the features that are no estimates."""
        return self.features[:, : self.features.shape[1] - 2 * self.estimates]

    def estimate(self, number: int) -> Array:
        """(n, 2) the features of one estimate."""
        start = self.features.shape[1] - 2 * (self.estimates - number)
        return self.features[:, start : start + 2]


def prior(count: int, continuous: int = 0, estimates: int = 0, *, by_cost: bool) -> tuple[Array, Array]:
    """Centres and spreads of the normal priors of all hyperparameters.

    Args:
        count: number of parameters, of which ``continuous`` are.
        estimates: see `Points`.
        by_cost: see `Surrogate`.
    """
    reach, trust = (np.full((continuous, 2), _REACH).T, np.full((estimates, 2), _TRUST).T)
    centre = np.concatenate([np.full(count, -np.log(count)), reach[0], trust[0], _CENTRES])
    spread = np.concatenate([np.ones(count), reach[1], trust[1], _SPREADS])
    if not by_cost:
        centre[_SHARE], spread[_SHARE] = _SHARE_BY_VALUE
        centre[_SCALE], spread[_SCALE] = _SCALE_BY_VALUE
    return centre, spread


def fitted(
    objective: Callable[[Array], tuple[float, Array]],
    centre: Array,
    spread: Array,
    *,
    tolerance: float | None = None,
) -> Array:
    """The minimum of ``objective``, which gives a value and its gradient, around the centre of the prior.

    Args:
        tolerance: the least gain of a step, as a share of the value, that is worth another; None for SciPy's.
    """
    # Runs with another sampler need not have it in memory.
    from scipy.optimize import minimize

    bounds = list(zip(centre - 4 * spread, centre + 4 * spread, strict=True))
    options = {"maxiter": 60} | ({} if tolerance is None else {"ftol": tolerance})
    # One start suffices: of 324 fits to 3 to 100 readings of 9 tables, none had a better optimum elsewhere.
    return minimize(objective, centre, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x


class Covariance:
    """The prior covariance of a standardised function under given hyperparameters.

    Args:
        choices: how alike the choices of each parameter are.
        theta: the hyperparameters.
    """

    def __init__(self, choices: ChoiceCorrelations, theta: Array) -> None:
        self._theta, self._choices = theta, choices
        count = len(choices.sizes)
        self._weights = np.exp(theta[:count])
        self._reaches = np.exp(-2 * theta[count : count + len(choices.continuous)])
        self._trusts = np.exp(theta[count + len(choices.continuous) : _PAIR])
        self._tables = choices.tables(*theta[_ORDER])
        self._offsets = np.cumsum([0, *map(len, self._tables)])

    @property
    def noise(self) -> float:
        """Variance of one reading's noise."""
        return float(np.exp(self._theta[NOISE]) + NOISE_FLOOR)

    def __call__(self, a: Points, b: Points, dtype: type[np.floating[Any]] = np.float64) -> Array:
        """(len(a), len(b)) covariances."""
        theta, weights = self._theta, self._weights
        columns = np.concatenate(
            [
                w * (t[:, b.index[:, d]] if len(t) else np.zeros((0, len(b))))
                for d, (w, t) in enumerate(zip(weights, self._tables, strict=True))
            ]
        )
        columns = columns.astype(dtype)
        onehot = np.zeros((len(a), self._offsets[-1]), dtype=dtype)
        for d, offset in enumerate(self._offsets[:-1]):
            if len(self._tables[d]):
                onehot[np.arange(len(a)), offset + a.index[:, d]] = 1.0
        main = onehot @ columns
        lines = []
        for k, reach in zip(self._choices.continuous, self._reaches, strict=True):
            gaps = self._choices.gaps(k, a.index[:, k][:, None], b.index[:, k][None]).astype(dtype)
            lines.append(dtype(weights[k]) * np.exp(-dtype(reach) * gaps))
            main += lines[-1]
        out = main * main
        out -= onehot @ (columns * columns)
        for line in lines:
            out -= line * line
        out *= float(0.5 * np.exp(theta[_PAIR]))
        out += float(np.exp(theta[_TREND])) * (a.trend.astype(dtype) @ b.trend.T.astype(dtype))
        for number, trust in enumerate(self._trusts):
            mine, theirs = a.estimate(number).astype(dtype), b.estimate(number).astype(dtype)
            out += float(trust) * (mine @ theirs.T)
        out += BIAS
        out += main
        main -= float(weights.sum())
        main *= float(np.exp(theta[_RANGE]))
        np.exp(main, out=main)
        main *= float(np.exp(theta[_REST]))
        out += main
        return out

    def variance(self, a: Points) -> Array:
        """(len(a),) variances."""
        theta, weights = self._theta, self._weights
        pairs = 0.5 * (weights.sum() ** 2 - (weights**2).sum())
        flat = BIAS + weights.sum() + np.exp(theta[_PAIR]) * pairs + np.exp(theta[_REST])
        flat = flat + np.exp(theta[_TREND]) * (a.trend**2).sum(axis=1)
        for number, trust in enumerate(self._trusts):
            flat = flat + trust * (a.estimate(number) ** 2).sum(axis=1)
        return np.asarray(flat)

    def by_estimates(self, at: Points, points: Points, alpha: Array) -> Array:
        """(n_estimates, len(at)) what each estimate adds to the mean that ``alpha`` gives from ``points``."""
        slopes = [points.estimate(number).T @ alpha for number in range(at.estimates)]
        parts = [
            trust * (at.estimate(number) @ slope)
            for number, (trust, slope) in enumerate(zip(self._trusts, slopes, strict=True))
        ]
        return np.array(parts).reshape(at.estimates, len(at))


class Likelihood:
    """The covariance of true values as a function of the hyperparameters, with the gradient of what depends on it.

    It is symmetric, so everything is for the pairs of readings i >= j only.

    Args:
        choices: how alike the choices of each parameter are.
        points: (n,) where the readings were taken.
        counts: (n,) how many readings each value is the mean of.
    """

    def __init__(self, choices: ChoiceCorrelations, points: Points, counts: Array) -> None:
        index, sizes, n = points.index, choices.sizes, len(points)
        i, j = np.tril_indices(n)
        self._rows, self._columns = i, j
        self._twice = np.where(i == j, 1.0, 2.0)
        self._place, self._diagonal = i * n + j, np.flatnonzero(i == j)
        self._codes = np.stack([index[i, k] * size + index[j, k] for k, size in enumerate(sizes)])
        self._r = (index.T[:, i] == index.T[:, j]).astype(float)
        self._squares = self._r * self._r
        self._gaps = [choices.gaps(k, index[i, k], index[j, k]) for k in choices.continuous]
        self._linear = (points.trend @ points.trend.T)[i, j]
        each = [points.estimate(number) for number in range(points.estimates)]
        self._estimates = np.array([(one @ one.T)[i, j] for one in each]).reshape(len(each), len(i))
        first = len(sizes) + len(choices.continuous)
        self._trusts = slice(first, first + len(each))
        self._choices, self._counts = choices, counts

    def products(self, alpha: Array) -> Array:
        """The products of all pairs of ``alpha`` (n,)."""
        return alpha[self._rows] * alpha[self._columns]

    def pairs(self, matrix: Array) -> Array:
        """The entries of the lower half of a matrix (n, n)."""
        return matrix.ravel()[self._place]

    def lower(self, pairs: Array) -> Array:
        """A matrix (n, n) with the given entries in its lower half."""
        n = len(self._counts)
        out = np.zeros((n, n))
        out.ravel()[self._place] = pairs
        return out

    def symmetric(self, pairs: Array) -> Array:
        """The symmetric matrix (n, n) with the given entries."""
        out = self.lower(pairs)
        out.T[self._rows, self._columns] = pairs
        return out

    def parts(self, theta: Array) -> Parts:
        """The covariance of the true values at ``theta``."""
        r, squares = self._r, self._squares
        w = np.exp(theta[: len(r)])
        tables = self._choices.tables(*theta[_ORDER])
        for k in self._choices.ordered:
            np.take(tables[k].ravel(), self._codes[k], out=r[k])
            np.multiply(r[k], r[k], out=squares[k])
        for k, scale, gaps in zip(self._choices.continuous, theta[len(r) :], self._gaps, strict=False):
            r[k] = np.exp(-np.exp(-2 * scale) * gaps)
            squares[k] = r[k] * r[k]
        main = w @ r
        far = np.exp(theta[_REST]) * np.exp(np.exp(theta[_RANGE]) * (main - w.sum()))
        both = 0.5 * (main * main - (w * w) @ squares)
        total = BIAS + np.exp(theta[_TREND]) * self._linear + main + np.exp(theta[_PAIR]) * both + far
        if len(self._estimates):
            total += np.exp(theta[self._trusts]) @ self._estimates
        return Parts(theta=theta, tables=tables, main=main, far=far, both=both, total=total)

    def gradient(self, at: Parts, q: Array) -> Array:
        """The derivative by all hyperparameters but the noise; only at what `parts` was asked for last.

        Args:
            at: where.
            q: derivative by the covariance of each pair of readings, as if the two of a pair were independent.
        """
        theta, main, far, both = at.theta, at.main, at.far, at.both
        r, squares = self._r, self._squares
        d = len(r)
        w = np.exp(theta[:d])
        pair, reach, trend = np.exp(theta[_PAIR]), np.exp(theta[_RANGE]), np.exp(theta[_TREND])
        q = q * self._twice
        qs = q * (1 + pair * main + reach * far)
        by_far = q @ far
        grad = np.zeros_like(theta)
        grad[:d] = w * (r @ qs - pair * w * (squares @ q) - reach * by_far)
        grad[_PAIR] = pair * (q @ both)
        grad[_REST] = by_far
        grad[_RANGE] = reach * ((q * far) @ (main - w.sum()))
        grad[_TREND] = trend * (q @ self._linear)
        grad[self._trusts] = np.exp(theta[self._trusts]) * (self._estimates @ q)
        for k in self._choices.ordered:
            # Derivative by the correlation of two choices: the sum over all pairs of points that have them.
            table = at.tables[k].ravel()
            worth = w[k] * (
                np.bincount(self._codes[k], weights=qs, minlength=table.size)
                - pair * w[k] * table * np.bincount(self._codes[k], weights=q, minlength=table.size)
            )
            slopes = self._choices.slopes(k, *theta[_ORDER])
            grad[_ORDER] += [worth @ slope.ravel() for slope in slopes]
        for place, (k, gaps) in enumerate(zip(self._choices.continuous, self._gaps, strict=True), start=d):
            near = 2 * np.exp(-2 * theta[place]) * np.where(np.isinf(gaps), 0.0, gaps) * r[k]
            grad[place] = w[k] * ((qs - pair * w[k] * r[k] * q) @ near)
        return grad

    def noise_gradient(self, q: Array, excess: float, within: tuple[float, int]) -> float:
        """The derivative by the logarithm of ``excess``.

        Args:
            q: as in `gradient`.
            excess: by how much the variance of one reading's noise is above `NOISE_FLOOR`.
            within: sum of squares of single readings around their means, and its degrees of freedom, which tell of
                the noise too.
        """
        (ss, dof), noise = within, excess + NOISE_FLOOR
        slope = (q[self._diagonal] / self._counts).sum() + 0.5 * dof / noise - 0.5 * ss / noise**2
        return float(excess * slope)

    def scaled_gradient(self, at: Parts, q: Array, scale: float) -> float:
        """The derivative by the logarithm of ``scale``, see `scaled`; ``q`` as in `gradient`."""
        return float((q * self._twice) @ (at.total - BIAS)) * scale


def scaled(covariance: Array, scale: float) -> Array:
    """The covariance of a function whose deviations from the constant are ``scale`` times as variable."""
    return BIAS + scale * (covariance - BIAS)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The covariance of true values at all pairs of readings, ``total``, and what it is made of."""

    theta: Array
    tables: list[Array]
    main: Array
    far: Array
    both: Array
    total: Array


class Factored:
    """The covariance of readings, factored; see `factored`.

    Attributes:
        logdet: half the logarithm of its determinant.
    """

    def __init__(self, root: Array) -> None:
        self.logdet = float(np.log(root.diagonal()).sum())
        self._root = root

    def solved(self, y: Array) -> Array:
        """The inverse times ``y`` (n,) or (n, k); before `inverse`."""
        return np.asarray(dpotrs(self._root, y, lower=0)[0])

    def inverse(self) -> Array:
        """The lower half of the inverse (n, n). It overwrites the factor."""
        return np.asarray(dpotri(self._root, lower=0, overwrite_c=1)[0].T)


def factored(covariance: Array, variances: Array) -> Factored | None:
    """The covariance of readings; None if it is singular to rounding.

    Args:
        covariance: of true values (n, n), of which only the lower half counts; it is overwritten.
        variances: (n,) of the readings' noises.
    """
    covariance.ravel()[:: len(covariance) + 1] += variances
    # The lower half in C's order is the upper half in Fortran's, so that LAPACK works in place.
    root, failed = dpotrf(covariance.T, lower=0, clean=0, overwrite_a=1)
    return None if failed else Factored(root)
