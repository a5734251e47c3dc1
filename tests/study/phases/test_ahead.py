"""A pack's suggestions, made in a thread while the fake executor trains: limits, ends, kills, and what they leave."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fake_executor import FakeExecutor
from least_manifest import empty_run
from small_cases import SEARCH as SMALL

from se_nas.errors import RunError
from se_nas.study.clock import Clock
from se_nas.study.config import SearchConfig
from se_nas.study.phases.search import Search
from se_nas.study.phases.trainings import Trainings
from se_nas.study.plan import resolve
from se_nas.study.progress import Progress
from se_nas.study.stopping import Stopping
from se_nas.study.storage import StudyStore
from se_nas.study.suggestions import Suggestions


class Watched(Suggestions):
    """Suggestions that know which threads made them, and that a test can hold up."""

    def __init__(self, plan, store):
        super().__init__(plan, store)
        self.threads, self.gate = [], threading.Event()
        self.gate.set()

    def next(self):
        self.threads.append(threading.current_thread().name)
        assert self.gate.wait(30)
        return super().next()


class Patient(FakeExecutor):
    """Does nothing for a moment while a place is free and its candidate is being suggested."""

    def wait(self, listener):
        if self.suggesting():
            time.sleep(0.001)
        else:
            super().wait(listener)


class Pack:
    """A search of test_resnet in a pack of two places."""

    def __init__(self, plan, store, play=lambda task: [50.0, 60.0 + task.number], capacity=2):
        self.plan = replace(plan, packing=replace(plan.packing, packed=True, places=capacity))
        self.store, self.executor = store, Patient(play, capacity)
        self.executor.suggesting = lambda: (
            len(self.executor.tasks) < capacity and not self.search._ahead.ready
        )
        stopping = Stopping("off", 2, plan.config.objectives, store, plan.config.seed)
        self.interrupts, clock = SimpleNamespace(requested=False), Clock(None)
        self.trainings = Trainings(
            self.plan, store, self.executor, stopping, Progress(), clock, lambda: self.interrupts.requested
        )
        self.suggestions = Watched(self.plan, store)
        self.search = Search(
            self.plan, store, self.suggestions, self.trainings, clock, self.interrupts, Progress()
        )

    @property
    def ahead(self):
        return [name for name in self.suggestions.threads if name.startswith("suggestion")]


@pytest.fixture(scope="module")
def resolved(tmp_path_factory):
    """The plan of a search, and that of one in which parameters are limited."""
    folder = tmp_path_factory.mktemp("plans")
    (folder / "space.yaml").write_text("granularity: stage\nreduction: [16]\n")
    given = {**SMALL, "objectives": "accuracy,params", "epochs": 2, "runs": str(folder)}
    given["space"] = str(folder / "space.yaml")
    return {limit: resolve(SearchConfig(**given, max_params=limit)) for limit in (None, "1.01x")}


@pytest.fixture
def plans(resolved):
    """Makes plans; keywords change the configuration."""

    def make(limit=None, **changes):
        plan = resolved[limit]
        return replace(plan, config=plan.config.model_copy(update=changes))

    return make


@pytest.fixture
def folder(tmp_path):
    return empty_run(tmp_path / "run")


@pytest.fixture
def store(folder):
    store = StudyStore.create(folder, ("accuracy", "params"))
    yield store
    store.close()


def stored(folder):
    """The trials that another process would read."""
    with_same_file = StudyStore.open(folder)
    trials = list(with_same_file.trials())
    with_same_file.close()
    return trials


def test_suggestions_are_made_in_a_thread_and_all_are_evaluated_once(plans, folder, store):
    pack = Pack(plans(trials=9), store)
    assert pack.search.run() == "all 9 candidates have been evaluated"
    assert pack.executor.most == 2
    rows = store.rows()
    assert [row["state"] for row in rows] == ["complete"] * 9
    assert len({(row["key"], row["seed"]) for row in rows}) == 9
    # The first is made before anything trains; after the ninth has begun, none is needed.
    assert len(pack.suggestions.threads) == 9
    assert len(pack.ahead) == 8


def test_one_at_a_time_suggests_from_all_results(plans, store):
    pack = Pack(plans(trials=5), store, capacity=1)
    pack.search.run()
    assert not pack.ahead


def test_the_others_train_on_while_a_suggestion_is_made(plans, store):
    """A place becomes free while the sampler is still at work: the other candidate trains to its end meanwhile."""
    pack = Pack(plans(trials=6), store)
    pack.executor.suggesting = lambda: False
    seen = []

    def play(task):
        if task.number == 0:
            pack.suggestions.gate.clear()
        elif not pack.suggestions.gate.is_set() and len(pack.executor.in_flight) == 0 and len(seen) < 4:
            # Alone: its neighbour has ended, and the next suggestion is held up.
            seen.append(task.number)
            if len(seen) == 4:
                pack.suggestions.gate.set()
        return [50.0] * (2 if task.number == 0 else 6)

    pack.executor.play = play
    assert pack.search.run() == "all 6 candidates have been evaluated"
    assert seen == [1, 1, 1, 1]


def test_what_was_made_ahead_and_not_begun_leaves_no_trace(plans, folder, store):
    pack = Pack(plans(), store)

    def play(task):
        if task.number == 6:
            pack.interrupts.requested = True
        return [50.0, 60.0 + task.number]

    pack.executor.play = play
    assert pack.search.run() == "stopped by the user"
    assert len(pack.suggestions.threads) == len(store.rows()) + 1
    assert store.num_trials == len(stored(folder)) == len(store.rows())
    # The next trial, a finalist's, has the next number, and the file has no gap.
    architecture = pack.plan.baselines["plain"]
    number = store.begin(None, {}, architecture)
    store.describe(
        number, key=architecture.key, widths=list(architecture.widths), state="running", phase="final", seed=5
    )
    assert [trial.number for trial in stored(folder)] == list(range(number + 1))


def test_a_kill_leaves_what_was_begun(plans, folder, store):
    pack = Pack(plans(), store)
    found = []

    def play(task):
        if task.number == 5:
            assert pack.search._ahead._made is not None
            pack.search._ahead._made.result()
            # What a process that is killed now leaves.
            found.append((store.num_trials, [trial.number for trial in stored(folder)]))
            pack.interrupts.requested = True
        return [50.0, 60.0 + task.number]

    pack.executor.play = play
    pack.search.run()
    in_memory, in_file = found[0]
    assert in_memory == len(in_file) + 1
    assert in_file == list(range(len(in_file)))


def test_a_baseline_that_was_made_ahead_and_not_begun_is_queued_again(plans, folder, store):
    plan = plans()
    for name, architecture in plan.baselines.items():
        store.enqueue(plan.space.params(architecture), architecture, baseline=name)
    pack = Pack(plan, store)
    pack.executor.play = lambda task: setattr(pack.interrupts, "requested", True) or [50.0, 60.0]
    pack.search.run()
    begun = [row["baseline"] for row in store.rows()]
    pack = Pack(plan, store)
    pack.executor.play = lambda task: [50.0, 60.0]
    pack.search._plan = replace(pack.plan, config=plan.config.model_copy(update={"trials": 5}))
    pack.search.run()
    baselines = [row["baseline"] for row in store.rows()[: len(plan.baselines)]]
    assert baselines[: len(begun)] == begun
    assert baselines == list(plan.baselines)


@pytest.mark.parametrize("sampler", ["pareto", "random"])
def test_a_space_is_exhausted_without_a_duplicate_and_within_limits(plans, store, sampler):
    plan = plans("1.01x", sampler=sampler)
    pack = Pack(plan, store)
    reason = pack.search.run()
    assert reason.startswith("every architecture of the space that the limits allow has been evaluated")
    rows = store.rows()
    fresh = [row["key"] for row in rows if row["seed"] == plan.config.seed]
    allowed = {arch.key for arch in plan.space.enumerate() if plan.constraints.allow(arch)}
    assert len(fresh) == len(set(fresh))
    assert set(fresh) == allowed
    assert 1 < len(allowed) < plan.space.size
    assert pack.ahead


def test_a_settled_search_is_judged_by_what_has_begun(plans, store):
    pack = Pack(plans(trials=40, stop_when_settled=True), store, play=lambda task: [50.0, 60.0])
    reason = pack.search.run()
    assert reason.startswith("the search has settled")
    assert len(store.last_suggestions(100)) <= len(store.rows())


def test_an_error_of_the_sampler_ends_the_search_as_it_does_without_a_thread(plans, folder, store):
    pack = Pack(plans(trials=9), store)
    ask = store.ask

    def refuse():
        if store.num_trials == 4:
            ask()
            raise RunError("the disk is full")
        return ask()

    store.ask = refuse
    with pytest.raises(RunError, match="the disk is full"):
        pack.search.run()
    assert store.num_trials == len(stored(folder))


def test_limits_that_are_measured_keep_suggestions_off_the_device(plans, monkeypatch):
    plan = plans("1.01x")
    plan = replace(plan, packing=replace(plan.packing, packed=True, places=2))
    assert plan.suggests_ahead
    monkeypatch.setattr(type(plan.axes["params"]), "by_widths", lambda self: None)
    assert not plan.suggests_ahead
