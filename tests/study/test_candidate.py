"""Which trainings early stopping judges, with the real rule on a real study and the curves of a test."""

from types import SimpleNamespace

import pytest
from small_cases import SITES

from se_nas.architecture import Architecture
from se_nas.run import RunFolder
from se_nas.study.config import SearchConfig
from se_nas.study.evaluate import Evaluator
from se_nas.study.executors.task import Job
from se_nas.study.progress import Progress
from se_nas.study.stopping import Stopping
from se_nas.study.storage import FINAL, SEARCH, StudyStore
from se_nas.study.suggestions import REPEAT_SEEDS

SEED = 1
REPEAT = SEED + REPEAT_SEEDS
EPOCHS = 2


class Bench:
    """Plays trainings of two epochs as the worker does: every epoch, then the end."""

    def __init__(self, path):
        config = SearchConfig(
            backbone="net", objectives="accuracy,params", early_stopping="curves", seed=SEED
        )
        plan = SimpleNamespace(
            config=config, recipe=SimpleNamespace(epochs=EPOCHS), data=None, runtime=None, axis=None
        )
        self.store = StudyStore.create(RunFolder.create(path, {}, {}), config.objectives)
        self.stopping = Stopping(plan, self.store)
        self.evaluator = Evaluator(plan, self.store, Progress(), self.stopping, lambda: False, lambda: 0.0)

    def train(self, network, accuracies, *, seed=SEED, phase=SEARCH, params=100.0):
        """The state in which a training of a network, which its number makes, with these accuracies ends."""
        widths = (8 + 8 * network, 0)
        architecture = Architecture(backbone="net", position="standard", sites=tuple(SITES), widths=widths)
        number = self.store.begin(None, {}, architecture, phase=phase, seed=seed)
        job = Job(number=number, architecture=architecture, seed=seed, phase=phase)
        costs, curve, state = {"num_params": params}, [], "complete"
        for epoch, accuracy in enumerate(accuracies, start=1):
            curve.append({"epoch": epoch, "accuracy": accuracy})
            if not self.evaluator.epoch(job, costs, list(curve), curve[-1]):
                state = "stopped"
                break
        fields = {"state": state, "curve": curve, "accuracy": curve[-1]["accuracy"]}
        self.evaluator.trained(job, costs, fields)
        values = None if state == "stopped" else [fields["accuracy"], params]
        self.store.finish(number, values, stopped=state == "stopped", **fields)
        return state


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


def test_finalists_run_to_their_end_and_teach_nothing(bench):
    assert bench.train(0, [30.0, 40.0], seed=SEED + 1, phase=FINAL) == "complete"
    assert bench.train(0, [70.0, 80.0], seed=SEED + 1, phase=FINAL) == "complete"
    report = bench.stopping.report()
    assert (report["finished"], report["stopped"]) == (7, 0)
