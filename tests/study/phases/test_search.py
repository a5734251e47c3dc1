"""What the loop of a search expects a candidate to take, by a clock that the test turns."""

from types import SimpleNamespace

import pytest

from se_nas.study.clock import Clock
from se_nas.study.executors.task import Job
from se_nas.study.phases import search as module
from se_nas.study.phases.search import Worker
from se_nas.study.progress import Progress


class Store:
    """Takes everything; its rows are those of an earlier process."""

    def __init__(self, rows):
        self._rows = rows

    def rows(self):
        return self._rows

    def finish(self, number, values, *, stopped=False, **fields):
        pass

    def write_table(self):
        pass


class Evaluator:
    """A training of 10 s, before which the candidate waits or is measured."""

    def __init__(self, clock):
        self.clock, self.waits, self.state = clock, 0.0, "complete"

    def evaluate(self, job):
        self.clock.now += self.waits + 10.0
        return {"state": self.state, "seconds": 10.0, "accuracy": 50.0}


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def worker(clock):
    def make(rows=()):
        plan = SimpleNamespace(config=SimpleNamespace(objectives=("accuracy",)))
        timer = Clock(1000.0, monotonic=lambda: clock.now)
        made = Worker(plan, None, Store(list(rows)), Progress(), timer, None)
        made._evaluator = Evaluator(clock)
        return made

    return make


def job(number):
    architecture = SimpleNamespace(key=str(number), describe=lambda: "network")
    return Job(number=number, architecture=architecture, seed=0, phase="search")


def test_plans_with_what_a_candidate_lasts_not_with_its_own_seconds(worker):
    search = worker(rows=[{"seconds": 12.0, "state": "complete"}, {"seconds": 1.0, "state": "failed"}])
    assert search._expected() == 12.0
    search._evaluator.waits = 30.0
    search._train(job(1))
    assert search._expected() == 40.0
    search._evaluator.state = "stopped"
    search._evaluator.waits = 0.0
    search._train(job(2))
    assert search._expected() == 40.0


def test_one_that_began_in_an_earlier_process_lasted_at_least_its_own_seconds(worker, clock):
    search = worker()
    search._evaluator.evaluate = lambda job: {"state": "complete", "seconds": 50.0, "accuracy": 50.0}
    search._train(job(1))
    assert search._expected() == 50.0


def test_time_for_more_trainings_is_what_those_under_way_leave(worker, clock):
    search = worker()
    search._train(job(1))
    search.slots = 3
    search._start(job(2))
    clock.now += 4.0
    search._start(job(3))
    # 986 s are left on each of three places; of 10 s each, the two under way still need 6 and 10.
    assert search._training_time_left() == 3 * 986.0 - 16.0
    clock.now += 100.0
    assert search._training_time_left() == 3 * 886.0
