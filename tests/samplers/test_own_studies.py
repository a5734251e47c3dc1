"""`ParetoSampler` in studies whose trials do not ask for the same parameters every time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.samplers import PartialFixedSampler, RandomSampler

from se_nas.errors import ConfigError
from se_nas.pareto import hypervolume
from se_nas.samplers._conditions import Conditions
from se_nas.samplers.pareto_sampler import MODEL, ParetoSampler

Params = dict[str, Any]
Objective = Callable[[optuna.Trial], tuple[float, float]]
RANGES = {"a": IntDistribution(0, 4), "b": IntDistribution(0, 4)}


def begun(sampler: optuna.samplers.BaseSampler, **options: Any) -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler, **options)


def asked(study: optuna.Study) -> list[tuple[tuple[str, Any], ...]]:
    return [tuple(sorted(trial.params.items())) for trial in study.trials]


def cost(params: Params) -> float:
    return float(params["a"] + params["b"])


def of_ranges(trial: optuna.Trial) -> tuple[float, float]:
    params = {name: trial.suggest_int(name, 0, 4) for name in RANGES}
    return float(params["a"] * params["b"]), cost(params)


# A gate of one of four kinds at each of two stages; only one kind has a reduction, and only two of the others a
# temperature, which costs nothing.

KINDS, REDUCTIONS, TEMPERATURES = ("none", "eca", "ge", "se"), (2, 4, 8, 16), (0.5, 1.0, 2.0)
GATES: dict[str, Any] = {
    f"{name}{stage}": choices
    for stage in range(2)
    for name, choices in (("kind", KINDS), ("reduction", REDUCTIONS), ("temperature", TEMPERATURES))
}


def gate_cost(params: Params) -> float:
    """It is given every parameter, and must look only at those that matter."""
    total = 10.0
    for stage in range(2):
        kind = params[f"kind{stage}"]
        per_kind = {"none": 0.0, "eca": 0.3, "ge": 0.9, "se": 4.0 / params[f"reduction{stage}"]}
        total += (stage + 1) * per_kind[kind]
    return total


def gate_accuracy(params: Params) -> float:
    total = 70.0
    for stage in range(2):
        kind = params[f"kind{stage}"]
        gain = {"none": 0.0, "eca": 0.4, "ge": 0.5, "se": 1.6}[kind]
        if kind == "se":
            gain *= {2: 1.0, 4: 0.95, 8: 0.6, 16: 0.2}[params[f"reduction{stage}"]]
        elif kind != "none":
            gain *= {0.5: 0.5, 1.0: 1.0, 2.0: 0.7}[params[f"temperature{stage}"]]
        total += gain * (1.0, 1.5)[stage]
    return total


def gates(trial: optuna.Trial) -> tuple[float, float]:
    params: Params = {}
    for stage in range(2):
        kind = trial.suggest_categorical(f"kind{stage}", KINDS)
        params |= {f"kind{stage}": kind, f"reduction{stage}": 2}
        if kind == "se":
            params[f"reduction{stage}"] = trial.suggest_categorical(f"reduction{stage}", REDUCTIONS)
        elif kind != "none":
            params[f"temperature{stage}"] = trial.suggest_categorical(f"temperature{stage}", TEMPERATURES)
    return gate_accuracy(params), gate_cost(params)


def gates_found(study: optuna.Study) -> float:
    """Share of the hypervolume of all 11 ** 2 points."""
    values = np.array([trial.values for trial in study.trials])
    every = [
        {f"kind{i}": kind, f"reduction{i}": r or 2, f"temperature{i}": t or 1.0}
        for i in range(2)
        for kind, r, t in (
            [("none", 0, 0)]
            + [("se", r, 0) for r in REDUCTIONS]
            + [(k, 0, t) for k in ("eca", "ge") for t in TEMPERATURES]
        )
    ]
    points = [{**a, **b} for a, b in product(every[:11], every[11:])]
    whole = np.array([[gate_accuracy(p), gate_cost(p)] for p in points])
    corner, directions = np.array([69.9, 16.5]), ("maximize", "minimize")
    return hypervolume(values, corner, directions) / hypervolume(whole, corner, directions)


@pytest.mark.parametrize("space", [GATES, None], ids=["space", "no-space"])
def test_a_conditional_space_is_searched_better_than_at_random(space: dict[str, Any] | None) -> None:
    known = {1: gate_cost} if space else None  # without space=, reductions are unknown until one is asked for
    found, chance = [], []
    for seed in range(3):
        study = begun(ParetoSampler(known=known, space=space, seed=seed))
        study.optimize(gates, n_trials=18)
        assert len(set(asked(study)[1:])) == 17  # without space=, the first is drawn at random
        found.append(gates_found(study))
        study = begun(RandomSampler(seed=seed))
        study.optimize(gates, n_trials=18)
        chance.append(gates_found(study))
    assert np.median(found) > 0.95
    assert np.median(found) > np.median(chance) + 0.03


def test_no_point_of_a_conditional_space_is_missed_or_asked_for_twice_while_others_are_left() -> None:
    space = {"kind": ["none", "eca", "se"], "reduction": [4, 8, 16]}

    def price(params: Params) -> float:
        return {"none": 0.0, "eca": 0.1, "se": 8 / params["reduction"]}[params["kind"]]

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        params = {"kind": trial.suggest_categorical("kind", space["kind"]), "reduction": 4}
        if params["kind"] == "se":
            params["reduction"] = trial.suggest_categorical("reduction", space["reduction"])
        return 1.0 + price(params), price(params)

    for seed in range(4):
        study = begun(ParetoSampler(known={1: price}, space=space, seed=seed))
        study.optimize(objective, n_trials=12)
        assert len(set(asked(study)[:5])) == 5
        assert max(asked(study).count(point) for point in asked(study)) <= 3


def test_a_range_that_depends_on_another_parameter_wastes_no_trial_twice() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        a = trial.suggest_int("a", 0, 4)
        b = trial.suggest_int("b", 0, a)
        return float(a * b), float(a + b)

    study = begun(ParetoSampler(known={1: cost}, space=RANGES, seed=0))
    study.optimize(objective, n_trials=20)
    proposals = [tuple(t.system_attrs[MODEL]["params"].values()) for t in study.trials]
    assert len(set(proposals)) == 20
    assert len(set(asked(study))) >= 13  # of 15


def test_a_point_whose_trials_fail_before_their_last_parameter_does_not_come_back() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        if trial.suggest_int("a", 0, 4) == 0:
            raise ValueError("no such network")
        return 1.0 * trial.suggest_int("b", 0, 4), cost(trial.params)

    study = begun(ParetoSampler(known={1: cost}, space=RANGES, seed=0))
    study.optimize(objective, n_trials=25, catch=ValueError)
    assert sum(trial.params["a"] == 0 for trial in study.trials) == 5


@pytest.mark.parametrize("kind", [list, lambda values: IntDistribution(min(values), max(values))])
def test_a_name_that_no_trial_asks_for_is_an_error(kind: Callable[[Any], Any]) -> None:
    space = {"a": kind(range(5)), "b": kind(range(5)), "c": kind(range(2))}

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        if kind is list:
            params = {name: trial.suggest_categorical(name, range(5)) for name in "ab"}
        else:
            params = {name: trial.suggest_int(name, 0, 4) for name in "ab"}
        return 1.0, cost(params)

    study = begun(ParetoSampler(known={1: cost}, space=space, seed=0))
    with pytest.raises(ConfigError, match=r"space names 'c', and none of \d trials"):
        study.optimize(objective, n_trials=20)
    assert len(study.trials) <= (
        5 if kind is list else 2
    )  # each choice of a list once, or both ends of a range


def test_a_misspelt_name_is_pointed_out() -> None:
    study = begun(
        ParetoSampler(space={"depth": IntDistribution(0, 4), "widht": IntDistribution(0, 4)}, seed=0)
    )
    with pytest.raises(ConfigError, match=r"'widht'.*Did you mean 'width'"):
        study.optimize(lambda t: (t.suggest_int("depth", 0, 4), t.suggest_int("width", 0, 4)), n_trials=20)


def test_space_as_another_kind_than_the_objective_asks_for_is_an_error() -> None:
    study = begun(ParetoSampler(known={1: cost}, space={"a": [0, 1, 2, 3, 4], "b": [0, 1, 2, 3, 4]}))
    with pytest.raises(ConfigError, match=r"'a' as CategoricalDistribution.*asks for it as IntDistribution"):
        study.optimize(of_ranges, n_trials=3)
    study = begun(ParetoSampler(known={1: cost}, space={"a": [0, 1], "b": [0, 1]}))
    with pytest.raises(ConfigError, match=r"parameter 'a'"):
        study.optimize(lambda t: (1.0, t.suggest_categorical("a", [0, 1, 2])), n_trials=3)


def test_ranges_that_were_widened_between_sessions_are_searched() -> None:
    study = begun(ParetoSampler(known={1: cost}, seed=0))
    study.optimize(of_ranges, n_trials=8)

    def wider(trial: optuna.Trial) -> tuple[float, float]:
        params = {"a": trial.suggest_int("a", 0, 6), "b": trial.suggest_int("b", -1, 4)}
        return float(params["a"] * params["b"]), cost(params)

    study.sampler = ParetoSampler(known={1: cost}, seed=0)
    study.optimize(wider, n_trials=20)
    assert {6, -1} <= {value for trial in study.trials[8:] for value in trial.params.values()}
    assert len(set(asked(study)[9:])) == 19


def test_ranges_that_were_narrowed_are_kept_to() -> None:
    study = begun(ParetoSampler(known={1: cost}, seed=0))
    study.optimize(of_ranges, n_trials=8)

    def narrower(trial: optuna.Trial) -> tuple[float, float]:
        params = {name: trial.suggest_int(name, 0, 2) for name in RANGES}
        return float(params["a"] * params["b"]), cost(params)

    study.sampler = ParetoSampler(known={1: cost}, seed=0)
    study.optimize(narrower, n_trials=30)
    proposals = [t.system_attrs[MODEL]["params"] for t in study.trials[20:]]
    assert all(max(params.values()) <= 2 for params in proposals)
    assert {(t.params["a"], t.params["b"]) for t in study.trials[8:]} == set(product(range(3), repeat=2))


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("space", [RANGES, None], ids=["space", "no-space"])
def test_parameters_that_are_fixed_around_the_sampler_are_given_to_the_known_function(space: Any) -> None:
    study = begun(PartialFixedSampler({"b": 2}, ParetoSampler(known={1: cost}, space=space, seed=0)))
    study.optimize(of_ranges, n_trials=5)
    assert {trial.params["b"] for trial in study.trials} == {2}
    assert len(set(asked(study)[1:])) == 4
    study.sampler = PartialFixedSampler({"b": 3}, ParetoSampler(known={1: cost}, space=space, seed=0))
    study.optimize(of_ranges, n_trials=6)
    assert len({trial.params["a"] for trial in study.trials[5:]}) == 5


def test_parameters_that_are_enqueued_are_given_to_the_known_function() -> None:
    study = begun(ParetoSampler(known={1: cost}, seed=0, space=RANGES))
    for value in range(5):
        study.enqueue_trial({"b": value})
    study.optimize(of_ranges, n_trials=10)
    assert [trial.params["b"] for trial in study.trials[:5]] == list(range(5))


def test_a_parameter_that_was_dropped_is_still_given_to_the_known_function() -> None:
    study = begun(ParetoSampler(known={1: cost}, seed=0))
    study.optimize(of_ranges, n_trials=6)
    study.optimize(lambda t: (float(t.suggest_int("a", 0, 4)), float(t.params["a"])), n_trials=6)
    assert [set(trial.params) for trial in study.trials[6:]] == [{"a"}] * 6
    assert {trial.params["a"] for trial in study.trials[6:]} == set(range(5))


def test_a_known_function_that_needs_a_parameter_outside_the_space_names_it_and_the_cure() -> None:
    study = begun(ParetoSampler(known={1: cost}, space={"a": IntDistribution(0, 4)}))
    with pytest.raises(ConfigError, match=r"known function cost needs the parameter 'b'.*list it in space="):
        study.optimize(of_ranges, n_trials=3)


def test_a_key_error_of_the_functions_own_is_not_taken_for_a_missing_parameter() -> None:
    study = begun(ParetoSampler(known={1: lambda params: {}["a"]}, space=RANGES))
    with pytest.raises(KeyError):
        study.optimize(of_ranges, n_trials=3)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (
            {0: cost},
            r"known\[0\] is not what trials return as objective 0: .* in trial 0, where it gives .*trial 1",
        ),
        ({1: lambda p: 1000 * cost(p)}, r"known\[1\] is not what trials return as objective 1.*unit"),
        ({0: lambda p: 100 + p["a"], 1: cost}, r"known\[0\]"),
    ],
)
@pytest.mark.parametrize("space", [RANGES, None], ids=["space", "no-space"])
def test_a_known_function_of_another_objective_or_unit_is_an_error(
    known: dict[int, Any], message: str, space: Any
) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        params = {name: trial.suggest_int(name, 0, 4) for name in RANGES}
        return 90.0 + params["a"] * params["b"], cost(params)

    study = begun(ParetoSampler(known=known, space=space, seed=1))
    with pytest.raises(ConfigError, match=message):
        study.optimize(objective, n_trials=4)
    assert len(study.trials) == 2


def test_values_that_are_told_rounded_are_the_known_ones() -> None:
    study = begun(ParetoSampler(known={1: lambda p: cost(p) + 1 / 3}, space=RANGES, seed=0))
    study.optimize(lambda t: (of_ranges(t)[0], round(cost(t.params) + 1 / 3, 2)), n_trials=6)
    assert len(study.trials) == 6


def test_what_others_told_is_not_held_against_the_function() -> None:
    """Given points may be told what was measured, where the function predicts."""
    study = begun(ParetoSampler(known={1: cost}, space=RANGES, seed=0))
    for value in range(4):
        study.enqueue_trial({"a": value, "b": value})
    study.optimize(lambda t: (of_ranges(t)[0], 2.0 * cost(t.params) + 1.0), n_trials=4)
    study.optimize(of_ranges, n_trials=4)
    assert len(study.trials) == 8


def test_a_study_in_a_database_is_continued_where_it_was(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = begun(ParetoSampler(space=GATES, known={1: gate_cost}, seed=0), storage=url, study_name="s")
    study.optimize(gates, n_trials=6)
    again = optuna.load_study(
        study_name="s", storage=url, sampler=ParetoSampler(space=GATES, known={1: gate_cost}, seed=0)
    )
    again.optimize(gates, n_trials=6)
    whole = begun(ParetoSampler(space=GATES, known={1: gate_cost}, seed=0))
    whole.optimize(gates, n_trials=12)
    assert asked(again) == asked(whole)


def test_predictions_are_of_points_that_trials_can_ask_for() -> None:
    sampler = ParetoSampler(space=GATES, known={1: gate_cost}, seed=0)
    study = begun(sampler)
    study.optimize(gates, n_trials=20)
    point = {name: choices[0] for name, choices in GATES.items()}
    other = point | {"reduction0": 16, "temperature0": 2.0}  # kind0 is "none"
    means, _ = sampler.predict(study, [point, other])
    assert means[0].tolist() == means[1].tolist()


@st.composite
def programs(draw: st.DrawFn) -> tuple[list[int], dict[int, tuple[int, frozenset[int]]]]:
    """Numbers of choices, and for some parameters the earlier one and those of its choices that they need."""
    sizes = draw(st.lists(st.integers(2, 4), min_size=2, max_size=5))
    parents = {}
    for column in range(1, len(sizes)):
        if draw(st.booleans()):
            parent = draw(st.integers(0, column - 1))
            needed = draw(st.sets(st.integers(0, sizes[parent] - 1), min_size=1, max_size=sizes[parent] - 1))
            parents[column] = (parent, frozenset(needed))
    return sizes, parents


@settings(max_examples=60, deadline=None)
@given(programs(), st.integers(0, 2**31), st.integers(1, 200))
def test_conditions_tell_what_was_tried_and_after_every_point_everything(
    program: tuple[list[int], dict[int, tuple[int, frozenset[int]]]], seed: int, count: int
) -> None:
    sizes, parents = program
    every = np.stack(np.unravel_index(np.arange(np.prod(sizes)), sizes), axis=1)
    true = every.copy()
    for column, (parent, needed) in sorted(parents.items()):
        true[~np.isin(true[:, parent], list(needed)), column] = -1
    tried = np.random.default_rng(seed).integers(len(every), size=count)
    conditions = Conditions.learned(true[tried])
    assert (conditions.levels(every[tried]) == true[tried]).all()
    assert (Conditions.learned(true).levels(every) == true).all()


def test_a_parameter_that_depends_on_two_others_is_told_where_it_was_tried() -> None:
    """c is asked for if a == b: no single parameter decides."""
    every = np.array(list(product(range(2), repeat=3)))
    true = every.copy()
    true[every[:, 0] != every[:, 1], 2] = -1
    conditions = Conditions.learned(true)
    assert (conditions.levels(every) == true).all()


def test_the_choices_of_a_list_need_not_be_in_the_first_trial() -> None:
    """kind is none at first, so that the reduction is not asked for: no error, and found later."""
    space = {"kind": CategoricalDistribution(["none", "se"]), "reduction": CategoricalDistribution([4, 8])}
    study = begun(ParetoSampler(space=space, initial=[{"kind": "none", "reduction": 4}], seed=0))

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        kind = trial.suggest_categorical("kind", ["none", "se"])
        reduction = trial.suggest_categorical("reduction", [4, 8]) if kind == "se" else 0
        return float(reduction), float(reduction)

    study.optimize(objective, n_trials=3)
    assert len(set(asked(study))) == 3
