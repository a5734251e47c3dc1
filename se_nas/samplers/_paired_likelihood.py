"""The likelihood of readings of two outputs, see `_paired_gp`, with its gradient by the hyperparameters."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, log, sin

import numpy as np

from se_nas.samplers._kernel import ChoiceCorrelations
from se_nas.samplers._likelihood import (
    NOISE,
    NOISE_FLOOR,
    Array,
    Factored,
    Likelihood,
    Points,
    factored,
    prior,
    scaled,
)

OWN = 4
"""Hyperparameters that come after those of `_likelihood`, which the two processes share."""
_RATIO, _ANGLES = -4, slice(-2, None)
_NOISES = (NOISE - OWN, -3)
_SCALE_SPREAD = 1.0
_NOISE_CENTRE = -1.5
"""Of the logarithm of both noises. With a second output noise can be told from signal, so it may be expected."""
_ANGLE_SPREADS = np.array([1.0, 0.5])
"""Scales of the Cauchy priors of a + b and a - b."""
_ANGLE_BOUND = 1.3


def paired_prior(count: int, continuous: int, estimates: int, *, by_cost: bool) -> tuple[Array, Array]:
    """As `prior`, of the hyperparameters of both outputs. The spreads of the two angles only set their bounds."""
    centre, spread = prior(count, continuous, estimates, by_cost=by_cost)
    centre = np.concatenate([centre, [0.0, _NOISE_CENTRE, 0.0, 0.0]])
    spread = np.concatenate([spread, [_SCALE_SPREAD, spread[NOISE], _ANGLE_BOUND / 4, _ANGLE_BOUND / 4]])
    centre[NOISE - OWN] = _NOISE_CENTRE
    return centre, spread


def taken_apart(theta: Array) -> tuple[Array, float, list[float]]:
    """The hyperparameters of the shared covariance, the second variance in firsts, and the noises above the floor."""
    return theta[:-OWN], float(np.exp(theta[_RATIO])), [float(np.exp(theta[place])) for place in _NOISES]


def mixing_of(theta: Array) -> tuple[Array, Array]:
    """The mixing matrix (2, 2) and its inverse."""
    both, apart = theta[_ANGLES].tolist()
    a, b = (both + apart) / 2, (both - apart) / 2
    mixing = np.array([[cos(a), sin(b)], [sin(a), cos(b)]])
    return mixing, np.array([[cos(b), -sin(b)], [-sin(a), cos(a)]]) / cos(both)


class PairedLikelihood:
    """Minus the logarithm of the posterior density of the hyperparameters, but for a constant.

    Complete readings separate into the two processes. The other readings are of a sum of both; they come last, and are
    conditioned on what the complete ones tell of them.

    Args:
        choices: how alike the choices of each parameter are.
        points: (n,) where the readings were taken.
        whole: (n_whole, 2) the complete readings, standardised.
        single: (n - n_whole,) the others.
        counts: (n,) how many readings each value is the mean of.
        extra: (n - n_whole,) further variance of the others.
        within: sum of squares and products (2, 2) of single complete readings around their means, and its degrees of
            freedom.
        centre, spread: as `paired_prior` gives them.
    """

    def __init__(
        self,
        choices: ChoiceCorrelations,
        points: Points,
        whole: Array,
        single: Array,
        *,
        counts: Array,
        extra: Array,
        within: tuple[Array, int],
        centre: Array,
        spread: Array,
    ) -> None:
        self._shared = Likelihood(choices, points, counts)
        self._whole, self._single = whole, single
        self._counts, self._extra, self._within = counts, extra, within
        self._centre, self._spread = centre, spread

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """The value and its derivative."""
        shared, ratio, excesses = taken_apart(theta)
        noises = [excess + NOISE_FLOOR for excess in excesses]
        mixing, separate = mixing_of(theta)
        parts, count = self._shared.parts(shared), len(self._whole)
        first = (self._shared.symmetric if len(self._single) else self._shared.lower)(parts.total)
        covariances = [first, scaled(first, ratio)]
        factors = []
        for covariance, noise in zip(covariances, noises, strict=True):
            factor = factored(covariance[:count, :count].copy(), noise / self._counts[:count])
            if factor is None:
                return 1e10, np.zeros_like(theta)
            factors.append(factor)
        latent, alphas = separate @ self._whole.T, np.zeros((2, len(first)))
        for factor, u, alpha in zip(factors, latent, alphas, strict=True):
            alpha[:count] = factor.solved(u)
        value = 0.5 * float((latent * alphas[:, :count]).sum()) + factors[0].logdet + factors[1].logdet
        by_mixing = np.zeros((2, 2))
        if len(self._single):
            more = self._with_single(mixing[0], noises, covariances, factors, alphas)
            if more is None:
                return 1e10, np.zeros_like(theta)
            value, by_mixing[0], inverses = value + more[0], more[1], more[2]
        else:
            inverses = [factor.inverse() for factor in factors]
        qs = [
            0.5 * (self._shared.pairs(inverse) - self._shared.products(alpha))
            for inverse, alpha in zip(inverses, alphas, strict=True)
        ]
        grad = np.empty_like(theta)
        grad[:-OWN] = self._shared.gradient(parts, qs[0] + ratio * qs[1])
        grad[_RATIO] = self._shared.scaled_gradient(parts, qs[1], ratio)
        (squares, dof), by_separate = self._within, alphas[:, :count] @ self._whole
        for c, (q, excess, noise) in enumerate(zip(qs, excesses, noises, strict=True)):
            around = separate[c] @ squares
            ss = float(around @ separate[c])
            value += 0.5 * dof * log(noise) + 0.5 * ss / noise
            by_separate[c] += around / noise
            grad[_NOISES[c]] = self._shared.noise_gradient(q, excess, (ss, dof))
        rows = count + dof
        # The determinant of the mixing matrix is the cosine of a + b.
        value += rows * log(cos(theta[-2]))
        by_mixing += separate.T @ (rows * np.eye(2) - by_separate @ separate.T)
        grad[_ANGLES] = _by_angles(mixing, by_mixing)
        off = (theta[:-2] - self._centre[:-2]) / self._spread[:-2]
        grad[:-2] += off / self._spread[:-2]
        angles = theta[_ANGLES]
        grad[_ANGLES] += 2 * angles / (_ANGLE_SPREADS**2 + angles**2)
        return value + 0.5 * float(off @ off) + float(np.log1p((angles / _ANGLE_SPREADS) ** 2).sum()), grad

    def _with_single(
        self,
        loads: Array,
        noises: Sequence[float],
        covariances: Sequence[Array],
        factors: Sequence[Factored],
        alphas: Array,
    ) -> tuple[float, Array, list[Array]] | None:
        """Takes in the readings of the sum of both processes.

        Args:
            loads: (2,) how much of each process the first output is.
            covariances: (n, n) of each process.
            factors: of the complete readings.
            alphas: (2, n) inverse times complete readings; here the others are taken into it.

        Returns:
            What is added to the value, its derivative by ``loads``, and of each process the lower half of the inverse
            (n, n); None if it is singular to rounding.
        """
        count, n = len(self._whole), alphas.shape[1]
        crosses = [covariance[count:, :count] for covariance in covariances]
        owns = [covariance[count:, count:].copy() for covariance in covariances]
        for own, noise in zip(owns, noises, strict=True):
            own.ravel()[:: len(own) + 1] += noise / self._counts[count:]
        told = [factor.solved(cross.T) for factor, cross in zip(factors, crosses, strict=True)]
        left, rest = np.zeros((n - count, n - count)), self._single.copy()
        for load, own, cross, known, alpha in zip(loads, owns, crosses, told, alphas, strict=True):
            left += load**2 * (own - cross @ known)
            rest -= load * (cross @ alpha[:count])
        last = factored(left, self._extra)
        if last is None:
            return None
        pull, inverse = last.solved(rest), last.solved(np.eye(n - count))
        by_own, by_loads, inverses = 0.5 * (inverse - pull[:, None] * pull), np.empty(2), []
        for c, (load, own, cross, known) in enumerate(zip(loads, owns, crosses, told, strict=True)):
            shared = known @ inverse
            alphas[c, :count] -= load * (known @ pull)
            alphas[c, count:] = load * pull
            by_cross = -0.5 * (load * shared.T + pull[:, None] * alphas[c, :count])
            by_loads[c] = 2 * (load * (by_own * own).sum() + (by_cross * cross).sum())
            whole = np.zeros((n, n))
            whole[:count, :count] = factors[c].inverse() + load**2 * (shared @ known.T)
            whole[count:, :count] = -(load**2) * shared.T
            whole[count:, count:] = load**2 * inverse
            inverses.append(whole)
        return 0.5 * float(rest @ pull) + last.logdet, by_loads, inverses


def _by_angles(mixing: Array, by_mixing: Array) -> tuple[float, float]:
    """The derivatives by a + b and a - b, from that by the mixing matrix."""
    ((cos_a, sin_b), (sin_a, cos_b)), by = mixing.tolist(), by_mixing.tolist()
    by_a, by_b = by[1][0] * cos_a - by[0][0] * sin_a, by[0][1] * cos_b - by[1][1] * sin_b
    return (by_a + by_b) / 2, (by_a - by_b) / 2
