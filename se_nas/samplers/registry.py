"""Samplers by name: ours, Optuna's, or any class that a user names as ``package.module:Class``."""

from __future__ import annotations

import importlib
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from se_nas.errors import ConfigError, nearest
from se_nas.samplers.user_sampler import blamed

MAX_GRID = 100_000
"""Points that Optuna's grid sampler may hold: it lists them all."""


def make_sampler(name: str, *, seed: int, choices: Mapping[str, tuple[Any, ...]]) -> BaseSampler:
    """One of Optuna's samplers, or a user's own class, seeded.

    Args:
        name: tpe, nsga2, nsga3, gp, random, qmc, grid or ``package.module:Class``.
        seed: passed to the sampler as ``seed``.
        choices: parameter names and their choices, for samplers that need the whole grid.

    Raises:
        ConfigError: the name is unknown, names no sampler, or one that cannot be made from a seed or nothing.
    """
    builtin: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
        "nsga3": lambda: optuna.samplers.NSGAIIISampler(seed=seed, population_size=20),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "qmc": lambda: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
        "grid": lambda: _grid(choices, seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name in builtin:
            return builtin[name]()
        if ":" not in name:
            known = ["pareto", *builtin]
            raise ConfigError(
                f"sampler is {name!r}; allowed: {', '.join(known)} or package.module:Class.{nearest(name, known)}"
            )
        return _imported(name, seed)


class _Grid(optuna.samplers.GridSampler):
    """Optuna's grid, for ask and tell: the caller knows when the space is exhausted."""

    def after_trial(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the original stops the study, which is an error outside ``Study.optimize``."""


def _grid(choices: Mapping[str, tuple[Any, ...]], seed: int) -> BaseSampler:
    points = math.prod(len(values) for values in choices.values())
    if points > MAX_GRID:
        raise ConfigError(
            f"sampler is 'grid', but the space has {points:,} points; at most {MAX_GRID:,} are allowed."
        )
    return _Grid({name: list(values) for name, values in choices.items()}, seed=seed)


def _imported(name: str, seed: int) -> BaseSampler:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigError(f"sampler is {name!r}; it must be package.module:Class.")
    with blamed(name):
        try:
            cls: Any = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"sampler {name!r} cannot be imported: {error}.") from error
    if not (isinstance(cls, type) and issubclass(cls, BaseSampler)):
        raise ConfigError(f"sampler {name!r} is no subclass of optuna.samplers.BaseSampler.")
    make: Callable[..., BaseSampler] = cls
    with blamed(name):
        takes_seed = "seed" in inspect.signature(cls).parameters
        return make(seed=seed) if takes_seed else make()
