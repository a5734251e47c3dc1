"""What every executor promises whoever drives it, whatever it trains with."""

import pytest
from least_manifest import empty_run
from small_cases import SEARCH

import se_nas
from se_nas.study.executors import Inline, Packed, ProcessPool, Task, make_executor
from se_nas.study.executors.ray import RayExecutor
from se_nas.study.packing import Packing, capacities
from se_nas.study.plan import resolve


def inline(plan, folder):
    return Inline(plan.setup(folder))


def process_pool(plan, folder):
    return ProcessPool(plan.setup(folder), 2, print)


def packed(plan, folder):
    return Packed(plan.setup(folder), capacities(plan.space, list(plan.baselines.values())), 2, print)


def pack_in_a_process(plan, folder):
    """What a GPU does with --candidate-timeout, on a CPU."""
    packing = Packing(places=2, devices=("cpu",), packed=True, masked=True, reason="")
    rooms = capacities(plan.space, list(plan.baselines.values()))
    made = make_executor(plan.setup(folder), packing, rooms, print)
    assert isinstance(made, ProcessPool)
    return made


def on_ray(plan, folder):
    return RayExecutor(plan.setup(folder), plan.packing, (), print)


def pack_on_ray(plan, folder):
    """What an actor with a GPU does, on a CPU."""
    packing = Packing(places=2, devices=("cpu",), packed=True, masked=True, reason="").trained_by(2)
    return RayExecutor(
        plan.setup(folder), packing, capacities(plan.space, list(plan.baselines.values())), print
    )


CASES = (inline, process_pool, packed, pack_in_a_process)
ON_RAY = (on_ray, pack_on_ray)


@pytest.fixture(
    params=[*CASES, *(pytest.param(make, marks=pytest.mark.cluster) for make in ON_RAY)],
    ids=lambda make: make.__name__,
)
def executor(request, tmp_path):
    """An executor of a search of test_resnet on digits, two epochs each."""
    given = {"objectives": "accuracy,params", "runs": str(tmp_path), "epochs": 2}
    if request.param in ON_RAY:
        request.getfixturevalue("ray_here")
        given["executor"] = "ray"
    if request.param is pack_in_a_process:
        given["candidate_timeout"] = "10m"
    recipe = {**SEARCH["recipe"], "batch_size": 512}
    plan = resolve(se_nas.SearchConfig(**{**SEARCH, **given, "recipe": recipe}))
    made = request.param(plan, empty_run(tmp_path / "run"))
    made.plan = plan
    yield made
    made.close(kill=True)


class Listener:
    def __init__(self, goes_on=True):
        self.goes_on, self.stop, self.epochs, self.ended = goes_on, False, [], []

    def epoch_ended(self, task, curve, metrics):
        assert curve[-1] == metrics
        self.epochs.append((task.number, len(curve)))
        return self.goes_on

    def task_ended(self, task, fields):
        self.ended.append((task.number, fields))

    def should_stop(self):
        return self.stop


def task_of(executor, number, baseline="plain"):
    architecture = executor.plan.baselines[baseline]
    return Task(number=number, architecture=architecture, seed=0, phase="search")


def run(executor, listener, tasks):
    for task in tasks:
        while len(executor.tasks) >= executor.capacity:
            executor.wait(listener)
        executor.submit(task, listener)
    while executor.tasks:
        executor.wait(listener)


def test_every_epoch_and_every_end_is_reported_once(executor):
    listener = Listener()
    tasks = [task_of(executor, 0), task_of(executor, 1, "all_se_16")]
    run(executor, listener, tasks)
    assert sorted(listener.epochs) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    fields = dict(listener.ended)
    assert sorted(fields) == [0, 1]
    for number in (0, 1):
        assert fields[number]["state"] == "complete"
        assert fields[number]["epochs"] == len(fields[number]["curve"]) == 2
        assert fields[number]["accuracy"] == fields[number]["curve"][-1]["accuracy"]
        assert fields[number]["seconds"] > 0
    assert list(executor.tasks) == []


def test_a_candidate_ends_early_if_its_listener_says_so(executor):
    listener = Listener(goes_on=False)
    run(executor, listener, [task_of(executor, 0)])
    [(number, fields)] = listener.ended
    assert (number, fields["state"], listener.epochs) == (0, "stopped", [(0, 1)])


def test_a_stop_ends_what_is_in_training_as_unfinished(executor):
    listener = Listener()
    listener.stop = True
    run(executor, listener, [task_of(executor, 0)])
    [(number, fields)] = listener.ended
    assert (number, fields["state"], listener.epochs) == (0, "unfinished", [])


def test_a_pause_between_trainings_changes_nothing(executor):
    listener = Listener()
    with executor.paused():
        pass
    run(executor, listener, [task_of(executor, 0)])
    assert listener.ended[0][1]["state"] == "complete"


def test_a_candidate_that_raises_fails_alone(executor, monkeypatch):
    """The checkpoint of another network is in its way."""
    folder = (
        executor._setup.checkpoints if hasattr(executor, "_setup") else executor._trainer._setup.checkpoints
    )
    folder.mkdir(exist_ok=True)
    bad = task_of(executor, 0)
    (folder / f"{bad.architecture.key}-s0.state").mkdir()
    listener = Listener()
    run(executor, listener, [bad, task_of(executor, 1, "all_se_16")])
    fields = dict(listener.ended)
    assert fields[0]["state"] == "failed"
    assert fields[0]["error"]
    assert fields[1]["state"] == "complete"
