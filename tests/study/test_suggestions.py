from types import SimpleNamespace

import numpy as np
import pytest
from least_manifest import empty_run
from optuna.trial import TrialState
from small_cases import SITES

from se_nas.architecture import Architecture
from se_nas.space import SearchSpace
from se_nas.study.attributes import ROW
from se_nas.study.config import SearchConfig
from se_nas.study.storage import StudyStore
from se_nas.study.suggestions import Suggestions

GP = pytest.param("gp", marks=pytest.mark.slow)


class Constraints:
    measured = False

    def __init__(self, most=10**9):
        self.most = most

    def allow(self, architecture):
        return self.excess(architecture)["widths"] <= 0

    def excess(self, architecture):
        return {"widths": sum(architecture.widths) / self.most - 1}

    def feasible(self):
        return None


def plan_of(sampler="random", constraints=None, reduction=(2, 4, 8, 16)):
    space = SearchSpace.from_sites(
        {"granularity": "stage", "reduction": list(reduction)}, SITES, backbone="net"
    )

    def by_widths():
        return {"standard": lambda widths: widths.sum(1).astype(float)}

    plain = Architecture(backbone="net", position="standard", sites=tuple(SITES), widths=(0, 0))
    return SimpleNamespace(
        config=SearchConfig(backbone="net", sampler=sampler, seed=1, objectives="accuracy,params"),
        space=space,
        plain=plain,
        constraints=constraints or Constraints(),
        earlier=(),
        axes={"params": SimpleNamespace(by_widths=by_widths)},
    )


def proposals_of(tmp_path, plan):
    store = StudyStore.create(empty_run(tmp_path / "run"), ("accuracy", "params"))
    return Suggestions(plan, store), store


def evaluate(store, trial, architecture):
    store.describe(trial.number, key=architecture.key, phase="search", state="complete")
    store.finish(trial.number, [float(trial.number), float(sum(architecture.widths))])


@pytest.mark.parametrize("shared", [False, True])
def test_workers_of_a_shared_study_do_not_draw_the_same(tmp_path, monkeypatch, shared):
    monkeypatch.setattr(StudyStore, "shared", shared)
    drawn = []
    for worker in ("one", "other"):
        proposals, _ = proposals_of(tmp_path / worker, plan_of("random"))
        drawn.append([proposals.next()[1].key for _ in range(8)])
    assert (drawn[0] != drawn[1]) == shared


# Widths 32, 16 and 8 (γ = 8 and 16 are one) or none in each of two stages: 16 architectures.
@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "nsga3", GP, "qmc", "grid", "pareto"])
def test_every_architecture_once_and_then_the_end(tmp_path, sampler):
    plan = plan_of(sampler)
    proposals, store = proposals_of(tmp_path, plan)
    keys = []
    while (found := proposals.next()) is not None:
        if not store.is_repeat(found[0].number):
            keys.append(found[1].key)
        evaluate(store, *found)
        assert len(keys) <= 16
    assert len(keys) == len(set(keys)) == plan.space.size == 16


@pytest.mark.parametrize("sampler", ["grid", "qmc"])
def test_a_sequence_goes_on_where_it_stopped(tmp_path, sampler):
    plan = plan_of(sampler)
    whole, store = proposals_of(tmp_path / "whole", plan)
    parts, halved = proposals_of(tmp_path / "parts", plan)
    for _ in range(4):
        evaluate(store, *whole.next())
        evaluate(halved, *parts.next())
    parts = Suggestions(plan, halved)
    for _ in range(4):
        evaluate(store, *whole.next())
        evaluate(halved, *parts.next())
    assert [t.params for t in halved.study.trials] == [t.params for t in store.study.trials]


def test_duplicates_are_told_their_values_again(tmp_path):
    plan = plan_of("grid")
    proposals, store = proposals_of(tmp_path, plan)
    while (found := proposals.next()) is not None:
        evaluate(store, *found)
    values = {}
    for trial in store.study.trials:
        if ROW in trial.user_attrs:
            values[trial.user_attrs[ROW]["key"]] = trial.values
    duplicates = [trial for trial in store.study.trials if "duplicate_of" in trial.user_attrs]
    assert duplicates
    for trial in duplicates:
        assert trial.values == values[trial.user_attrs["duplicate_of"]]
    assert len(store.rows()) == 16


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", GP, "pareto"])
def test_limits_are_never_exceeded_and_no_false_value_is_told(tmp_path, sampler):
    plan = plan_of(sampler, Constraints(most=24))
    proposals, store = proposals_of(tmp_path, plan)
    widths = []
    while (found := proposals.next()) is not None:
        if not store.is_repeat(found[0].number):
            widths.append(found[1].widths)
        evaluate(store, *found)
    # All pairs of {0, 8, 16, 32} with a sum of at most 24.
    assert sorted(widths) == [(0, 0), (0, 8), (0, 16), (8, 0), (8, 8), (8, 16), (16, 0), (16, 8)]
    over = [trial for trial in store.study.trials if trial.user_attrs.get("over_limit")]
    assert all(trial.state == TrialState.PRUNED and trial.values is None for trial in over)
    assert all(trial.constraints["widths"] > 0 for trial in over)
    others = [trial for trial in store.study.trials if trial.state == TrialState.COMPLETE]
    assert others
    assert all(trial.constraints["widths"] <= 0 for trial in others)


def test_queued_architectures_come_first_also_those_outside_the_space(tmp_path):
    plan = plan_of("random")
    proposals, store = proposals_of(tmp_path, plan)
    inside = plan.space.sample(np.random.default_rng(0))
    outside = Architecture(backbone="net", position="standard", sites=tuple(SITES), widths=(24, 24))
    assert plan.space.params(outside) is None
    store.enqueue(plan.space.params(inside), inside, baseline="plain")
    store.enqueue(plan.space.params(outside), outside, baseline="all_se_16")
    trial, architecture = proposals.next()
    assert architecture == inside
    assert trial.user_attrs["baseline"] == "plain"
    evaluate(store, trial, architecture)
    trial, architecture = proposals.next()
    assert architecture == outside
    evaluate(store, trial, architecture)
    assert proposals.next()[1] not in (inside, outside)


@pytest.mark.parametrize("sampler", ["random", "pareto"])
def test_same_seed_same_proposals(tmp_path, sampler):
    def run(folder):
        proposals, store = proposals_of(tmp_path / folder, plan_of(sampler))
        keys = []
        for _ in range(6):
            found = proposals.next()
            evaluate(store, *found)
            keys.append(found[1].key)
        return keys

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert run("a") == run("b")
