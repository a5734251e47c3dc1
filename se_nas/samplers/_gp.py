"""A Gaussian process over categorical parameters, for few and noisy readings.

The covariance of two points is a sum of

* main effects, one variance per parameter (additive Gaussian processes: Duvenaud et al., NeurIPS 2011);
* pairwise effects, the second elementary symmetric polynomial of the main effects (ibid., equation 5);
* everything else: an exponential of the weighted Hamming distance;
* a linear trend in the given features (known costs), which a few points suffice to learn, and one in each estimate of
  the function, with a variance of its own.

If the choices of a parameter have an order, near ones correlate more. How far that holds is learned (`_kernel`),
so an order that means nothing costs little. Hyperparameters are the maximum of the posterior under weak priors.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from se_nas.samplers._kernel import ChoiceCorrelations, Positions
from se_nas.samplers._likelihood import (
    NOISE,
    NOISE_FLOOR,
    Array,
    Covariance,
    Likelihood,
    Points,
    factored,
    fitted,
    prior,
)


class Surrogate:
    """A process fitted on readings; it predicts means and deviations in the unit of the readings.

    Args:
        positions: for every parameter, the (n_choices,) positions in [0, 1] of its choices on their order;
            NaN for a choice that has none. A `Line` for a continuous parameter.
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
        positions: Positions,
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
        self._mean = float(values.mean())
        spread = float(values.std())
        self.scale = spread if spread > 1e-12 * max(1.0, abs(self._mean)) else 1.0
        self._y = (values - self._mean) / self.scale
        self._counts = np.ones(n) if counts is None else counts
        self._extra = np.zeros(n) if extra is None else extra / self.scale**2
        self._within = (within[0] / self.scale**2, within[1])
        self._choices, self._by_cost = ChoiceCorrelations(positions), by_cost
        self.theta = self._fit() if theta is None else theta
        self.covariance = Covariance(self._choices, self.theta)
        self._condition()

    def _fit(self) -> Array:
        sizes = len(self._choices.sizes), len(self._choices.continuous), self.points.estimates
        centre, spread = prior(*sizes, by_cost=self._by_cost)
        if len(self.points) < 3 or not self._y.any():
            return centre
        likelihood = Likelihood(self._choices, self.points, self._counts)
        y, (ss, dof) = self._y, self._within

        def objective(theta: Array) -> tuple[float, Array]:
            parts, excess = likelihood.parts(theta), np.exp(theta[NOISE])
            noise = excess + NOISE_FLOOR
            at = factored(likelihood.lower(parts.total), noise / self._counts + self._extra)
            if at is None:
                return 1e10, np.zeros_like(theta)
            alpha = at.solved(y)
            value = 0.5 * y @ alpha + at.logdet + 0.5 * dof * np.log(noise) + 0.5 * ss / noise
            q = 0.5 * (likelihood.pairs(at.inverse()) - likelihood.products(alpha))
            grad = likelihood.gradient(parts, q)
            grad[NOISE] = likelihood.noise_gradient(q, excess, self._within)
            off = (theta - centre) / spread
            return value + 0.5 * off @ off, grad + off / spread

        return fitted(objective, centre, spread)

    def _condition(self) -> None:
        k = self.covariance(self.points, self.points)
        k[np.diag_indices_from(k)] += self.covariance.noise / self._counts + self._extra
        self._root = cholesky(k, lower=True, check_finite=False)
        self._alpha = cho_solve((self._root, True), self._y, check_finite=False)

    @property
    def noise(self) -> float:
        """Deviation of one reading, in the unit of the readings."""
        return float(np.sqrt(self.covariance.noise)) * self.scale

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
        var = np.maximum(self.covariance.variance(at) - known, 1e-10)
        return self._mean + self.scale * mean, self.scale * np.sqrt(var)

    def predict(self, at: Points) -> tuple[Array, Array]:
        """Mean and deviation (n,) of the true function, without the noise of a reading."""
        cross = self.covariance(at, self.points)
        mean = cross @ self._alpha
        half = solve_triangular(self._root, cross.T, lower=True, check_finite=False)
        var = self.covariance.variance(at) - np.einsum("ij,ij->j", half, half)
        return self._mean + self.scale * mean, self.scale * np.sqrt(np.maximum(var, 1e-10))

    def trusts(self, at: Points) -> Array:
        """(n_estimates,) which share of the variation of the mean over ``at`` each estimate explains, from 0 to 1."""
        return explained(
            self.predict(at)[0], self.scale * self.covariance.by_estimates(at, self.points, self._alpha)
        )

    def contrast(self, plus: Points, minus: Points) -> tuple[float, float]:
        """Mean and deviation of the average of the true function over ``plus`` less that over ``minus``."""
        both = plus.followed_by(minus)
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
        both = evaluated.followed_by(at)
        cross = self.covariance(both, self.points)
        half = solve_triangular(self._root, cross.T, lower=True, check_finite=False)
        mean = self._mean + self.scale * (cross @ self._alpha)
        joint = self.covariance(both, evaluated) - half.T @ half[:, :count]
        left = self.covariance.variance(at) - np.einsum("ij,ij->j", half[:, count:], half[:, count:])
        return drawn(mean, joint, left, self.scale, draws)

    def step(self, deviations: Array, at: Points) -> Array:
        """Deviation (n,) by which one more reading at each point moves its mean, from `predict`'s deviations."""
        return np.asarray(deviations**2 / np.sqrt(np.maximum(deviations**2 + self.noise**2, 1e-300)))


def explained(mean: Array, parts: Array) -> Array:
    """(n_parts,) shares of the variance of ``mean`` (n,) over points that ``parts`` (n_parts, n) of it explain."""
    centred = mean - mean.mean()
    variance = float(centred @ centred)
    shares = parts @ centred / variance if variance > 0 else np.zeros(len(parts))
    return np.asarray(np.clip(shares, 0.0, 1.0))


def drawn(mean: Array, joint: Array, left: Array, scale: float, draws: Array) -> tuple[Array, Array, Array]:
    """Draws of a function at some points, and what they leave unknown at others; see `Surrogate.draw`.

    Args:
        mean: (n_some + n_others,) means.
        joint: (n_some + n_others, n_some) covariance of all points with the first, in squares of ``scale``.
        left: (n_others,) variances at the others, likewise.
        scale: the unit of the covariances.
        draws: (n_draws, n_some) standard normal numbers.
    """
    count = joint.shape[1]
    eigenvalues, vectors = np.linalg.eigh(joint[:count])
    # A covariance that may be singular has an exact square root without its directions of no variance.
    kept = eigenvalues > 1e-8 * max(1e-12, eigenvalues[-1])
    root = np.sqrt(eigenvalues[kept])
    normal = draws[:, : int(kept.sum())]
    values = mean[:count] + scale * (normal * root) @ vectors[:, kept].T
    loadings = joint[count:] @ vectors[:, kept] / root
    left = left - (loadings**2).sum(axis=1)
    means = mean[count:] + scale * normal @ loadings.T
    return values, means, scale * np.sqrt(np.maximum(left, 1e-10))
