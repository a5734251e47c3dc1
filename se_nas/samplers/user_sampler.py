"""A user's own sampler, whose exceptions are told as theirs."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from se_nas.errors import ConfigError, SeNasError


class UsersSampler(BaseSampler):
    """Passes everything on to ``sampler``, and refuses values that are no choice of their parameter.

    Args:
        name: what the user gave, for messages.
        sampler: does the work.

    Raises (its methods):
        ConfigError: the sampler raised; the message has its exception and where that came from.
    """

    def __init__(self, name: str, sampler: BaseSampler) -> None:
        self._name, self._sampler = name, sampler

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        with blamed(self._name):
            return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        with blamed(self._name):
            values: Mapping[str, Any] = self._sampler.sample_relative(study, trial, search_space)
            for name, value in values.items():
                search_space[name].to_internal_repr(value)
            return dict(values)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        with blamed(self._name):
            value = self._sampler.sample_independent(study, trial, param_name, param_distribution)
            param_distribution.to_internal_repr(value)
            return value

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        with blamed(self._name):
            self._sampler.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        with blamed(self._name):
            self._sampler.after_trial(study, trial, state, values)


@contextmanager
def blamed(name: str) -> Iterator[None]:
    """Turn exceptions of the user's sampler ``name`` into ConfigError."""
    try:
        yield
    except SeNasError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"sampler {name!r} failed with {type(error).__name__}: {error} ({last.name}, line {last.lineno})"
        ) from error
