"""Continuous parameters: their levels, how alike these are, and what the sampler makes of them beside choices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from scipy import optimize

from se_nas.samplers._gp import Surrogate
from se_nas.samplers._grid import Grid
from se_nas.samplers._interval import LEVELS, Interval
from se_nas.samplers._kernel import ChoiceCorrelations, Line
from se_nas.samplers._likelihood import Covariance, Points, prior
from se_nas.samplers.importance import effects
from se_nas.samplers.pareto_sampler import MODEL, ParetoSampler

INTERVALS = st.one_of(
    st.tuples(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300)).map(
        lambda ends: Interval(min(ends), max(ends))
    ),
    st.tuples(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300)).map(
        lambda ends: Interval(min(ends), max(ends), log=True)
    ),
).filter(lambda one: one.high > one.low + 1e-9 * abs(one.low))


@given(INTERVALS, st.integers(0, LEVELS - 1), st.integers(0, LEVELS - 1))
def test_levels_are_inside_in_order_and_found_again(interval: Interval, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert interval.low <= interval[low] <= interval[high] <= interval.high
    assert isinstance(interval[low], float)
    again = interval.nearest(interval[one])
    assert again is not None
    assert abs(again - one) <= 1
    assert (interval.nearest(interval.low), interval.nearest(interval.high)) == (0, LEVELS - 1)


def test_levels_of_a_logarithmic_interval_are_even_in_the_logarithm() -> None:
    interval = Interval(1e-5, 1e-1, log=True)
    assert interval[(LEVELS - 1) // 2] == pytest.approx(1e-3)
    assert interval.nearest(1e-2) == (LEVELS - 1) * 3 // 4
    assert interval.nearest(0.2) is None
    assert interval.nearest(math.nan) is None


def test_the_correlation_of_levels_by_hand() -> None:
    choices = ChoiceCorrelations([Line(101, absent=True), np.array([0.0, 1.0])])
    theta = prior(2, 1, by_cost=True)[0]
    theta[:2], theta[2], theta[-2] = (math.log(0.7), math.log(0.4)), math.log(0.5), -40.0
    points = Points(index=np.array([[0, 0], [50, 0], [50, 1], [101, 0], [101, 1]]), features=np.zeros((5, 0)))
    found = Covariance(choices, theta)(points, points)
    near = math.exp(-1.0)  # half the range, at a scale of half the range
    main = np.array(
        [
            [1.1, 0.7 * near + 0.4, 0.7 * near, 0.4, 0.0],
            [0.0, 1.1, 0.7, 0.4, 0.0],
            [0.0, 0.0, 1.1, 0.0, 0.4],
            [0.0, 0.0, 0.0, 1.1, 0.7],
            [0.0, 0.0, 0.0, 0.0, 1.1],
        ]
    )
    both = np.zeros((5, 5))
    both[0, 1] = 0.7 * near * 0.4
    both[np.diag_indices(5)] = 0.7 * 0.4
    pair, rest, reach = np.exp(theta[-8:-5])
    expected = 9.0 + main + pair * both + rest * np.exp(reach * (main - 1.1))
    upper = np.triu_indices(5)
    assert found[upper] == pytest.approx(expected[upper])
    assert found == pytest.approx(found.T)


def test_the_gradient_of_the_fit_holds_for_continuous_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    index = np.stack(
        [rng.integers(0, LEVELS + 1, 20), rng.integers(0, 4, 20), rng.integers(0, LEVELS, 20)], axis=1
    )
    index[:3, 0] = LEVELS
    seen: list[Any] = []
    minimise = optimize.minimize

    def spy(function: Any, start: Any, **options: Any) -> Any:
        seen.append((function, start))
        return minimise(function, start, **options)

    monkeypatch.setattr(optimize, "minimize", spy)
    points = Points(index=index, features=rng.standard_normal((20, 1)))
    values = np.sin(index[:, 2] / LEVELS * 3) + 0.3 * index[:, 1] + 0.1 * rng.standard_normal(20)
    positions = [Line(LEVELS, absent=True), np.array([0.0, 0.3, 0.6, 1.0]), Line(LEVELS)]
    model = Surrogate(positions, points, values)
    function, start = seen[0]
    at = start + 0.2 * rng.standard_normal(len(start))
    steps = 1e-5 * np.eye(len(start))
    numeric = [(function(at + step)[0] - function(at - step)[0]) / 2e-5 for step in steps]
    assert function(at)[1] == pytest.approx(np.array(numeric), abs=1e-5)
    assert model.predict(points)[0] == pytest.approx(values, abs=0.4)
    for rough, exact in zip(model.rough(points), model.predict(points), strict=True):
        assert rough == pytest.approx(exact, abs=1e-3)


def test_neighbours_and_points_around_move_continuous_parameters_within_their_range() -> None:
    grid = Grid({"x": Interval(0.0, 1.0), "c": ("a", "b", "c")}, known={})
    row = np.array([[100, 1]])
    found = {tuple(point) for point in grid.neighbours(row).tolist()}
    assert {(100, 0), (100, 2), (101, 1), (99, 1), (0, 1), (LEVELS - 1, 1), (356, 1)} <= found
    around = grid.around(row, np.random.default_rng(0))
    assert (around[:, 1] == 1).all()
    assert ((around[:, 0] >= 0) & (around[:, 0] < LEVELS)).all()
    assert len(np.unique(around[:, 0])) > 20
    assert not len(Grid({"c": (0, 1)}, known={}).around(np.array([[0]]), np.random.default_rng(0)))


def truth(params: dict[str, Any]) -> float:
    """Best at a learning rate of 2e-3 and a drop path of 0.15, with one of three switches that pays."""
    rate, drop = math.log10(params["lr"]) + 2.7, params["drop"] - 0.15
    return 70 - 2 * rate**2 - 20 * drop**2 + 0.8 * params["s0"] + 0.3 * params["s1"] - 0.4 * params["s2"]


def cost(params: dict[str, Any]) -> float:
    return float(1 + params["s0"] + 2 * params["s1"] + 3 * params["s2"])


def asked(trial: optuna.Trial) -> dict[str, Any]:
    found: dict[str, Any] = {f"s{i}": trial.suggest_categorical(f"s{i}", (0, 1)) for i in range(3)}
    found["lr"] = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    return found | {"drop": trial.suggest_float("drop", 0, 0.5)}


def searched(count: int, study: optuna.Study | None = None) -> optuna.Study:
    rng = np.random.default_rng(0)
    sampler = ParetoSampler(known={1: cost}, seed=0)
    if study is None:
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for _ in range(count):
        trial = study.ask()
        params = asked(trial)
        study.tell(trial, (truth(params) + 0.1 * rng.standard_normal(), cost(params)))
    return study


def test_a_mixed_space_is_searched_to_its_best() -> None:
    """24 trials end near the best rate and drop path; of 24 random ones, the best is 69.9 on average over seeds."""
    study = searched(24)
    points = [trial.params for trial in study.trials]
    assert max(truth(point) for point in points) > 70.9  # of 71.1
    assert max(truth(point) for point in points if cost(point) <= 1) > 69.7  # of 70
    assert len({tuple(sorted(point.items())) for point in points}) == 24
    found = effects(study, study.sampler)
    rates = sorted(row["choice"] for row in found if row["group"] == "lr")
    assert rates[-1] == pytest.approx(0.1)
    assert len(rates) == 4
    mean, sd = study.sampler.predict(study, points[:3])
    assert np.isfinite(mean).all()
    assert (sd[:, 1] == 0).all()


def test_a_continuous_value_that_was_given_is_a_reading_like_others_and_others_complete_it() -> None:
    study = searched(6)
    study.enqueue_trial({"lr": 0.0123})
    study.enqueue_trial({"lr": 5.0})
    with pytest.warns(UserWarning, match="out of range"):
        searched(2, study)
    given, outside = study.trials[-2:]
    assert given.params["lr"] == 0.0123
    assert given.system_attrs[MODEL]["source"] == "model"
    assert outside.params["lr"] == 5.0
    searched(1, study)
    assert study.trials[-1].state == TrialState.COMPLETE


def test_simultaneous_proposals_and_later_sessions_agree_about_continuous_points() -> None:
    study = searched(6)
    other = optuna.create_study(
        directions=["maximize", "minimize"], sampler=ParetoSampler(known={1: cost}, seed=0)
    )
    other.add_trials(study.trials)
    assert asked(study.ask()) == asked(other.ask())
    pending = [asked(study.ask()) for _ in range(4)]
    assert len({tuple(sorted(params.items())) for params in pending}) == 4


def test_a_continuous_parameter_that_only_some_trials_ask_for_is_searched() -> None:
    study = optuna.create_study(direction="maximize", sampler=ParetoSampler(seed=0))
    for _ in range(16):
        trial = study.ask()
        value = 0.0
        if trial.suggest_categorical("on", (False, True)):
            value = 1 - 4 * (trial.suggest_float("x", 0, 1) - 0.3) ** 2
        study.tell(trial, value)
    best = study.best_trial
    assert best.params["on"]
    assert best.params["x"] == pytest.approx(0.3, abs=0.08)
