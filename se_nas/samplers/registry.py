"""The samplers that ship, by name: ours and Optuna's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from se_nas.errors import ConfigError, not_allowed
from se_nas.samplers.pareto_sampler import ParetoSampler

MAX_GRID = 100_000
"""Points that Optuna's grid sampler may hold: it lists them all."""
Choices = Mapping[str, tuple[Any, ...]]


class _Grid(optuna.samplers.GridSampler):
    """Optuna's grid, for ask and tell: the caller knows when the space is exhausted."""

    def after_trial(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the original stops the study, which is an error outside ``Study.optimize``."""


def _grid(seed: int, choices: Choices) -> BaseSampler:
    points = math.prod(len(values) for values in choices.values())
    if points > MAX_GRID:
        raise ConfigError(
            f"sampler is 'grid', but the space has {points:,} points; at most {MAX_GRID:,} are allowed."
        )
    return _Grid({name: list(values) for name, values in choices.items()}, seed=seed)


SAMPLERS: Mapping[str, Callable[[int, Choices], BaseSampler]] = MappingProxyType(
    {
        "pareto": lambda seed, choices: ParetoSampler(seed=seed),
        "tpe": lambda seed, choices: optuna.samplers.TPESampler(seed=seed, multivariate=True),
        "nsga2": lambda seed, choices: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
        "nsga3": lambda seed, choices: optuna.samplers.NSGAIIISampler(seed=seed, population_size=20),
        "gp": lambda seed, choices: optuna.samplers.GPSampler(seed=seed),
        "random": lambda seed, choices: optuna.samplers.RandomSampler(seed=seed),
        "qmc": lambda seed, choices: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
        "grid": _grid,
    }
)
"""Makes each of them from a seed and the choices of the space."""


def make_sampler(name: str, *, seed: int, choices: Choices) -> BaseSampler:
    """A shipped sampler, seeded.

    Args:
        name: a name in `SAMPLERS`.
        seed: passed to the sampler as ``seed``.
        choices: parameter names and their choices, for samplers that need the whole grid.

    Raises:
        ConfigError: the name is unknown, or the space is too large for a grid.
    """
    if name not in SAMPLERS:
        raise ConfigError(not_allowed("sampler", name, SAMPLERS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](seed, choices)
