"""What repeated trainings say about each candidate: a linear model of candidate, seed and noise.

With three seeds per candidate, the scatter of one says next to nothing (two degrees of freedom). Noise belongs to
data and schedule far more than to one architecture, so it is pooled over all candidates; and what a seed does
to all candidates alike (data order, augmentation) cancels when they are compared, so it is kept apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from se_nas.errors import ConfigError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom.
_T975 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)


def t_quantile_975(dof: float) -> float:
    """97.5 % quantile of Student's t, to 0.001, for a whole number of degrees of freedom or infinity."""
    if dof < 1:
        raise ValueError(f"dof is {dof}; it must be at least 1.")
    if dof <= len(_T975):
        return _T975[int(dof) - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)


def wilson(percent: float, images: int) -> tuple[float, float]:
    """95 % interval of a share of ``images``, in percent (Wilson's score interval, 1927)."""
    z, share = 1.959964, percent / 100
    centre = (share + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2)) / (1 + z**2 / images)
    return 100 * (centre - half), 100 * (centre + half)


_SPREADS = 61


@dataclass(frozen=True, kw_only=True, eq=False)
class SeedModel:
    """Levels of n candidates with their joint uncertainty.

    A reading is candidate level + seed level + noise; noise has one standard deviation for all candidates,
    seed levels another. Levels are estimated by generalised least squares, so candidates may have different
    seeds and numbers of them.

    Attributes:
        mean: estimated levels, shape (n,), in the readings' unit; NaN for a candidate without a reading.
        noise_covariance: what noise adds to the estimates' covariance, shape (n, n); 0 without a reading.
        seed_covariance: what seed levels add, shape (n, n); candidates with the same seeds share all of it.
        image_covariance: what the choice of validation images adds, shape (n, n); 0 unless ``with_images``.
        sd: standard deviation of one reading around candidate plus seed level.
        seed_sd: standard deviation of the seed levels.
        dof: degrees of freedom behind ``sd``; inf if it was given.
        seed_dof: degrees of freedom behind ``seed_sd``.
    """

    mean: Floats
    noise_covariance: Floats
    seed_covariance: Floats
    image_covariance: Floats
    sd: float
    seed_sd: float
    dof: float
    seed_dof: float

    @classmethod
    def fit(cls, readings: Sequence[Mapping[int, float]], *, sd: float | None = None) -> SeedModel | None:
        """Fits the model.

        Args:
            readings: for each candidate, seed → accuracy; finite. Equal seeds pair candidates.
            sd: noise of one reading, if it is known; otherwise it is estimated from repeats.

        Returns:
            None if nothing was read twice and ``sd`` is not given: then nothing can be said about noise.

        Raises:
            ConfigError: a reading or ``sd`` is not a finite number.
        """
        cells = [(i, seed, value) for i, own in enumerate(readings) for seed, value in own.items()]
        if not all(math.isfinite(value) for *_, value in cells):
            raise ConfigError("a reading is not finite; leave out trainings that diverged.")
        if sd is not None and not (math.isfinite(sd) and sd >= 0):
            raise ConfigError(f"sd is {sd!r}; it must be a finite number, 0 or above.")
        present = sorted({i for i, *_ in cells})
        if not present:
            return None
        seeds = sorted({seed for _, seed, _ in cells})
        values = np.array([value for *_, value in cells])
        candidate = np.searchsorted(present, [i for i, *_ in cells])
        seed = np.searchsorted(seeds, [s for _, s, _ in cells])
        noise = _noise(candidate, seed, values, sd)
        if noise is None:
            return None
        variance, seed_variance, dof = noise
        estimate, noise_part, seed_part = _estimate(candidate, seed, values, variance, seed_variance)
        mean = np.full(len(readings), np.nan)
        mean[present] = estimate
        noise_covariance, seed_covariance = np.zeros((2, len(readings), len(readings)))
        noise_covariance[np.ix_(present, present)] = noise_part
        seed_covariance[np.ix_(present, present)] = seed_part
        return cls(
            mean=mean,
            noise_covariance=noise_covariance,
            seed_covariance=seed_covariance,
            image_covariance=np.zeros_like(noise_covariance),
            sd=math.sqrt(variance),
            seed_sd=math.sqrt(seed_variance),
            dof=dof,
            seed_dof=max(len(seeds) - 1.0, 1.0),
        )

    @property
    def covariance(self) -> Floats:
        """Of the estimates, shape (n, n)."""
        return self.noise_covariance + self.seed_covariance + self.image_covariance

    @property
    def half_width(self) -> Floats:
        """Half of the 95 % interval of each level, shape (n,); NaN for a candidate without a reading."""
        parts = zip(*(np.diag(part) for part in self._parts), strict=True)
        widths = np.array([self._half_width(*own) for own in parts])
        return np.where(np.isfinite(self.mean), widths, np.nan)

    @property
    def _parts(self) -> tuple[Floats, Floats, Floats]:
        return self.noise_covariance, self.seed_covariance, self.image_covariance

    def _half_width(self, noise: float, seed: float, image: float) -> float:
        """From three parts of a variance; degrees of freedom as Satterthwaite combines them."""
        total = noise + seed + image
        if total <= 0:
            return 0.0
        # Images are so many that their part is known well.
        inverse = (noise / total) ** 2 / self.dof + (seed / total) ** 2 / self.seed_dof
        return t_quantile_975(max(1 / inverse, 1.0) if inverse else math.inf) * math.sqrt(total)

    def difference(self, i: int, j: int) -> tuple[float, float]:
        """Level of i minus level of j, with half of its 95 % interval; shared seeds and images cancel."""
        contrast = np.zeros(len(self.mean))
        contrast[i] += 1
        contrast[j] -= 1
        parts = [max(float(contrast @ part @ contrast), 0.0) for part in self._parts]
        return float(self.mean[i] - self.mean[j]), self._half_width(*parts)

    def with_images(self, correct: Sequence[Mapping[int, ArrayLike]]) -> SeedModel:
        """Adds what the choice of validation images contributes, for statements beyond these images.

        The covariance of the candidates' hits over images, divided by their number: the bootstrap over images
        in closed form. What scatters from seed to seed on one image is in noise and seed levels already, and
        is taken off; candidates that share a seed scatter together.

        Args:
            correct: for each candidate, seed → whether it gets each image right, shape (n_images,): the same
                images for all candidates, so that what is hard for all cancels in differences.

        Raises:
            ConfigError: there are not as many candidates as in the model, one has no seed, or the images are
                not the same number, at least 2.
        """
        sizes = {np.shape(hits) for own in correct for hits in own.values()}
        if len(correct) != len(self.mean) or not all(correct):
            raise ConfigError(
                f"correct has {sum(map(bool, correct))} candidates with hits; it must have {len(self.mean)}."
            )
        if len(sizes) > 1 or min(sizes) < (2,) or len(min(sizes)) != 1:
            raise ConfigError(
                f"correct has hits of shapes {sorted(sizes)}; all must be (number of images,), at least 2."
            )
        hits = [{seed: np.asarray(own[seed], dtype=np.float64) for seed in own} for own in correct]
        shares = np.stack([np.mean(list(own.values()), axis=0) for own in hits])
        images = np.cov(shares).reshape(len(shares), len(shares)) - _scatter(hits, shares)
        # Two estimates were subtracted: what comes out below zero is zero.
        values, vectors = np.linalg.eigh(images)
        images = (vectors * np.maximum(values, 0.0)) @ vectors.T
        return replace(self, image_covariance=100**2 * images / shares.shape[1])

    def shrunk(self) -> SeedModel:
        """Levels drawn together by how much they really differ: the winner's curse taken off.

        The best of many noisy means is best partly by luck. Levels are taken as normal around a common one;
        their spread is not fixed but weighed by its restricted likelihood, flat beforehand, so that means
        which could all be equal are not taken as equal for certain. Mean and covariance are the mixture's.
        Source: Efron and Morris, "Stein's estimation rule and its competitors", 1973; Gelman, "Prior
        distributions for variance parameters in hierarchical models", 2006, section 4.
        """
        present = np.flatnonzero(np.isfinite(self.mean))
        n = len(present)
        if n < 2:
            return self
        noise = self.covariance[np.ix_(present, present)]
        # In the eigenbasis of the noise among contrasts everything is diagonal.
        basis = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0][:, 1:]
        variances, vectors = np.linalg.eigh(basis.T @ noise @ basis)
        variances = np.maximum(variances, 1e-12)
        basis = basis @ vectors
        contrast = basis.T @ self.mean[present]
        spreads = np.linspace(0, 3 * np.sqrt((contrast**2).mean()), _SPREADS)
        total = spreads[:, None] ** 2 + variances
        likelihood = -0.5 * (np.log(total) + contrast**2 / total).sum(axis=1)
        weight = np.exp(likelihood - likelihood.max())
        weight /= weight.sum()
        kept = spreads[:, None] ** 2 / total
        estimates = kept * contrast
        estimate = weight @ estimates
        scatter = (estimates - estimate).T * weight @ (estimates - estimate)
        covariance = basis @ (np.diag(weight @ (kept * variances)) + scatter) @ basis.T
        full, mean = np.zeros_like(self.noise_covariance), np.full(len(self.mean), np.nan)
        mean[present] = self.mean[present].mean() + basis @ estimate
        full[np.ix_(present, present)] = covariance
        common = np.zeros_like(full)
        common[np.ix_(present, present)] = noise.mean()
        return replace(
            self,
            mean=mean,
            noise_covariance=full,
            seed_covariance=common,
            image_covariance=np.zeros_like(full),
        )

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Joint draws of the levels, shape (count, n): a parametric bootstrap with Student's t."""
        drawn = np.tile(self.mean, (count, 1))
        for part, dof in zip(self._parts, (self.dof, self.seed_dof, math.inf), strict=True):
            values, vectors = np.linalg.eigh(part)
            kept = values > 1e-12 * max(values.max(initial=0.0), 1e-300)
            root = vectors[:, kept] * np.sqrt(values[kept])
            scale = np.sqrt(dof / rng.chisquare(dof, size=(count, 1))) if math.isfinite(dof) else 1.0
            drawn += scale * (rng.standard_normal((count, root.shape[1])) @ root.T)
        return drawn


def _scatter(hits: Sequence[Mapping[int, Floats]], shares: Floats) -> Floats:
    """Covariance of the shares on one image over seeds, mean over images, shape (n, n); 0 for a single seed."""
    seeds = sorted({seed for own in hits for seed in own})
    counts = np.array([len(own) for own in hits])
    total = np.zeros((len(hits), len(hits)))
    for seed in seeds:
        left = np.stack(
            [own[seed] - share if seed in own else 0 * share for own, share in zip(hits, shares, strict=True)]
        )
        left -= left.mean(axis=1, keepdims=True)
        total += left @ left.T / left.shape[1]
    unbiased = np.sqrt(counts / np.maximum(counts - 1, 1))
    scatter: Floats = total * np.outer(unbiased / counts, unbiased / counts)
    return scatter


def _noise(
    candidate: Integers, seed: Integers, values: Floats, sd: float | None
) -> tuple[float, float, float] | None:
    """Variance of noise and of seed levels, and degrees of freedom (Henderson's method 3).

    ``candidate`` and ``seed`` number the candidate and the seed of each reading, from 0.
    """
    count = np.bincount(candidate)
    incidence = np.eye(int(seed.max()) + 1)[seed]
    # Least squares on candidate and seed is least squares on seed after the candidates' means are taken off.
    means = np.zeros((len(count), incidence.shape[1]))
    np.add.at(means, candidate, incidence)
    seeds_left = incidence - (means / count[:, None])[candidate]
    left = values - (np.bincount(candidate, values) / count)[candidate]
    solution, _, rank, _ = np.linalg.lstsq(seeds_left, left, rcond=None)
    alone, both = float((left**2).sum()), float(((left - seeds_left @ solution) ** 2).sum())
    repeats = len(values) - len(count)
    dof = repeats - int(rank)
    if sd is not None:
        variance, freedom = sd**2, math.inf
    elif dof >= 1:
        variance, freedom = both / dof, float(dof)
    elif repeats:
        # Repeats, but no seed that two candidates share in a way that could tell its level from noise.
        return alone / repeats, 0.0, float(repeats)
    else:
        return None
    weight = float((seeds_left**2).sum())
    extra = (alone - both - int(rank) * variance) / weight if weight > 1e-9 else 0.0
    return variance, max(extra, 0.0), freedom


def _estimate(
    candidate: Integers, seed: Integers, values: Floats, variance: float, seed_variance: float
) -> tuple[Floats, Floats, Floats]:
    """Levels by generalised least squares, and the two parts of their covariance."""
    incidence = np.zeros((int(candidate.max()) + 1, int(seed.max()) + 1))
    np.add.at(incidence, (candidate, seed), 1.0)
    own, others = incidence.sum(axis=1), incidence.sum(axis=0)
    # Only the ratio of the variances shapes the estimate; a floor keeps exact readings solvable. With
    # k = own, C = incidence and Omega = noise + seed levels, the information is (diag(k) - C D C') / noise,
    # inverted by Woodbury's identity.
    noise = max(variance, 1e-9 * seed_variance, 1e-300)
    damping = seed_variance / (noise + seed_variance * others)
    inverse = np.diag(1 / own)
    if seed_variance:
        scaled = incidence / own[:, None]
        between = np.diag(noise / seed_variance + others) - incidence.T @ scaled
        inverse += scaled @ np.linalg.solve(between, scaled.T)
    right = np.bincount(candidate, values) - incidence @ (damping * np.bincount(seed, values))
    spread = inverse @ (incidence * (1 - damping * others))
    seed_part = seed_variance * spread @ spread.T
    # The estimator's covariance is noise * inverse in all; what is left is the noise's part.
    return inverse @ right, noise * inverse - seed_part, seed_part
