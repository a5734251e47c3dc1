"""The loop of a search with a fake executor: what is trained when, and what comes of a death, a stop, an interrupt."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from fake_executor import DIES, FakeExecutor
from least_manifest import empty_run
from small_cases import SEARCH as SMALL

from se_nas.study.clock import Clock
from se_nas.study.config import SearchConfig
from se_nas.study.phases import trainings as trainings_module
from se_nas.study.phases.search import Search
from se_nas.study.phases.trainings import Trainings
from se_nas.study.plan import resolve
from se_nas.study.progress import Progress
from se_nas.study.stopping import Stopping
from se_nas.study.storage import StudyStore
from se_nas.study.suggestions import Suggestions


class Told(Progress):
    """Keeps what it is told of the outlook."""

    def __init__(self):
        self.outlooks = []

    def outlook(self, done, planned, seconds):
        self.outlooks.append((done, planned, seconds))


class Loop:
    """A search of test_resnet, whose trainings are played."""

    def __init__(self, path, play, capacity=2, clock=None, **changes):
        given = {"objectives": "accuracy,params", "sampler": "random", "epochs": 2, "runs": str(path.parent)}
        config = SearchConfig(**{**SMALL, **given, **changes})
        self.plan = resolve(config)
        folder = empty_run(path)
        self.store = StudyStore.create(folder, config.objectives)
        self.stopping = Stopping(config.early_stopping, 2, config.objectives, self.store, config.seed)
        self.interrupts = SimpleNamespace(requested=False)
        self.executor, self.clock = FakeExecutor(play, capacity, clock), clock
        self._go_on(config)

    def _go_on(self, config):
        budget = None if self.clock is None else config.budget_seconds
        clock, self.progress = Clock(budget, monotonic=lambda: getattr(self.clock, "now", 0.0)), Told()
        self.trainings = Trainings(
            self.plan,
            self.store,
            self.executor,
            self.stopping,
            self.progress,
            clock,
            lambda: self.interrupts.requested,
        )
        suggestions = Suggestions(self.plan, self.store)
        self.search = Search(
            self.plan, self.store, suggestions, self.trainings, clock, self.interrupts, self.progress
        )

    def states(self):
        return [row["state"] for row in self.store.rows()]


@pytest.fixture
def loop(tmp_path):
    return lambda play, **changes: Loop(tmp_path / "run", play, **changes)


def test_two_in_flight_one_dies_and_the_rest_is_evaluated(loop):
    found = loop(lambda task: [50.0, DIES] if task.number == 1 else [50.0, 60.0 + task.number], trials=5)
    assert found.search.run() == "all 5 candidates have been evaluated"
    assert found.executor.most == 2
    assert found.states() == ["complete", "failed", "complete", "complete", "complete"]
    rows = found.store.rows()
    assert [row["accuracy"] for row in rows] == [60.0, None, 62.0, 63.0, 64.0]
    assert rows[1]["error"] == "it died"
    assert all(row["num_params"] > 0 for row in rows)
    # What the sampler is given: values for what was evaluated, a failure for what died.
    assert [trial.state.name for trial in found.store.study.trials] == ["COMPLETE", "FAIL", *["COMPLETE"] * 3]


def test_a_hopeless_candidate_is_stopped_early_and_gives_its_place_to_the_next(loop):
    def play(task):
        return [5.0, 10.0] if task.number >= 10 else [50.0 + task.number / 10, 60.0 + task.number / 10]

    found = loop(play, trials=18, early_stopping="curves")
    found.search.run()
    stopped = [row for row in found.store.rows() if row["state"] == "stopped"]
    assert stopped
    assert all(row["number"] >= 10 and len(row["curve"]) == 1 for row in stopped)
    assert {found.store.study.trials[row["number"]].state.name for row in stopped} == {"PRUNED"}
    assert found.states().count("complete") == 18 - len(stopped)


def test_an_interrupt_ends_what_is_in_flight_as_unfinished_and_a_resume_takes_it_up(loop):
    found = loop(lambda task: [50.0, 60.0], trials=6)

    def play(task):
        found.interrupts.requested |= task.number == 3
        return [50.0, 60.0]

    found.executor.play = play
    assert found.search.run() == "stopped by the user"
    assert found.executor.tasks == []
    assert set(found.states()[-2:]) == {"unfinished"} or found.states()[-1] == "unfinished"
    before = found.store.rows()
    unfinished = [row["number"] for row in before if row["state"] == "unfinished"]
    assert unfinished

    found.interrupts.requested = False
    found.executor.play = lambda task: [50.0, 60.0]
    found._go_on(found.plan.config)
    assert found.search.run() == "all 6 candidates have been evaluated"
    after = found.store.rows()
    assert [row["state"] for row in after] == ["complete"] * 6
    # The same trials, with the same architectures and seeds.
    assert [(row["key"], row["seed"]) for row in after][: len(before)] == [
        (row["key"], row["seed"]) for row in before
    ]


def test_the_number_of_candidates_is_corrected_as_times_are_learned(loop, monkeypatch):
    """Candidates of 4 s were forecast, and they take 2 s: of 100 s less 2 %, 24 and 49 have room."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(trainings_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    found = loop(lambda task: [50.0, 60.0], capacity=1, clock=clock, budget="100s", final_seeds=0)
    found.trainings._plan = replace(found.plan, forecast=SimpleNamespace(each=4.0))
    assert found.search.run() == "the search's share of the budget is spent (49 candidates)"
    assert found.progress.outlooks[0] == (0, 24, 98.0)
    assert found.progress.outlooks[1] == (1, 49, 96.0)
    assert found.progress.outlooks[-1] == (48, 49, 2.0)


def test_the_search_leaves_the_time_of_the_final_seeds(loop, monkeypatch):
    """Of 98 s with trainings of 2 s: 31 candidates take 62 s, and their 16 final trainings may take 35.2 s."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(trainings_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    found = loop(lambda task: [50.0, 60.0], capacity=1, clock=clock, budget="100s")
    found.trainings._plan = replace(found.plan, forecast=None)
    assert found.search.run() == "the search's share of the budget is spent (31 candidates)"


def test_what_trials_limit_ends_with_the_last(loop, monkeypatch):
    found = loop(lambda task: [50.0, 60.0], trials=3, final_seeds=0)
    found.search.run()
    assert {planned for _, planned, _ in found.progress.outlooks} <= {3}


def test_three_failures_in_a_row_end_the_search(loop):
    from se_nas.errors import RunError

    found = loop(lambda task: [DIES], trials=9, capacity=1)
    with pytest.raises(
        RunError, match=r"3 candidates in a row failed, the last with: it died\n.*se-nas resume"
    ):
        found.search.run()
    assert found.states() == ["failed"] * 3
