"""Samplers that users write: what their class must be, and errors that name them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from se_nas.errors import ConfigError, blamed


class UsersSampler(BaseSampler):
    """Passes everything on to ``sampler``, and refuses values that are not among a parameter's choices.

    Args:
        name: as the user gave it, for messages.
        sampler: does the work.

    Raises (its methods):
        ConfigError: the sampler raised; the message has its exception and where it came from.
    """

    def __init__(self, name: str, sampler: BaseSampler) -> None:
        self._name, self._sampler = name, sampler

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        with blamed(f"sampler {self._name!r}"):
            return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        with blamed(f"sampler {self._name!r}"):
            values: Mapping[str, Any] = self._sampler.sample_relative(study, trial, search_space)
            for name, value in values.items():
                search_space[name].to_internal_repr(value)
            return dict(values)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        with blamed(f"sampler {self._name!r}"):
            value = self._sampler.sample_independent(study, trial, param_name, param_distribution)
            param_distribution.to_internal_repr(value)
            return value

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        with blamed(f"sampler {self._name!r}"):
            self._sampler.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        with blamed(f"sampler {self._name!r}"):
            self._sampler.after_trial(study, trial, state, values)


def check_sampler_class(name: str, cls: Any) -> type[BaseSampler]:
    """``cls`` if it is a sampler that can be made from a seed or from nothing; it is not made.

    Raises:
        ConfigError: it is not.
    """
    if not (isinstance(cls, type) and issubclass(cls, BaseSampler)):
        raise ConfigError(f"sampler {name!r} is not a subclass of optuna.samplers.BaseSampler.")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ConfigError(f"sampler {name!r} is abstract: it lacks {missing}.")
    try:
        inspect.signature(cls).bind(**_arguments(cls, 0))
    except TypeError as error:
        raise ConfigError(f"sampler {name!r} cannot be made from a seed or from nothing: {error}.") from None
    return cls


def make_users_sampler(name: str, cls: Any, *, seed: int) -> UsersSampler:
    """A sampler of the user's class, made from ``seed`` if it takes one.

    Raises:
        ConfigError: it is not a sampler, or it raised while it was made.
    """
    cls = check_sampler_class(name, cls)
    with blamed(f"sampler {name!r}"):
        return UsersSampler(name, cls(**_arguments(cls, seed)))


def _arguments(cls: type[BaseSampler], seed: int) -> dict[str, int]:
    return {"seed": seed} if "seed" in inspect.signature(cls).parameters else {}
