"""Importance and effects of parameters whose true effects are known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import optuna
import pytest

from se_nas.errors import ConfigError
from se_nas.samplers.importance import effects, importance
from se_nas.samplers.pareto_sampler import ParetoSampler

CHOICES: dict[str, tuple[Any, ...]] = {"s0": (0, 16), "s1": (0, 16, 4), "s2": (0, 4), "idle": ("x", "y")}
GAIN = {"s0": {0: 0.0, 16: 2.0}, "s1": {0: 0.0, 16: 0.5, 4: 1.0}, "s2": {0: 0.0, 4: 0.2}}


def cost(params: dict[str, Any]) -> float:
    return 100.0 + 1.0 * (params["s0"] > 0) + 2.0 * (params["s1"] == 4) + 1.0 * (params["s1"] == 16)


def study_of(trials: int, noise: float = 0.05) -> optuna.Study:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )
    rng = np.random.default_rng(0)
    for _ in range(trials):
        trial = study.ask()
        params = {name: trial.suggest_categorical(name, values) for name, values in CHOICES.items()}
        accuracy = 70 + sum(GAIN[name][params[name]] for name in GAIN) + noise * rng.standard_normal()
        study.tell(trial, (accuracy, cost(params)))
    return study


def test_the_parameter_without_an_effect_is_the_least_important() -> None:
    found = importance(study_of(60))
    assert found["reason"] is None
    assert min(found["objective"], key=found["objective"].get) == "idle"
    assert sum(found["objective"].values()) == pytest.approx(1.0)
    assert set(found["trade_off"]) == set(CHOICES)
    json.dumps(found)


def test_shares_are_of_the_parameters_that_are_named() -> None:
    found = importance(study_of(60), names=["s0", "s1", "s2"])
    assert set(found["objective"]) == set(found["trade_off"]) == {"s0", "s1", "s2"}
    assert sum(found["objective"].values()) == pytest.approx(1.0)
    assert importance(study_of(20), names=[])["reason"] == "no parameter has any effect"


def test_too_few_trials_and_constant_values_are_explained() -> None:
    assert "10 are needed" in importance(study_of(5))["reason"]
    study = optuna.create_study(directions=["maximize", "minimize"])
    for _ in range(12):
        trial = study.ask()
        trial.suggest_categorical("a", (0, 1))
        study.tell(trial, (1.0, 1.0))
    assert importance(study)["reason"] == "all complete trials have the same value"


def test_ties_at_the_bottom_are_explained() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(12):
        trial = study.ask()
        for name in "ab":
            trial.suggest_categorical(name, (0, 1))
        study.tell(trial, (float(number < 3), float(number)))
    found = importance(study)
    assert found["objective"] is None
    assert "equal values" in found["reason"]


def test_effects_of_choices_cover_the_truth() -> None:
    rows = effects(study_of(40), ParetoSampler(known={1: cost}, seed=0))
    truth = {("s0", 16): 2.0, ("s1", 16): 0.5, ("s1", 4): 1.0, ("s2", 4): 0.2, ("idle", "y"): 0.0}
    found = {(row["group"], row["choice"]): row for row in rows}
    assert set(found) == set(truth)
    for name, value in truth.items():
        low, high = found[name]["interval"]
        assert low <= value <= high
        assert high - low < 0.3
    per = found["s0", 16]
    assert per["cost_percent"] == pytest.approx(1.0, abs=0.05)
    assert per["per_percent"] == pytest.approx(per["effect"] / per["cost_percent"])
    assert per["per_percent_interval"][0] < per["per_percent"] < per["per_percent_interval"][1]
    assert found["s2", 4]["per_percent"] is None
    json.dumps(rows)


def test_the_effect_of_a_stage_is_that_of_its_parameters_together() -> None:
    rows = effects(
        study_of(40), ParetoSampler(known={1: cost}, seed=0), groups={"stage 0": ["s0"], "late": ["s1", "s2"]}
    )
    assert [row["group"] for row in rows] == ["stage 0", "late"]
    # Over uniform choices: half of 2.0, and (0.5 + 1.0) / 3 + 0.1.
    assert rows[0]["effect"] == pytest.approx(1.0, abs=0.2)
    assert rows[1]["effect"] == pytest.approx(0.6, abs=0.15)


def test_more_noise_gives_wider_intervals() -> None:
    quiet, loud = (
        effects(study_of(40, noise), ParetoSampler(known={1: cost}, seed=0), groups={"s0": ["s0"]})[0]
        for noise in (0.05, 1.0)
    )
    assert np.ptp(loud["interval"]) > 3 * np.ptp(quiet["interval"])


def test_wrong_uses_are_explained() -> None:
    sampler = ParetoSampler(known={1: cost}, seed=0)
    with pytest.raises(ConfigError, match="'s9', which is not a parameter of the study"):
        effects(study_of(12), sampler, groups={"stage 9": ["s9"]})
    with pytest.raises(ConfigError, match="not modelled"):
        effects(study_of(12), sampler, objective=1)
    empty = optuna.create_study(directions=["maximize", "minimize"])
    assert effects(empty, sampler) == []


def test_a_cost_that_is_only_measured_is_modelled_and_its_doubt_enters() -> None:
    study = study_of(40)
    exact = effects(study, ParetoSampler(known={1: cost}, seed=0), groups={"s0": ["s0"]})[0]
    measured = effects(study, ParetoSampler(seed=0), groups={"s0": ["s0"]})[0]
    assert measured["cost_percent"] == pytest.approx(exact["cost_percent"], abs=0.1)
    assert measured["per_percent"] == pytest.approx(exact["per_percent"], rel=0.1)
    assert np.ptp(measured["per_percent_interval"]) > np.ptp(exact["per_percent_interval"])
    free = effects(study, ParetoSampler(seed=0), groups={"s2": ["s2"]})[0]
    assert free["per_percent"] is None
    assert free["per_percent_interval"] is None
