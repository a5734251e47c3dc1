"""`ParetoSampler` as a user of Optuna meets it."""

from __future__ import annotations

import copy
import datetime
import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from se_nas.errors import ConfigError, InfeasibleError
from se_nas.samplers import _observations
from se_nas.samplers._observations import History, read
from se_nas.samplers._proposer import Proposal, Proposer
from se_nas.samplers.pareto_sampler import MODEL, PARTIAL, ParetoSampler

CHOICES: dict[str, tuple[Any, ...]] = {"a": (0, 16, 4), "b": ("none", "se"), "c": (0, 16, 4), "d": (2, 4, 8)}
GAIN = {"a": {0: 0.0, 16: 1.0, 4: 1.5}, "b": {"none": 0.0, "se": 0.7}, "c": {0: 0.0, 16: 0.2, 4: 0.9}}
PRICE = {"a": {0: 0.0, 16: 1.0, 4: 4.0}, "b": {"none": 0.0, "se": 1.0}, "c": {0: 0.0, 16: 2.0, 4: 8.0}}


def cost(params: dict[str, Any]) -> float:
    return 10.0 + sum(PRICE[name][params[name]] for name in PRICE)


def accuracy(params: dict[str, Any]) -> float:
    return 70.0 + sum(GAIN[name][params[name]] for name in GAIN) - 0.1 * (params["d"] - 2)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    return {name: trial.suggest_categorical(name, values) for name, values in CHOICES.items()}


def run(
    sampler: optuna.samplers.BaseSampler,
    trials: int,
    read: Callable[[dict[str, Any]], float] = accuracy,
    study: optuna.Study | None = None,
    price: Callable[[dict[str, Any]], float] = cost,
) -> optuna.Study:
    study = study or optuna.create_study(directions=["maximize", "minimize"])
    study.sampler = sampler
    for _ in range(trials):
        trial = study.ask()
        params = suggest(trial)
        study.tell(trial, (read(params), price(params)))
    return study


def asked(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [tuple(trial.params[name] for name in CHOICES) for trial in study.trials]


def true_front() -> set[tuple[float, float]]:
    points = [dict(zip(CHOICES, values, strict=True)) for values in product(*CHOICES.values())]
    values = [(accuracy(p), cost(p)) for p in points]
    return {(a, c) for a, c in values if not any(x >= a and y <= c and (x, y) != (a, c) for x, y in values)}


def test_it_finds_the_whole_front_of_54_points_in_25_trials() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0), 25)
    found = {(accuracy(t.params), cost(t.params)) for t in study.trials}
    assert true_front() <= found


def test_a_seed_makes_the_study_reproducible_and_another_seed_does_not() -> None:
    first, second = (asked(run(ParetoSampler(known={1: cost}, seed=3), 12)) for _ in range(2))
    assert first == second
    assert first != asked(run(ParetoSampler(known={1: cost}, seed=4), 12))


def test_a_resumed_study_goes_on_as_if_it_had_never_stopped() -> None:
    whole = run(ParetoSampler(known={1: cost}, seed=5), 16)
    half = run(ParetoSampler(known={1: cost}, seed=5), 9)
    assert asked(run(ParetoSampler(known={1: cost}, seed=5), 7, study=half)) == asked(whole)


def test_no_params_are_asked_for_twice_until_all_54_are_used_up() -> None:
    noise = np.random.default_rng(0)
    study = run(ParetoSampler(known={1: cost}, seed=1), 57, read=lambda p: accuracy(p) + noise.normal(0, 0.5))
    assert len(set(asked(study)[:54])) == 54
    assert len(set(asked(study))) == 54


def test_params_with_equal_keys_are_one_point() -> None:
    sampler = ParetoSampler(known={1: cost}, seed=1, key=lambda p: (p["a"], p["b"], p["c"]))
    study = run(sampler, 18)
    assert len({row[:3] for row in asked(study)}) == 18


def test_the_known_function_is_called_once_a_point() -> None:
    calls: list[tuple[Any, ...]] = []

    def counted(params: dict[str, Any]) -> float:
        calls.append(tuple(params[name] for name in CHOICES))
        return cost(params)

    run(ParetoSampler(known={1: counted}, seed=1), 10)
    assert len(calls) == len(set(calls)) <= 54


def test_a_batch_method_is_used_instead_of_single_calls() -> None:
    class Cost:
        def __call__(self, params: dict[str, Any]) -> float:
            raise AssertionError("called for a single point")

        def batch(self, points: list[dict[str, Any]]) -> np.ndarray:
            return np.array([cost(p) for p in points])

    assert asked(run(ParetoSampler(known={1: Cost()}, seed=2), 10)) == asked(
        run(ParetoSampler(known={1: cost}, seed=2), 10)
    )


def test_points_in_progress_are_not_proposed_again_and_spread() -> None:
    sampler = ParetoSampler(known={1: cost}, seed=0)
    study = run(sampler, 10)
    pending = [study.ask() for _ in range(6)]
    params = [tuple(suggest(trial).items()) for trial in pending]
    assert len(set(params)) == 6


def proposal(study: optuna.Study, number: int) -> dict[str, Any]:
    """What another process proposes for a trial that was asked for and has not suggested yet."""
    trial_id = study.trials[number]._trial_id
    study._storage.set_trial_system_attr(trial_id, MODEL, {})
    sampler = ParetoSampler(known={1: cost}, seed=0, space=CHOICES)
    space = {name: CategoricalDistribution(values) for name, values in CHOICES.items()}
    sampler.sample_relative(study, study.trials[number], space)
    found: dict[str, Any] = study.trials[number].system_attrs[MODEL]["params"]
    return found


@pytest.mark.parametrize("readings", [0, 3, 10, 48])
def test_workers_that_ask_at_the_same_instant_get_different_points(readings: int) -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0, space=CHOICES), readings)
    before = set(asked(study))
    numbers = [study.ask().number for _ in range(4)]  # none has suggested yet
    proposals = [proposal(study, number) for number in numbers]
    assert len(before | {tuple(params[name] for name in CHOICES) for params in proposals}) == readings + 4


def test_what_ends_while_others_propose_changes_nothing_about_their_points() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0, space=CHOICES), 10)
    busy = study.ask()
    suggest(busy)
    first, second = study.ask(), study.ask()
    own = proposal(study, first.number)
    study.tell(busy, (99.0, cost(busy.params)))
    assert proposal(study, second.number) != own


def test_others_know_what_a_trial_gets_whatever_ends_and_begins_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0, space=CHOICES), 10)
    busy = study.ask()
    suggest(busy)
    found: list[tuple[int, list[int]]] = []
    propose = Proposer._propose

    def spy(proposer: Proposer, history: History, number: int) -> Proposal:
        proposal = propose(proposer, history, number)
        found.append((number, proposal.row.tolist()))
        return proposal

    monkeypatch.setattr(Proposer, "_propose", spy)

    def ask(number: int) -> None:
        """Another process proposes for a trial that has begun."""
        sampler = ParetoSampler(known={1: cost}, seed=0, space=CHOICES)
        trial = study.trials[number]
        sampler.sample_relative(study, trial, sampler.infer_relative_search_space(study, trial))

    for _ in range(2):
        study._storage.create_new_trial(study._study_id)
    ask(12)
    believed = found.copy()
    study.tell(busy, (99.0, cost(busy.params)))
    later = study.ask()
    suggest(later)
    study.tell(later, (0.0, cost(later.params)))
    found.clear()
    ask(11)
    assert [number for number, _ in believed] == [11, 12]
    assert found == believed[:1]


def test_what_had_ended_but_was_stored_late_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process ends a trial, and this one begins before that is stored."""
    study = run(ParetoSampler(known={1: cost}, seed=0, space=CHOICES), 10)
    busy = study.ask()
    suggest(busy)
    seen: list[int] = []
    propose = Proposer.propose

    def ended_meanwhile(proposer: Proposer, history: History, number: int, **options: Any) -> Proposal:
        seen.append(len(history.rows))
        if len(seen) == 1:
            study.tell(busy, (99.0, cost(busy.params)))
            stored = study.get_trials(deepcopy=False)[busy.number]
            stored.datetime_complete = study.trials[number].datetime_start
        return propose(proposer, history, number, **options)

    monkeypatch.setattr(Proposer, "propose", ended_meanwhile)
    suggest(study.ask())
    assert seen == [10, 11]
    suggest(study.ask())
    assert seen == [10, 11, 11]


def test_of_two_trials_that_begin_at_once_the_number_says_which_is_first() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0, space=CHOICES), 10)
    for _ in range(2):
        study._storage.create_new_trial(study._study_id)
    trials, sampler = study.trials, ParetoSampler(known={1: cost}, seed=0, space=CHOICES)
    proposer, signs = sampler._proposers.of(study, sampler.infer_relative_search_space(study, trials[-1]))
    first, second = trials[-2:]
    first.datetime_start, second.datetime_start = second.datetime_start, first.datetime_start
    second.params = trials[0].params
    others = read(trials, proposer.grid, signs, second.number, second.datetime_start)
    assert others.unseen == ((first.number, first.datetime_start),)
    own = read(trials, proposer.grid, signs, first.number, first.datetime_start)
    assert (len(own.rows), len(own.pending), own.unseen) == (10, 0, ())


def test_a_clock_that_was_set_back_hides_no_readings() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0, space=CHOICES), 12)
    sampler = ParetoSampler(known={1: cost}, seed=0, space=CHOICES)
    trials = study.trials
    proposer, signs = sampler._proposers.of(study, sampler.infer_relative_search_space(study, trials[-1]))
    began = trials[0].datetime_start
    assert began is not None

    def readings(as_of: datetime.datetime) -> int:
        return len(read(trials, proposer.grid, signs, 99, as_of).rows)

    assert readings(began) == 0
    assert readings(began - datetime.timedelta(days=1)) == 12
    for trial in trials:
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        trial.datetime_start += datetime.timedelta(hours=1)
        trial.datetime_complete += datetime.timedelta(hours=1)
    assert readings(datetime.datetime.now()) == 12


def test_workers_that_saw_other_readings_fit_alike() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0, space=CHOICES), 12)
    trials = study.trials
    sampler, fresh = (ParetoSampler(known={1: cost}, seed=0, space=CHOICES) for _ in range(2))
    proposer, signs = sampler._proposers.of(study, sampler.infer_relative_search_space(study, trials[-1]))
    # As many readings, but not the same.
    proposer.belief(read(trials[1:], proposer.grid, signs, 99))
    history = read(trials[:-1], proposer.grid, signs, 99)
    other, _ = fresh._proposers.of(study, fresh.infer_relative_search_space(study, trials[-1]))
    rows = proposer.grid.everything()
    assert proposer.belief(history).at(rows)[0].tolist() == other.belief(history).at(rows)[0].tolist()


def test_a_trial_that_never_suggested_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = asked(run(ParetoSampler(known={1: cost}, seed=0, space=CHOICES), 12))
    monkeypatch.setattr(_observations, "_PROPOSING", datetime.timedelta(0))
    study = optuna.create_study(directions=["maximize", "minimize"])
    for _ in range(5):
        study.ask()
    sampler = ParetoSampler(known={1: cost}, seed=0, space=CHOICES)
    run(sampler, 12, study=study)
    trials = read(study.trials, sampler._proposers.latest(study).grid, np.array([1.0, -1.0]), 99)
    assert trials.unseen == ()
    assert len(set(asked_of(study, 5))) == len(set(alone)) == 12


def test_params_that_are_given_are_completed_by_the_model_and_not_repeated() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0), 6)
    for _ in range(10):
        study.enqueue_trial({"a": 4})
        trial = study.ask()
        params = suggest(trial)
        study.tell(trial, (accuracy(params), cost(params)))
    given = asked_of(study, 6)
    assert {point[0] for point in given} == {4}
    assert len(set(given)) == 10
    assert {t.system_attrs[MODEL]["source"] for t in study.trials[6:]} == {"model"}


def test_readings_that_are_all_equal_spread_over_the_space() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0, repeats=True), 16, read=lambda params: 50.0)
    assert len(set(asked(study))) == 16
    assert {t.system_attrs[MODEL]["improvement"] for t in study.trials[3:]} == {0.0}


def test_a_point_that_was_stopped_early_is_not_read_again() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0), 3)
    uncertain = {"a": 4, "b": "se", "c": 0, "d": 2}
    study.enqueue_trial(uncertain)
    trial = study.ask()
    suggest(trial)
    trial.set_user_attr(PARTIAL, {"mean": [73.0, cost(uncertain)], "sd": [2.0, 0.0]})
    study.tell(trial, state=TrialState.PRUNED)
    run(ParetoSampler(known={1: cost}, seed=0, repeats=True), 25, study=study)
    assert asked(study).count(tuple(uncertain.values())) == 1


def test_a_duplicate_that_was_told_anothers_result_is_no_further_reading() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0, space=CHOICES), 5)
    grid = study.sampler._proposers.latest(study).grid
    before = read(study.trials, grid, np.array([1.0, -1.0]), 99)
    copied = study.trials[2]
    study.add_trial(
        create_trial(
            params=copied.params,
            distributions=copied.distributions,
            values=copied.values,
            user_attrs={"duplicate_of": "key"},
        )
    )
    after = read(study.trials, grid, np.array([1.0, -1.0]), 99)
    assert after.values.tolist() == before.values.tolist()


def test_one_sampler_keeps_studies_of_different_storages_apart() -> None:
    sampler = ParetoSampler(known={1: cost}, seed=0)
    first, second = (
        optuna.create_study(study_name="same", directions=["maximize", "minimize"], sampler=sampler)
        for _ in range(2)
    )
    run(sampler, 8, study=first)
    run(sampler, 8, read=lambda params: -accuracy(params), study=second)
    fresh = run(ParetoSampler(known={1: cost}, seed=0), 8, read=lambda params: -accuracy(params))
    assert asked(second) == asked(fresh)


def test_feasible_is_a_hard_limit() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0, feasible=lambda p: cost(p) <= 14), 15)
    assert all(cost(t.params) <= 14 for t in study.trials[1:])  # the first is drawn before the space is known


def test_no_feasible_point_at_all_is_explained() -> None:
    study = run(ParetoSampler(seed=0), 1)
    study.sampler = ParetoSampler(known={1: cost}, seed=0, feasible=lambda p: False)
    with pytest.raises(InfeasibleError, match="budget"):
        suggest(study.ask())


def test_failed_and_bare_pruned_trials_neither_count_as_readings_nor_come_back() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0), 8)
    for outcome in (TrialState.FAIL, TrialState.PRUNED):
        trial = study.ask()
        suggest(trial)
        study.tell(trial, state=outcome)
    run(study.sampler, 20, study=study)
    assert len(set(asked(study))) == 30


def test_all_trials_failing_still_gives_new_points() -> None:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=ParetoSampler(known={1: cost}, seed=0)
    )
    for _ in range(20):
        trial = study.ask()
        suggest(trial)
        study.tell(trial, state=TrialState.FAIL)
    assert len(set(asked(study))) >= 19  # the first is drawn before the space is known


def test_nan_accuracy_fails_the_trial_and_the_search_goes_on() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0), 6)
    trial = study.ask()
    suggest(trial)
    with pytest.warns(UserWarning, match="nan"):
        study.tell(trial, (float("nan"), 1.0))
    assert study.trials[-1].state == TrialState.FAIL
    run(study.sampler, 5, study=study)
    assert len(set(asked(study))) == 12


def test_a_stopped_trial_informs_through_its_extrapolation() -> None:
    def after(mean: float) -> float:
        study = run(ParetoSampler(known={1: cost}, seed=0), 12)
        params = {"a": 4, "b": "se", "c": 16, "d": 8}
        frozen = create_trial(
            state=TrialState.PRUNED,
            params=params,
            distributions={name: CategoricalDistribution(v) for name, v in CHOICES.items()},
            user_attrs={PARTIAL: {"mean": [mean, None], "sd": [0.05, None]}},
        )
        study.add_trial(frozen)
        trial = study.ask()
        suggest(trial)
        sampler = study.sampler
        assert isinstance(sampler, ParetoSampler)
        return sampler.predict(study, [params])[0][0][0]

    assert after(71.0) + 0.5 < after(74.0)


def test_constant_objectives_are_searched_without_warnings() -> None:
    sampler = ParetoSampler(known={1: lambda p: 5.0}, seed=0)
    study = run(sampler, 12, read=lambda p: 50.0, price=lambda p: 5.0)
    assert len(set(asked(study))) == 12


def test_a_space_of_one_architecture() -> None:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=ParetoSampler(known={1: lambda p: 1.0}, seed=0)
    )
    for _ in range(6):
        trial = study.ask()
        study.tell(trial, (trial.suggest_categorical("only", [3]) * 1.0, 1.0))
    assert [t.params for t in study.trials] == [{"only": 3}] * 6


def test_a_study_begun_by_another_sampler_is_continued() -> None:
    study = run(optuna.samplers.TPESampler(seed=0), 15)
    run(ParetoSampler(known={1: cost}, seed=0), 10, study=study)
    sources = [t.system_attrs[MODEL]["source"] for t in study.trials[15:]]
    assert set(sources) <= {"model", "spread"}
    assert not set(asked(study)[15:]) & set(asked(study)[:15])


def test_trials_from_an_earlier_version_with_other_choices_are_left_out() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    sampler = ParetoSampler(known={1: cost}, seed=0, space=CHOICES)
    old = {"a": CategoricalDistribution((0, 99)), "zzz": CategoricalDistribution((1, 2))}
    study.add_trial(create_trial(values=[50.0, 1.0], params={"a": 99, "zzz": 1}, distributions=old))
    run(sampler, 8, study=study)
    assert len(set(asked_of(study, 1))) == 8


def asked_of(study: optuna.Study, start: int) -> list[tuple[Any, ...]]:
    return [tuple(trial.params[name] for name in CHOICES) for trial in study.trials[start:]]


def test_listed_points_come_first_in_order() -> None:
    listed = [{"a": 0, "b": "none", "c": 0, "d": 2}, {"a": 16, "b": "se", "c": 16, "d": 2}]
    study = run(ParetoSampler(known={1: cost}, seed=0, initial=listed), 3)
    assert [t.params for t in study.trials[:2]] == listed


def test_enqueued_points_come_first_and_count_as_asked() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    first = {"a": 0, "b": "none", "c": 0, "d": 2}
    study.enqueue_trial(first)
    run(ParetoSampler(known={1: cost}, seed=0), 30, study=study)
    assert study.trials[0].params == first
    assert len(set(asked(study))) == 30


def test_fewer_trials_than_the_initial_design() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0, initial=10), 3)
    assert {t.system_attrs.get(MODEL, {}).get("source", "initial") for t in study.trials} == {"initial"}


def test_integers_and_stepped_floats_are_a_grid() -> None:
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        sampler=ParetoSampler(known={1: lambda p: p["i"] + p["f"]}, seed=0),
    )
    for _ in range(12):
        trial = study.ask()
        i, f = trial.suggest_int("i", 2, 8, step=2), trial.suggest_float("f", 0.1, 0.5, step=0.1)
        study.tell(trial, (i * f, i + f))
    assert len({(t.params["i"], round(t.params["f"], 6)) for t in study.trials}) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"known": {-1: cost}}, "known has the key -1"),
        ({"known": {1: 3.0}}, r"known\[1\] is 3.0"),
        ({"seed": -1}, "seed is -1"),
        ({"initial": 0}, "initial is 0"),
        ({"key": "a"}, "key is 'a'"),
        ({"space": {"a": []}}, "without a choice"),
        ({"space": {"a": "xyz"}}, "'a': 'xyz'; it must be a list"),
        ({"space": ["a"]}, r"space is \['a'\]"),
        ({"known": [cost]}, "known is .* must be a mapping"),
        ({"initial": [1, 2]}, r"initial is \[1, 2\]"),
    ],
)
def test_invalid_options_name_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ParetoSampler(**options)


def test_a_known_objective_that_the_study_lacks_shows_before_anything_runs() -> None:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=ParetoSampler(known={2: cost}, seed=0)
    )
    with pytest.raises(ConfigError, match="objectives 0 to 1"):
        suggest(study.ask())


class Short:
    """A function whose ``batch`` loses a point."""

    def __call__(self, params: dict[str, Any]) -> float:
        raise AssertionError("batch is there")

    def batch(self, points: list[dict[str, Any]]) -> list[float]:
        return [1.0] * (len(points) - 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"known": {1: lambda p: float("nan")}}, "the known function <lambda> returned nan"),
        ({"known": {1: lambda p: 10**400}}, "finite number"),
        ({"prior": lambda p: float("nan")}, "the prior function <lambda> returned nan"),
        ({"key": lambda p: [p["a"]]}, "must be hashable"),
        *(({name: Short()}, "Short.batch returned") for name in ("key", "feasible", "prior")),
    ],
)
def test_a_function_that_returns_something_else_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(ParetoSampler(seed=0, space=CHOICES, **options), 2)


@pytest.mark.parametrize("partial", [{"mean": None, "sd": [0.1, None]}, {"mean": ["a", None], "sd": [0, 0]}])
def test_a_partial_reading_that_is_none_is_explained(partial: dict[str, Any]) -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0), 3)
    trial = study.ask()
    suggest(trial)
    trial.set_user_attr(PARTIAL, partial)
    study.tell(trial, state=TrialState.PRUNED)
    with pytest.raises(ConfigError, match=r"trial 3 has 'se_nas:partial'.*2 numbers or nulls"):
        run(study.sampler, 1, study=study)


@pytest.mark.parametrize(
    ("directions", "known"),
    [
        (["maximize"], ()),
        (["maximize", "minimize"], ()),
        (["maximize", "minimize"], (0, 1)),
        (["maximize", "minimize", "minimize"], (1, 2)),
        (["maximize", "minimize", "maximize"], (1,)),
    ],
)
def test_any_objectives_may_be_known_or_modelled(directions: list[str], known: tuple[int, ...]) -> None:
    functions = [accuracy, cost, lambda p: float(p["d"])]
    sampler = ParetoSampler(known={k: functions[k] for k in known}, seed=0)
    study = optuna.create_study(directions=directions, sampler=sampler)
    for _ in range(14):
        trial = study.ask()
        params = suggest(trial)
        study.tell(trial, [f(params) for f in functions[: len(directions)]])
    assert len(set(asked(study))) == 14
    best = max(accuracy(t.params) for t in study.trials)
    assert best > 72.5  # of 73.1; what 14 random points reach in one of four cases


def test_points_that_broke_a_constraint_inform_but_are_on_no_front() -> None:
    study = run(ParetoSampler(known={1: cost}, seed=0), 3)
    for _ in range(8):
        trial = study.ask()
        params = suggest(trial)
        trial.set_constraint("budget", 1.0)
        study.tell(trial, (accuracy(params), cost(params)))
    assert len(set(asked(study))) == 11
    barred = optuna.create_study(directions=["maximize", "minimize"], sampler=ParetoSampler(known={1: cost}))
    for _ in range(5):
        trial = barred.ask()
        params = suggest(trial)
        trial.set_constraint("budget", 1.0)
        barred.tell(trial, (accuracy(params), cost(params)))
    assert len(barred.trials) == 5


def test_a_space_too_large_to_enumerate_is_searched_locally() -> None:
    names = [f"p{i:02d}" for i in range(70)]  # 2^70 points: more than an int64 can number

    def price(params: dict[str, Any]) -> float:
        return float(sum((i % 7 + 1) * params[name] for i, name in enumerate(names)))

    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=ParetoSampler(known={1: price}, seed=0)
    )
    for _ in range(7):
        trial = study.ask()
        params = {name: trial.suggest_categorical(name, (0, 1)) for name in names}
        gain = sum((1.0 if i % 3 == 0 else 0.1) * params[name] for i, name in enumerate(names))
        study.tell(trial, (gain, price(params)))
    rows = [tuple(t.params[n] for n in names) for t in study.trials]
    assert len(set(rows)) == 7
    costs = [price(t.params) for t in study.trials]
    assert (min(costs), max(costs)) == (0.0, 280.0)


def test_the_sampler_can_be_copied_and_sent_to_another_process() -> None:
    sampler = ParetoSampler(known={1: cost}, seed=0)
    expected = asked(run(ParetoSampler(known={1: cost}, seed=0), 8))
    assert asked(run(copy.deepcopy(sampler), 8)) == expected
    assert asked(run(pickle.loads(pickle.dumps(sampler)), 8)) == expected


def test_repeats_reads_a_noisy_point_again_where_that_is_what_matters() -> None:
    noise = np.random.default_rng(3)
    study = run(
        ParetoSampler(known={1: cost}, seed=1, repeats=True),
        50,
        read=lambda p: accuracy(p) + noise.normal(0, 0.8),
    )
    rows = asked(study)
    assert len(set(rows)) < len(rows)
    assert "repeat" in {t.system_attrs.get(MODEL, {}).get("source") for t in study.trials}
