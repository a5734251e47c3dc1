"""Which candidates deserve final seeds, and which training would settle most about the front."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from se_nas.errors import ConfigError
from se_nas.pareto._front import Floats
from se_nas.pareto._membership import drawn_fronts, probability_non_dominated
from se_nas.pareto._seeds import SeedModel, t_quantile_975

_DRAWS = 2000
_CHANCE = 10.0


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A candidate to be trained with final seeds.

    ``index`` among the candidates; ``reason``: "baseline", "front" or "near the front"; ``probability`` of
    being on the front as the search left it.
    """

    index: int
    reason: str
    probability: float


def choose_finalists(
    draws: ArrayLike,
    costs: ArrayLike,
    directions: Sequence[str],
    *,
    baselines: Sequence[int] = (),
    limit: int | None = None,
    min_probability: float = 0.1,
) -> list[Finalist]:
    """The candidates to train again, the most important first.

    First the first baseline (what everything is compared with), then the candidates that are more likely on
    the front than not, then the other baselines, then those with at least ``min_probability``; each group by
    probability.

    Args:
        draws: joint draws of the accuracies that the search believes in, shape (B, n): from the sampler's
            posterior, or from ``SeedModel.shrunk()``. The search's raw readings would favour luck.
        costs: shape (n,) or (n, c), exact.
        directions: of accuracy and of each cost.
        baselines: indices, the plain backbone first.
        limit: the largest number of finalists; None for all that qualify.
        min_probability: of being non-dominated, above 0.

    Raises:
        ConfigError: ``limit`` is below 1, or ``min_probability`` is not above 0 and at most 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit!r}; it must be at least 1.")
    if not 0 < min_probability <= 1:
        raise ConfigError(f"min_probability is {min_probability!r}; it must be above 0 and at most 1.")
    probability = probability_non_dominated(draws, costs, directions)
    order = sorted(range(len(probability)), key=lambda i: -probability[i])
    ranked = [
        *((i, "baseline") for i in baselines[:1]),
        *((i, "front") for i in order if probability[i] > 0.5),
        *((i, "baseline") for i in baselines[1:]),
        *((i, "near the front") for i in order if probability[i] >= min_probability),
    ]
    reasons: dict[int, str] = {}
    for index, reason in ranked:
        reasons.setdefault(index, reason)
    chosen = [
        Finalist(index=index, reason=reason, probability=float(probability[index]))
        for index, reason in reasons.items()
    ]
    return chosen[:limit]


def next_training(
    readings: Sequence[Mapping[int, float]],
    costs: ArrayLike,
    directions: Sequence[str],
    *,
    rng: np.random.Generator,
    under_way: Collection[tuple[int, int]] = (),
    failed: Collection[int] = (),
    seeds: Sequence[int] = range(10),
    base_seeds: int = 3,
    settled: float = 0.05,
) -> tuple[int, int] | None:
    """The (candidate, seed) whose training should run next.

    Every candidate first gets the first ``base_seeds`` seeds, one seed for all before the next one, so that a
    budget that ends early leaves paired readings. Then the training is chosen that is expected to take most
    variance off the membership of all candidates: with M the indicators of membership and a the levels,
    ``sum over k of cov(M_k, a_i)**2 / (var(a_i) + sd**2)``, the part of M's variance that a reading of
    candidate i explains (linear regression of M on that reading).

    Args:
        readings: of the finalists, in the order of their importance: seed → accuracy.
        costs: shape (n,) or (n, c), exact.
        directions: of accuracy and of each cost.
        rng: for the draws that estimate membership.
        under_way: trainings that run at this moment.
        failed: candidates whose trainings fail or diverge; they get no more.
        seeds: what a candidate may get, in this order, which pairs readings of different candidates.
        base_seeds: how many of them every candidate gets.
        settled: membership with a probability below this or above 1 minus this is decided.

    Returns:
        None where all is decided, or no candidate that could decide more has a seed left.

    Raises:
        ConfigError: ``base_seeds`` is below 1 or above the number of seeds.
    """
    if not 1 <= base_seeds <= len(seeds):
        raise ConfigError(
            f"base_seeds is {base_seeds!r}; it must be from 1 to {len(seeds)}, the number of seeds."
        )
    taken = [set(own) | {seed for index, seed in under_way if index == i} for i, own in enumerate(readings)]
    alive = [i for i in range(len(readings)) if i not in set(failed)]
    for seed in seeds[:base_seeds]:
        for i in alive:
            if seed not in taken[i]:
                return i, seed
    open_to_more = [i for i in alive if any(seed not in taken[i] for seed in seeds)]
    model = SeedModel.fit(readings)
    if model is None or not open_to_more:
        return None
    value = _value_of_reading(
        model, [len(seeds) for seeds in taken], readings, costs, directions, rng, settled
    )
    best = max(open_to_more, key=lambda i: value[i])
    if value[best] <= 0:
        return None
    return best, next(seed for seed in seeds if seed not in taken[best])


def _value_of_reading(
    model: SeedModel,
    counts: Sequence[int],
    readings: Sequence[Mapping[int, float]],
    costs: ArrayLike,
    directions: Sequence[str],
    rng: np.random.Generator,
    settled: float,
) -> Floats:
    """Expected decrease of membership's variance by one more reading of each candidate, shape (n,)."""
    # A reading tells of its candidate's level; what a seed does to all alike decides no membership.
    levels = replace(model, seed_covariance=np.zeros_like(model.seed_covariance)).draw(rng, _DRAWS)
    seed_part = replace(model, mean=np.zeros_like(model.mean), noise_covariance=0 * model.noise_covariance)
    draws = levels + seed_part.draw(rng, _DRAWS)
    members = drawn_fronts(draws, costs, directions).astype(float)
    share = members.mean(axis=0)
    undecided = (share > settled) & (share < 1 - settled)
    levels = np.nan_to_num(levels - levels.mean(axis=0))
    covariance = levels.T @ (members - share)[:, undecided] / len(draws)
    variance = levels.var(axis=0)
    # Below that a correlation is what so many draws give by chance.
    chance = _CHANCE * np.outer(variance, (share * (1 - share))[undecided]) / len(draws)
    covariance[covariance**2 <= chance] = 0.0
    # Readings under way count as if they were in, or parallel workers would all choose the same candidate.
    pending = np.array([len(own) / max(count, 1) for own, count in zip(readings, counts, strict=True)])
    value: Floats = pending**2 * (covariance**2).sum(axis=1) / np.maximum(variance + model.sd**2, 1e-300)
    return value


def selection_bias(selection: ArrayLike, retrained: ArrayLike) -> tuple[float, float]:
    """The winner's curse: by how much selected candidates looked better than they are.

    Args:
        selection: accuracy of each finalist that the search saw, shape (n,).
        retrained: its mean over final seeds, trained by the same schedule, shape (n,). Rows with a NaN are
            left out.

    Returns:
        The mean of selection minus retrained, and half of its 95 % interval (NaN for fewer than 2 finalists).
    """
    difference = np.asarray(selection, dtype=np.float64) - np.asarray(retrained, dtype=np.float64)
    difference = difference[np.isfinite(difference)]
    if len(difference) < 2:
        return (float(difference[0]) if len(difference) else math.nan), math.nan
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    return float(difference.mean()), float(t_quantile_975(len(difference) - 1) * error)
