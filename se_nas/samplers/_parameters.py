"""Parameters of a study: their choices, as a user lists them and as trials ask for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import Study
from optuna.trial import TrialState

from se_nas.errors import ConfigError
from se_nas.samplers._grid import Index
from se_nas.samplers._interval import Interval
from se_nas.samplers._observations import ENDED

MAX_CHOICES = 1000
"""Longest grid of one numeric parameter."""
FEW = 5
"""Values of a continuous parameter that stand for all where each is looked at."""
RECENT = 10
"""So many trials tell the range of a numeric parameter. It may change from trial to trial, or between sessions."""


def choices_of(name: str, distribution: BaseDistribution) -> Sequence[Any]:
    """The values of a distribution: a tuple, or an `Interval` if it is continuous.

    Raises:
        ConfigError: the distribution is of a kind that Optuna does not have, or has a step and more than `MAX_CHOICES`
            values.
    """
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    if not isinstance(distribution, IntDistribution | FloatDistribution):
        raise ConfigError(
            f"parameter {name!r} has the distribution {distribution}; ParetoSampler takes categorical parameters,"
            " integers and floats."
        )
    low, high = distribution.low, distribution.high
    step = 1 if isinstance(distribution, IntDistribution) and distribution.log else distribution.step
    if step is None:
        return Interval(low, high, distribution.log) if low < high else (low,)
    count = math.floor((high - low) / step + 1e-9) + 1
    if count > MAX_CHOICES:
        raise ConfigError(
            f"parameter {name!r} has {count} values ({distribution}); at most {MAX_CHOICES} are allowed."
            " Give it a larger step, or list the values with suggest_categorical."
        )
    if isinstance(distribution, IntDistribution):
        return tuple(range(distribution.low, distribution.high + 1, int(step)))
    return tuple(round(low + i * step, 12) for i in range(count))


def as_distribution(name: str, choices: Any) -> BaseDistribution:
    """What a user lists for a parameter: Optuna's distribution, or a list of choices.

    Raises:
        ConfigError: it is neither, or there is no choice.
    """
    if isinstance(choices, BaseDistribution):
        return choices
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise ConfigError(f"space has {name!r}: {choices!r}; it must be a list of choices.")
    values = tuple(choices)
    if not values:
        raise ConfigError(f"space has the parameter {name!r} without a choice; it needs at least one.")
    return CategoricalDistribution(values)


def check_kind(name: str, listed: BaseDistribution, asked: BaseDistribution) -> None:
    """Refuse a parameter that the user lists as one kind and a trial asks for as another.

    Raises:
        ConfigError: the kinds differ, or the choices of a categorical parameter do.
    """
    categorical = isinstance(listed, CategoricalDistribution)
    if type(listed) is not type(asked) or (categorical and listed != asked):
        raise ConfigError(
            f"space has the parameter {name!r} as {listed}, and a trial asks for it as {asked}: give space what the"
            " trial asks for, with the distributions of optuna.distributions."
        )


def a_few(choices: Sequence[Any]) -> Sequence[Any]:
    """All of some choices, or a few values of an interval from end to end."""
    if not isinstance(choices, Interval):
        return choices
    return [choices[level] for level in np.linspace(0, len(choices) - 1, FEW).astype(int).tolist()]


def telling_choices(distribution: BaseDistribution) -> Index:
    """Indices of the choices that another parameter may depend on: the ends of a range, or any of a list."""
    count = len(choices_of("", distribution))
    return np.arange(count) if isinstance(distribution, CategoricalDistribution) else np.array([0, count - 1])


def asked_space(study: Study) -> dict[str, BaseDistribution]:
    """The parameters that ended trials have asked for, by name. Ranges are those of the latest trials, joined."""
    found: dict[str, list[BaseDistribution]] = {}
    for trial in reversed(study.get_trials(deepcopy=False, states=ENDED)):
        for name, distribution in trial.distributions.items():
            recent = found.setdefault(name, [])
            if len(recent) < RECENT:
                recent.append(distribution)
    if not found:
        # Nothing has ended well, but a trial that failed after its last parameter shows the space.
        failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        longest = max((trial.distributions for trial in failed), key=len, default={})
        found = {name: [distribution] for name, distribution in longest.items()}
    return {name: _joined(found[name]) for name in sorted(found)}


def _joined(distributions: Sequence[BaseDistribution]) -> BaseDistribution:
    """The latest of the distributions, the first, over the range of all that have its grid."""
    latest = distributions[0]
    if not isinstance(latest, IntDistribution | FloatDistribution):
        return latest
    alike: list[Any] = [d for d in distributions if type(d) is type(latest) and _on_grid(d, latest)]
    low, high = min(d.low for d in alike), max(d.high for d in alike)
    kind: Any = type(latest)
    return kind(low, high, log=latest.log, step=latest.step)


def _on_grid(one: Any, other: Any) -> bool:
    if one.step is None or other.step is None:
        return bool(one.step == other.step and one.log == other.log)
    steps = (one.low - other.low) / other.step
    return bool(one.step == other.step and one.log == other.log and abs(steps - round(steps)) < 1e-9)
