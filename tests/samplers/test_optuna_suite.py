"""Optuna's own tests of samplers, as far as they ask for finite parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import FrozenTrial

from se_nas.errors import ConfigError
from se_nas.samplers.pareto_sampler import ParetoSampler

pytestmark = pytest.mark.filterwarnings("ignore")


class SkipContinuous(ParetoSampler):
    """Skips a test at its first continuous parameter, which `ParetoSampler` refuses."""

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        try:
            return super().sample_relative(study, trial, search_space)
        except ConfigError as error:
            return _skipped(error)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        try:
            return super().sample_independent(study, trial, param_name, param_distribution)
        except ConfigError as error:
            return _skipped(error)


def _skipped(error: ConfigError) -> Any:
    if "is continuous" not in str(error):
        raise error
    pytest.skip("a continuous parameter")


class TestParetoSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: SkipContinuous(seed=0)
