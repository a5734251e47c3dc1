"""What the trainings of a run expect a candidate to take, and which of them early stopping judges."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_executor import FakeExecutor
from least_manifest import empty_run
from small_cases import SITES

from se_nas.architecture import Architecture
from se_nas.run import FINAL, SEARCH
from se_nas.study.budget import MARGIN
from se_nas.study.clock import Clock
from se_nas.study.config import SearchConfig
from se_nas.study.executors import Task
from se_nas.study.phases import trainings as module
from se_nas.study.phases.trainings import Trainings
from se_nas.study.progress import Progress
from se_nas.study.stopping import Stopping
from se_nas.study.storage import StudyStore
from se_nas.study.suggestions import REPEAT_SEEDS
from se_nas.training import Runtime

SEED = 1
REPEAT = SEED + REPEAT_SEEDS


class ParamsAxis:
    """A cost that a test sets."""

    value = 100.0

    def fields(self, architecture, *, measure=False):
        return {"num_params": self.value}


def make_trainings(store, executor, stopping, clock, **plan):
    given = SimpleNamespace(
        runtime=Runtime(device="cpu"),
        axes={"params": ParamsAxis()},
        recipe=SimpleNamespace(epochs=2),
        forecast=None,
        **plan,
    )
    return Trainings(given, store, executor, stopping, Progress(), clock, lambda: False)


class Store:
    """Takes everything; its rows are those of an earlier process."""

    folder = SimpleNamespace(checkpoints=Path("nowhere"))

    def __init__(self, rows):
        self._rows = rows

    def rows(self):
        return self._rows

    def record(self, number, **fields):
        pass

    def mark(self, number, **attributes):
        pass

    def together(self):
        return nullcontext()

    def finish(self, number, values, *, stopped=False, **fields):
        pass

    def elsewhere(self, phase=None):
        return 0

    def refresh_table(self):
        pass

    def spend(self, seconds):
        pass


def task(number):
    architecture = SimpleNamespace(key=str(number), describe=lambda: "network")
    return Task(number=number, architecture=architecture, seed=0, phase=SEARCH)


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def timed(clock):
    """Trainings one at a time, of which each lasts ``lasts`` seconds and says ``seconds`` and ``state``."""

    class Inline(FakeExecutor):
        lasts, seconds, state = 10.0, 10.0, "complete"

        def submit(self, task, listener):
            clock.now += self.lasts
            listener.task_ended(
                task, {"state": self.state, "seconds": self.seconds, "accuracy": 50.0, "curve": []}
            )
            return {}

    def make(rows=()):
        timer = Clock(1000.0 / (1 - MARGIN), monotonic=lambda: clock.now)
        executor = Inline(None, capacity=1)
        stopping = SimpleNamespace(finished=lambda *args: None, expectation=lambda *args: {})
        config = SimpleNamespace(objectives=("accuracy",), seed=0)
        return make_trainings(Store(list(rows)), executor, stopping, timer, config=config), executor

    return make


def test_plans_with_what_a_candidate_lasts_not_with_its_own_seconds(timed):
    rows = [{"seconds": 12.0, "state": "complete"}, {"seconds": 1.0, "state": "failed"}]
    trainings, executor = timed(rows)
    assert trainings.expected_seconds() == 12.0
    executor.lasts = 40.0
    trainings.go_on(task(1))
    assert trainings.expected_seconds() == 40.0
    executor.lasts, executor.state = 10.0, "stopped"
    trainings.go_on(task(2))
    assert trainings.expected_seconds() == 40.0


def test_one_that_began_in_an_earlier_process_lasted_at_least_its_own_seconds(timed):
    trainings, executor = timed()
    executor.seconds = 50.0
    trainings.go_on(task(1))
    assert trainings.expected_seconds() == 50.0


def test_time_for_more_trainings_is_what_those_under_way_leave(timed, clock):
    trainings, executor = timed()
    trainings.go_on(task(1))
    executor.capacity = 3
    executor.submit = lambda task, listener: {}
    trainings.go_on(task(2))
    clock.now += 4.0
    trainings.go_on(task(3))
    # 986 s are left on each of three places; of 10 s each, the two under way still need 6 and 10.
    assert trainings.time_left() == 3 * 986.0 - 16.0
    clock.now += 100.0
    assert trainings.time_left() == 3 * 886.0


class Bench:
    """The real rule on a real study, with the curves of a test."""

    def __init__(self, path):
        config = SearchConfig(
            backbone="net", objectives="accuracy,params", early_stopping="curves", seed=SEED
        )
        self.store = StudyStore.create(empty_run(path), config.objectives)
        self.stopping = Stopping("curves", 2, config.objectives, self.store, SEED)
        self.executor = FakeExecutor(lambda task: self.accuracies, capacity=1)
        self.trainings = make_trainings(self.store, self.executor, self.stopping, Clock(None), config=config)

    def train(self, network, accuracies, *, seed=SEED, phase=SEARCH):
        """The state in which a training of a network, which its number makes, with these accuracies ends."""
        widths = (8 + 8 * network, 0)
        architecture = Architecture(backbone="net", position="standard", sites=tuple(SITES), widths=widths)
        number = self.store.begin(None, {}, architecture)
        self.accuracies = accuracies
        task = Task(number=number, architecture=architecture, seed=seed, phase=phase)
        self.trainings.claim(task, None)
        self.trainings.go_on(task)
        self.trainings.drain()
        return self.store.rows()[number]["state"]


@pytest.fixture
def bench(tmp_path):
    """Seven networks that gain 10 points after the first epoch and end between 60 and 60.6 %."""
    bench = Bench(tmp_path / "run")
    for number in range(7):
        assert bench.train(number, [50 + number / 10, 60 + number / 10]) == "complete"
    return bench


def test_a_repeat_in_the_search_raises_the_level_that_later_ones_need(bench, tmp_path):
    before = Bench(tmp_path / "before")
    for number in range(7):
        before.train(number, [50 + number / 10, 60 + number / 10])
    assert bench.train(0, [70.0, 80.0], seed=REPEAT) == "complete"
    assert bench.stopping.report()["finished"] == 8
    later = [52.0, 62.0]
    assert before.train(7, later) == "complete"
    assert bench.train(7, later) == "stopped"


def test_a_repeat_in_the_search_runs_to_its_end_and_counts_with_the_first_reading(bench):
    assert bench.train(0, [30.0, 40.0], seed=REPEAT) == "complete"
    assert bench.stopping.report()["stopped"] == 0
    # Network 6 has read 60.6 and 90: what comes needs their mean, 75.3, and not 90.
    assert bench.train(6, [80.0, 90.0], seed=REPEAT) == "complete"
    assert bench.train(8, [67.0, 77.0]) == "complete"
    assert bench.train(9, [60.0, 70.0]) == "stopped"


def test_a_stop_that_was_decided_before_a_kill_holds_after_it(bench):
    widths = (8, 8)
    architecture = Architecture(backbone="net", position="standard", sites=tuple(SITES), widths=widths)
    number = bench.store.begin(None, {}, architecture)
    lost = Task(number=number, architecture=architecture, seed=SEED, phase=SEARCH)
    bench.accuracies = [30.0, 40.0]
    bench.executor.submit = lambda task, listener: {}
    bench.trainings.claim(lost, None)
    bench.trainings.go_on(lost)
    curve = [{"epoch": 1, "accuracy": 30.0, "loss": 1.5, "seconds": 2.0}]
    assert not bench.trainings.epoch_ended(lost, curve, curve[0])
    # The process is killed before the training has ended; the next one would go on after that epoch.
    after = make_trainings(
        bench.store,
        bench.executor,
        bench.stopping,
        Clock(None),
        config=SearchConfig(backbone="net", objectives="accuracy,params", early_stopping="curves", seed=SEED),
    )
    after.go_on(lost, curve)
    row = bench.store.rows()[number]
    assert (row["state"], row["epochs"], row["accuracy"], row["loss"], row["seconds"]) == (
        "stopped",
        1,
        30.0,
        1.5,
        2.0,
    )
    assert bench.store.trials()[number].state.name == "PRUNED"


def test_finalists_run_to_their_end_and_teach_nothing(bench):
    assert bench.train(0, [30.0, 40.0], seed=SEED + 1, phase=FINAL) == "complete"
    assert bench.train(0, [70.0, 80.0], seed=SEED + 1, phase=FINAL) == "complete"
    report = bench.stopping.report()
    assert (report["finished"], report["stopped"]) == (7, 0)
