"""Estimates of an objective that a sampler is given: trusted as far as readings bear them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
import optuna
import pytest
from scipy import optimize

from se_nas.errors import ConfigError
from se_nas.samplers._gp import Surrogate
from se_nas.samplers._likelihood import Points
from se_nas.samplers._paired_gp import PairedSurrogate
from se_nas.samplers.pareto_sampler import ParetoSampler

SPACE = {f"p{i}": (0, 1, 2) for i in range(5)}
EVERYTHING = [dict(zip(SPACE, point, strict=True)) for point in product(*SPACE.values())]
GAINS = dict(zip(SPACE, (1.0, -0.6, 0.3, 0.0, 0.7), strict=True))


def accuracy(params: Mapping[str, Any]) -> float:
    return sum(GAINS[name] * min(value, 1.5) for name, value in params.items())


def unrelated(params: Mapping[str, Any]) -> float:
    return float(np.sin(11.0 * sum((i + 1) * value for i, value in enumerate(params.values()))))


def searched(
    prior: Any, trials: int, evidence: bool = False, noise: float = 0.1
) -> tuple[ParetoSampler, optuna.Study]:
    sampler = ParetoSampler(
        known={1: lambda params: float(sum(params.values()))}, seed=0, space=SPACE, prior=prior,
        evidence={0: "loss"} if evidence else None,
    )  # fmt: skip
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    rng = np.random.default_rng(0)
    for _ in range(trials):
        trial = study.ask()
        params = {name: trial.suggest_categorical(name, values) for name, values in SPACE.items()}
        if evidence:
            trial.set_user_attr("loss", 2 - 0.1 * accuracy(params) + 0.02 * rng.standard_normal())
        study.tell(trial, (accuracy(params) + noise * rng.standard_normal(), float(sum(params.values()))))
    return sampler, study


@pytest.mark.parametrize("evidence", [False, True])
def test_a_right_estimate_is_trusted_and_a_wrong_one_is_not(evidence: bool) -> None:
    sampler, study = searched([accuracy, unrelated], 14, evidence)
    right, wrong = sampler.trust(study)
    assert right > 0.8
    assert wrong < 0.2
    (alone,) = (sampler := searched(unrelated, 14, evidence))[0].trust(sampler[1])
    assert alone < 0.2


def test_a_right_estimate_finds_what_is_good_sooner() -> None:
    truth = np.array([accuracy(params) for params in EVERYTHING])

    def predicted(prior: Callable[..., Any] | None) -> float:
        sampler, study = searched(prior, 5)
        return float(np.corrcoef(sampler.predict(study, EVERYTHING)[0][:, 0], truth)[0, 1])

    assert predicted(accuracy) > 0.97
    assert predicted(accuracy) > predicted(None) + 0.05


def test_an_estimate_that_is_the_same_everywhere_says_nothing() -> None:
    sampler, study = searched([lambda params: 3.0, accuracy], 6)
    assert sampler.trust(study)[0] == 0.0
    plain = searched([accuracy], 6)[1]
    assert [trial.params for trial in study.trials] == [trial.params for trial in plain.trials]


def test_trust_needs_a_finished_trial_and_functions() -> None:
    sampler, study = searched(accuracy, 0)
    with pytest.raises(ConfigError, match="no finished trial"):
        sampler.trust(study)
    with pytest.raises(ConfigError, match="prior is"):
        ParetoSampler(prior=[accuracy, 3])  # type: ignore[list-item]
    assert searched(None, 4)[0].trust(searched(None, 4)[1]) == []


@pytest.mark.parametrize("paired", [False, True])
def test_the_gradient_by_the_trust_in_estimates(paired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(0, 3, size=(20, 4))
    points = Points(index=index, features=rng.standard_normal((20, 6)), estimates=2)
    values = (
        index @ rng.standard_normal((4, 2)) + points.features[:, 2:4] + 0.1 * rng.standard_normal((20, 2))
    )
    seen = []
    minimise = optimize.minimize

    def spy(function: Any, start: Any, **options: Any) -> Any:
        seen.append((function, start))
        return minimise(function, start, **options)

    monkeypatch.setattr(optimize, "minimize", spy)
    positions = [np.linspace(0, 1, 3)] * 4
    model = (
        PairedSurrogate(positions, points, values) if paired else Surrogate(positions, points, values[:, 0])
    )
    function, start = seen[0]
    assert len(start) == len(model.theta) == 4 + 2 + 8 + 4 * paired
    at = start + 0.2 * rng.standard_normal(len(start))
    steps = 1e-5 * np.eye(len(start))
    numeric = [(function(at + step)[0] - function(at - step)[0]) / 2e-5 for step in steps]
    assert function(at)[1] == pytest.approx(np.array(numeric), abs=1e-4)
    # Both forms of the covariance are the same, and shares are of the mean that is predicted.
    for rough, exact in zip(model.rough(points), model.predict(points), strict=True):
        assert rough == pytest.approx(exact, abs=1e-3)
    right, wrong = model.trusts(points)
    assert right > 5 * wrong
