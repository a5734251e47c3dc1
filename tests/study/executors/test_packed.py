"""A pack of candidates in one process, uncaptured on a CPU: what each comes to is what it comes to alone."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from least_manifest import empty_run
from PIL import Image
from safetensors.torch import load_file
from small_cases import SEARCH

import se_nas
from se_nas.architecture import Architecture
from se_nas.errors import DiskError
from se_nas.run import RunFolder
from se_nas.samplers.pareto_sampler import ParetoSampler
from se_nas.study import schedule
from se_nas.study.database import Database
from se_nas.study.executors import Task
from se_nas.study.executors import packed as packed_module
from se_nas.study.executors._deadline import HANG_SECONDS
from se_nas.study.executors.packed import Packed
from se_nas.study.executors.task import CORRECT, CandidateTrainer
from se_nas.study.packing import Packing
from se_nas.study.plan import resolve
from se_nas.study.sampler_process import SamplerProcess
from se_nas.training import checkpoint, faults
from se_nas.training.checkpoint import StateWriter
from se_nas.training.masked import Capacity
from se_nas.training.step import Step

VARYING = ("seconds", "curve", CORRECT)


class Listener:
    """Lets trainings go on as ``goes_on(task, curve)`` says, and keeps how each ended."""

    def __init__(self, goes_on=lambda task, curve: True):
        self.goes_on, self.stop, self.ended, self.order = goes_on, False, {}, []

    def epoch_ended(self, task, curve, metrics):
        self.order.append((task.number, len(curve)))
        return self.goes_on(task, curve)

    def task_ended(self, task, fields):
        self.ended[task.number] = fields

    def should_stop(self):
        return self.stop


@pytest.fixture
def plan(tmp_path):
    def make(**changes):
        recipe = {**SEARCH["recipe"], "batch_size": 256, **changes.pop("recipe", {})}
        given = {"objectives": "accuracy,params", "runs": str(tmp_path), "epochs": 2, **changes}
        return resolve(se_nas.SearchConfig(**{**SEARCH, **given, "recipe": recipe}))

    return make


@pytest.fixture
def packed(tmp_path):
    """Makes an executor of a plan in a folder of its own, and says what it says."""
    made = []

    def make(plan, capacity, name="run"):
        path, said = tmp_path / name, []
        folder = RunFolder.open(path) if path.exists() else empty_run(path)
        rooms = [Capacity.of_space(plan.space, also=plan.baselines.values())]
        made.append(Packed(plan.setup(folder), rooms, capacity, said.append))
        return made[-1], said

    yield make
    for executor in made:
        executor.close(kill=True)


def some_tasks(plan, seeds=(0, 0, 1)):
    architectures = [plan.baselines["plain"], plan.baselines["all_se_16"], plan.baselines["last_stage"]]
    return [
        Task(number=number, architecture=architecture, seed=seed, phase="search")
        for number, (architecture, seed) in enumerate(zip(architectures, seeds, strict=True))
    ]


def drain(executor, listener):
    while executor.tasks:
        executor.wait(listener)


def run(executor, tasks, listener=None):
    listener = listener or Listener()
    waiting = list(tasks)
    while waiting or executor.tasks:
        while waiting and len(executor.tasks) < executor.capacity:
            executor.submit(waiting.pop(0), listener)
        executor.wait(listener)
    return listener


def told(fields):
    return {name: value for name, value in fields.items() if name not in VARYING}


def test_three_at_a_time_come_to_what_each_comes_to_alone_to_the_bit(plan, packed, tmp_path):
    plan = plan(recipe={"ema_decay": 0.9})
    together, _ = packed(plan, 3, "together")
    side_by_side = run(together, some_tasks(plan))
    assert {number for number, _ in side_by_side.order[:3]} == {0, 1, 2}
    alone, _ = packed(plan, 1, "alone")
    one_by_one = run(alone, some_tasks(plan))
    assert [number for number, _ in one_by_one.order] == [0, 0, 1, 1, 2, 2]
    for number in range(3):
        assert told(side_by_side.ended[number]) == told(one_by_one.ended[number])
    for path in (tmp_path / "alone" / "checkpoints").glob("*.safetensors"):
        other = load_file(tmp_path / "together" / "checkpoints" / path.name)
        assert all(torch.equal(value, other[name]) for name, value in load_file(path).items())


@pytest.mark.parametrize(
    "recipe", [{}, {"preset": "finetune"}, {"preset": "finetune", "freeze_epochs": 0.5}], ids=str
)
def test_a_place_is_used_again_and_comes_to_what_a_built_network_comes_to(plan, packed, tmp_path, recipe):
    """Masked sums have more terms than built ones, so weights agree to rounding."""
    plan = plan(epochs=1, recipe=recipe)
    executor, _ = packed(plan, 1)
    listener = run(executor, some_tasks(plan))
    trainer = CandidateTrainer(plan.setup(empty_run(tmp_path / "built")))
    for task in some_tasks(plan):
        fields = trainer.train(task, lambda curve, metrics: True, lambda: False)
        assert listener.ended[task.number]["state"] == fields["state"] == "complete"
        assert listener.ended[task.number]["loss"] == pytest.approx(fields["loss"], abs=1e-3)
        name = f"{task.architecture.key}-s{task.seed}.safetensors"
        built = load_file(tmp_path / "built" / "checkpoints" / name)
        masked = load_file(tmp_path / "run" / "checkpoints" / name)
        assert masked.keys() == built.keys()
        se_nas.build_model(task.architecture, num_classes=10).load_state_dict(masked)
        for key, value in built.items():
            torch.testing.assert_close(masked[key], value, rtol=1e-2, atol=2e-3)


def test_one_that_is_stopped_hands_its_place_to_the_next(plan, packed):
    executor, _ = packed(plan(), 2)
    tasks = some_tasks(plan())
    listener = run(executor, tasks, Listener(lambda task, curve: task.number != 1))
    assert {number: fields["state"] for number, fields in listener.ended.items()} == {
        0: "complete",
        1: "stopped",
        2: "complete",
    }
    assert len(listener.ended[1]["curve"]) == 1
    assert executor.capacity == 2


def test_a_place_is_free_while_weights_are_written_and_the_end_is_told_once_they_are(
    plan, packed, monkeypatch
):
    made, listener = plan(epochs=1), Listener()
    executor, _ = packed(made, 2)
    disk, write = threading.Event(), checkpoint.save_weights
    folder = made.setup(RunFolder.open(executor._setup.checkpoints.parent)).checkpoints

    def slow(path, weights, about):
        assert disk.wait(60)
        write(path, weights, about)

    monkeypatch.setattr(checkpoint, "save_weights", slow)
    tasks = some_tasks(made)
    for task in tasks[:2]:
        executor.submit(task, listener)
    while executor._running:
        executor.wait(listener)
    assert not listener.ended
    assert len(executor.tasks) == 2
    assert executor.capacity == 4
    # Nothing else may train: it returns after a moment nevertheless.
    executor.wait(listener)
    executor.submit(tasks[2], listener)
    assert len(executor._running) == 1
    assert not list(folder.glob("*.safetensors"))
    disk.set()
    drain(executor, listener)
    assert {number: fields["state"] for number, fields in listener.ended.items()} == dict.fromkeys(
        range(3), "complete"
    )
    assert executor.capacity == 2
    assert len(list(folder.glob("*.safetensors"))) == 3
    assert not list(folder.glob("*.state"))


@pytest.mark.parametrize("places", [1, 2])
def test_a_full_disk_ends_the_search_and_not_the_candidate(plan, packed, monkeypatch, places):
    executor, _ = packed(plan(epochs=1), places)

    def full(path, weights, about):
        raise DiskError("the disk is full")

    monkeypatch.setattr(checkpoint, "save_weights", full)
    listener = Listener()
    with pytest.raises(DiskError, match="the disk is full"):
        run(executor, some_tasks(plan(epochs=1))[:1], listener)
    assert not listener.ended


def test_one_that_fails_leaves_its_neighbours_alone(plan, packed, monkeypatch):
    made = plan()
    alone, _ = packed(made, 1, "alone")
    expected = run(alone, some_tasks(made))
    executor, _ = packed(made, 3, "together")
    listener, broken = Listener(), []
    for task in some_tasks(made):
        executor.submit(task, listener)
    steps = Step.run

    def fails_once(self):
        if not broken and executor._running[1].training.step is self and self.updates == 2:
            broken.append(self)
            raise RuntimeError("a kernel failed")
        steps(self)

    monkeypatch.setattr(Step, "run", fails_once)
    drain(executor, listener)
    assert listener.ended[1]["state"] == "failed"
    assert listener.ended[1]["error"].startswith("RuntimeError: a kernel failed (")
    for number in (0, 2):
        assert told(listener.ended[number]) == told(expected.ended[number])


def test_out_of_memory_beside_others_waits_for_room_and_loses_nothing(plan, packed, monkeypatch):
    made = plan()
    alone, _ = packed(made, 1, "alone")
    expected = run(alone, some_tasks(made))
    executor, said = packed(made, 3, "together")
    listener = Listener()
    for task in some_tasks(made):
        executor.submit(task, listener)
    steps = Step.run

    def too_much(self):
        if len(executor._running) > 2 and executor._running[2].training.step is self and self.updates == 7:
            raise faults.OutOfMemoryError("no more memory")
        steps(self)

    monkeypatch.setattr(Step, "run", too_much)
    drain(executor, listener)
    assert executor.capacity == 2
    assert len(said) == 1
    assert "trial 2 ran out of memory beside 2 others" in said[0]
    assert {number: told(fields) for number, fields in listener.ended.items()} == {
        number: told(fields) for number, fields in expected.ended.items()
    }


def test_a_stopped_pack_goes_on_from_its_checkpoints(plan, packed):
    made = plan()
    alone, _ = packed(made, 1, "alone")
    expected = run(alone, some_tasks(made))
    executor, _ = packed(made, 3, "together")
    listener = Listener()
    for task in some_tasks(made):
        executor.submit(task, listener)
    while len(listener.order) < 2:
        executor.wait(listener)
    listener.stop = True
    drain(executor, listener)
    assert {fields["state"] for fields in listener.ended.values()} == {"unfinished"}
    again, _ = packed(made, 3, "together")
    went_on = run(again, some_tasks(made))
    assert {number: told(fields) for number, fields in went_on.ended.items()} == {
        number: told(fields) for number, fields in expected.ended.items()
    }
    assert all(epoch == 2 for number, epoch in went_on.order if (number, 1) in listener.order)


def test_a_candidate_that_no_masked_network_can_be_is_built(plan, packed):
    made = plan(epochs=1)
    other = Architecture.uniform("test_resnet", reduction=16, position="post")
    executor, _ = packed(made, 2)
    task = Task(number=0, architecture=other, seed=0, phase="search")
    listener = run(executor, [task, *some_tasks(made)[1:]])
    assert {fields["state"] for fields in listener.ended.values()} == {"complete"}


def test_finalists_see_the_test_images_and_weights_of_the_average_are_kept(plan, packed):
    made = plan(epochs=1)
    executor, _ = packed(made, 1)
    architecture = made.baselines["all_se_16"]
    task = Task(number=0, architecture=architecture, seed=1, phase="final")
    listener = run(executor, [task])
    assert 0 <= listener.ended[0]["test_accuracy"] <= 100


def test_images_on_disk_come_to_what_each_comes_to_alone(plan, packed, tmp_path):
    draws = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / "data" / f"class{label}").mkdir(parents=True)
        for index in range(20):
            pixels = draws.integers(0, 256, (160, 160, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / f"class{label}" / f"{index}.png")
    made = plan(data=str(tmp_path / "data"), input_size=160, recipe={"batch_size": 8}, epochs=1)
    assert not made.data.in_memory
    alone, _ = packed(made, 1, "alone")
    expected = run(alone, some_tasks(made))
    together, _ = packed(made, 3, "together")
    listener = run(together, some_tasks(made))
    # Those of one seed begin together; the third, of another, waits for them.
    assert [number for number, _ in listener.order] == [0, 1, 2]
    for number in range(3):
        assert told(listener.ended[number]) == told(expected.ended[number])


def test_a_candidate_that_takes_too_long_is_ended_between_steps_and_replaced(plan, packed, monkeypatch):
    made = plan(candidate_timeout="100s")
    expected = run(packed(made, 1, "alone")[0], some_tasks(made))
    now = [0.0]
    monkeypatch.setattr(packed_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def passes(task, curve):
        now[0] += 25
        return True

    listener = Listener(passes)
    executor, _ = packed(made, 2, "together")
    first, second, third = some_tasks(made)
    executor.submit(first, listener)
    with executor.paused():
        now[0] += 1000
    now[0] += 60
    executor.submit(second, listener)
    while executor.tasks:
        executor.wait(listener)
        if first.number in listener.ended and third is not None:
            executor.submit(third, listener)
            third = None
    assert listener.ended[0]["state"] == "failed"
    assert listener.ended[0]["error"] == "it took longer than candidate_timeout (100s)"
    for number in (1, 2):
        assert told(listener.ended[number]) == told(expected.ended[number])


def test_a_turn_that_goes_on_after_the_deadline_hangs_and_not_what_waits_beside_it(plan, packed, monkeypatch):
    made, now, seen = plan(candidate_timeout="100s"), [0.0], []
    monkeypatch.setattr(packed_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    listener = Listener()
    executor, _ = packed(made, 2)
    first, second, _ = some_tasks(made)
    executor.submit(first, listener)
    now[0] += 50
    executor.submit(second, listener)
    with executor.paused():
        now[0] += 1000
        seen.append(executor.hanging)
    seen.append(executor.hanging)
    steps = Step.run

    def hangs(self):
        if executor._running[1].training.step is self and len(seen) == 2:
            # The deadline of the first is over too, but it is not its turn.
            for seconds in (99, 1 + HANG_SECONDS, 0.1):
                now[0] += seconds
                seen.append(executor.hanging)
        steps(self)

    monkeypatch.setattr(Step, "run", hangs)
    drain(executor, listener)
    assert seen == [None, None, None, None, second.number]
    # The step came back after all: both were ended between two turns.
    assert {fields["state"] for fields in listener.ended.values()} == {"failed"}


def test_an_answer_that_takes_long_is_not_the_candidates_hanging(plan, packed, monkeypatch):
    made = plan(candidate_timeout="100s")
    now, seen = [0.0], []
    monkeypatch.setattr(packed_module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def passes(task, curve):
        now[0] += 3600
        seen.append(executor.hanging)
        return True

    save = StateWriter.write

    def saves(self, state):
        seen.append(executor.hanging)
        save(self, state)

    monkeypatch.setattr(StateWriter, "write", saves)
    executor, _ = packed(made, 1)
    listener = run(executor, some_tasks(made)[:1], Listener(passes))
    assert seen == [None, None]
    assert listener.ended[0]["error"] == "it took longer than candidate_timeout (100s)"


def test_weights_whose_writing_does_not_end_are_the_candidates_hanging(plan, packed, monkeypatch):
    made, now, disk = plan(candidate_timeout="100s", epochs=1), [0.0], threading.Event()
    monkeypatch.setattr(packed_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    write = checkpoint.save_weights

    def slow(path, weights, about):
        assert disk.wait(60)
        write(path, weights, about)

    monkeypatch.setattr(checkpoint, "save_weights", slow)
    executor, _ = packed(made, 2)
    listener = Listener()
    executor.submit(some_tasks(made)[0], listener)
    while executor._running:
        executor.wait(listener)
        now[0] += 0.1
    assert executor.hanging is None
    now[0] += 200
    assert executor.hanging == 0
    disk.set()
    drain(executor, listener)
    assert listener.ended[0]["state"] == "complete"
    assert executor.hanging is None


@pytest.mark.slow
def test_a_search_in_a_pack_reads_what_one_at_a_time_reads(tmp_path, monkeypatch):
    """The whole search, final seeds included, as it runs on a GPU but uncaptured."""

    def searched(places):
        def decide(config, *args):
            return Packing(places=places, devices=("cpu",), packed=True, masked=True, reason="by the test")

        monkeypatch.setattr(schedule, "decide_packing", decide)
        given = {"objectives": "accuracy,params", "sampler": "random", "runs": str(tmp_path)}
        config = se_nas.SearchConfig(**{**SEARCH, **given}, trials=5, final_seeds=2, name=f"places-{places}")
        return [row.to_json() for row in RunFolder.open(se_nas.search(config).path).rows()]

    alone, together = searched(1), searched(3)
    names = ("key", "seed", "phase", "state", "accuracy", "loss", "num_params", "test_accuracy")
    search = [[row[name] for name in names] for row in alone if row["phase"] == "search"]
    assert search == [[row[name] for name in names] for row in together if row["phase"] == "search"]
    assert all(row["state"] == "complete" for row in together)
    finals = {(row["key"], row["seed"]): row["accuracy"] for row in alone if row["phase"] == "final"}
    others = {(row["key"], row["seed"]): row["accuracy"] for row in together if row["phase"] == "final"}
    assert len(others) >= 4
    assert {key: others[key] for key in finals.keys() & others.keys()} == {
        key: finals[key] for key in finals.keys() & others.keys()
    }


def test_the_thread_that_steps_a_pack_neither_suggests_nor_waits_for_a_disk(tmp_path, monkeypatch):
    """What is done while candidates train is counted by the thread that does it; a count, because a time would tell of
    the machine."""
    stepping, done = threading.current_thread(), {}

    def watched(owner, name):
        original = getattr(owner, name)

        def counted(*args, **keywords):
            here = threading.current_thread() is stepping and bool(training)
            done.setdefault(name, []).append(here)
            return original(*args, **keywords)

        monkeypatch.setattr(owner, name, counted)

    training = []
    wait = Packed.wait

    def waiting(self, listener):
        training.append(1)
        try:
            return wait(self, listener)
        finally:
            training.pop()

    monkeypatch.setattr(Packed, "wait", waiting)
    monkeypatch.setattr(
        schedule,
        "decide_packing",
        lambda *args: Packing(places=2, devices=("cpu",), packed=True, masked=True, reason="by the test"),
    )
    watched(ParetoSampler, "sample_relative")
    watched(SamplerProcess, "_asked")
    watched(Database, "save")
    watched(checkpoint, "save_weights")
    watched(checkpoint, "save_state")
    given = {
        "objectives": "accuracy,params",
        "runs": str(tmp_path),
        "trials": 8,
        "final_seeds": 0,
        "epochs": 2,
    }
    run = se_nas.search(se_nas.SearchConfig(**{**SEARCH, **given}))
    rows = RunFolder.open(run.path).rows()
    assert [row.state for row in rows] == ["complete"] * 8
    here = {name: sum(seen) for name, seen in done.items()}
    assert here == dict.fromkeys(("_asked", "save", "save_weights", "save_state"), 0)
    # One state and the weights of each, and of the suggestions all but the baselines, by the process.
    assert len(done["save_weights"]) == len(done["save_state"]) == 8
    assert len(done["_asked"]) >= 3
    # Less than one transaction for each event: a description, two epochs and an end of each trial.
    assert len(done["save"]) <= 8 * 4
