"""Costs of finalists that were predicted in the search are measured while nothing trains, also after a resume."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fake_executor import FakeExecutor
from least_manifest import empty_run
from small_cases import SEARCH as SMALL

from se_nas.errors import InfeasibleError
from se_nas.objectives import LATENCY
from se_nas.study.clock import Clock
from se_nas.study.config import SearchConfig
from se_nas.study.phases.finals import Finals, train_finalists
from se_nas.study.phases.search import Search
from se_nas.study.phases.trainings import Trainings
from se_nas.study.plan import resolve
from se_nas.study.progress import Progress
from se_nas.study.stopping import Stopping
from se_nas.study.storage import StudyStore
from se_nas.study.suggestions import Suggestions


class Latency:
    """Predicts 1 ms for each gate; measures twice as much, and keeps what trained meanwhile."""

    objective = LATENCY

    def __init__(self):
        self.known, self.measured, self.meanwhile, self.fails = {}, [], [], ()
        self.quiet = nullcontext

    def by_widths(self):
        return {"standard": lambda widths: (widths != 0).sum(1).astype(float)}

    def fields(self, architecture, *, measure=False):
        known = self.known.get(architecture.key)
        if known is None or (measure and known["latency_source"] != "measured"):
            if measure:
                self.measured.append(architecture.key)
                self.meanwhile.append(list(self.executor.tasks))
                if architecture.key in self.fails:
                    raise InfeasibleError("it does not fit")
            gates = float(architecture.num_gated)
            known = {
                "latency_ms": 2 * gates if measure else gates,
                "latency_source": "measured" if measure else "predicted",
            }
            self.known[architecture.key] = known
        return known

    def remember(self, row):
        if row.get("latency_ms") is not None:
            self.known[row["key"]] = {name: row[name] for name in ("latency_ms", "latency_source")}


class Run:
    """A search of six candidates in two places, and what a process needs to go on with it."""

    def __init__(self, plan, store):
        self.store, self.latency, self.said = store, Latency(), []
        self.plan = replace(plan, axes={**plan.axes, "latency": self.latency})
        self.stop = False
        self.executor = FakeExecutor(lambda task: [50.0, 60.0 + task.architecture.num_gated])
        self.latency.executor = self.executor
        for row in store.rows():
            self.latency.remember(row)
        self.interrupts, self.clock = SimpleNamespace(requested=False), Clock(None)
        progress = Progress()
        progress.message = self.said.append
        stopping = Stopping("off", 2, plan.config.objectives, store, plan.config.seed)
        self.trainings = Trainings(
            self.plan, store, self.executor, stopping, progress, self.clock, lambda: self.stop
        )
        suggestions = Suggestions(self.plan, store)
        self.progress = progress
        self.search = Search(
            self.plan, store, suggestions, self.trainings, self.clock, self.interrupts, progress
        )

    def finals(self):
        finals = Finals(self.store.rows(), self.plan)
        train_finalists(
            finals, self.plan, self.store, self.trainings, self.clock, self.interrupts, self.progress
        )
        return [architecture.key for architecture in finals.architectures]

    def rows(self, phase):
        return [row for row in self.store.rows() if row["phase"] == phase]


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    given = {**SMALL, "objectives": "accuracy,latency", "epochs": 2, "trials": 6, "final_seeds": 2}
    plan = resolve(
        SearchConfig(**{**given, "objectives": "accuracy,params"}, runs=str(tmp_path_factory.mktemp("runs")))
    )
    return replace(plan, config=SearchConfig(**given))


@pytest.fixture
def store(tmp_path):
    store = StudyStore.create(empty_run(tmp_path / "run"), ("accuracy", "latency"))
    yield store
    store.close()


def test_each_finalist_is_measured_once_while_nothing_trains(plan, store):
    run = Run(plan, store)
    run.search.run()
    assert run.latency.measured == []
    keys = run.finals()
    assert run.latency.measured == keys
    assert not any(run.latency.meanwhile)
    assert {row["latency_source"] for row in run.rows("search")} == {"predicted"}
    finals = run.rows("final")
    assert len(finals) >= 2 * len(keys)
    assert {row["latency_source"] for row in finals} == {"measured"}
    for row in finals:
        assert row["latency_ms"] == 2 * sum(width != 0 for width in row["widths"])
        assert store.trials()[row["number"]].values[1] == row["latency_ms"]
    assert f"measuring latency of {len(keys)} finalists" in run.said


def test_a_run_that_ends_while_finalists_are_measured_goes_on_with_the_others(plan, store):
    run = Run(plan, store)
    run.search.run()
    fields = run.latency.fields

    def fields_until_stopped(architecture, *, measure=False):
        run.stop |= measure and len(run.latency.measured) == 1
        return fields(architecture, measure=measure)

    run.latency.fields = fields_until_stopped
    keys = run.finals()
    assert run.latency.measured == keys[:2]
    assert run.rows("final") == []
    after = Run(plan, store)
    assert after.finals() == keys
    assert after.latency.measured == keys
    assert not any(after.latency.meanwhile)
    # A third process finds everything in the rows.
    third = Run(plan, store)
    third.finals()
    assert third.latency.measured == []


def test_a_finalist_that_cannot_be_measured_ends_alone(plan, store):
    run = Run(plan, store)
    run.search.run()
    keys = [architecture.key for architecture in Finals(store.rows(), run.plan).architectures]
    run.latency.fails = (keys[1],)
    run.finals()
    states = {row["key"]: row["state"] for row in run.rows("final")}
    assert states.pop(keys[1]) == "infeasible"
    assert set(states.values()) == {"complete"}
