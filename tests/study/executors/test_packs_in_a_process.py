"""A pack in a process of its own, so that a candidate that hangs can be ended and the others go on."""

import multiprocessing
import os
import signal
import threading
import time

import pytest
from least_manifest import empty_run
from small_cases import SEARCH, table

import se_nas
from se_nas.study import schedule, search
from se_nas.study.executors import Task, _deadline, make_executor
from se_nas.study.executors._deadline import Watch
from se_nas.study.packing import Packing, capacities
from se_nas.study.plan import resolve
from se_nas.study.progress import Progress

PACKING = Packing(places=3, devices=("cpu",), packed=True, masked=True, reason="by the test")
LOGGERS = """
import os, time

class Hangs:
    \"\"\"In the second epoch of a candidate, as long as the file that names it exists.\"\"\"

    def __init__(self, folder):
        pass

    def on_epoch(self, name, epoch, metrics):
        while epoch == 2 and os.path.exists(os.path.join(os.environ["HANGS"], name)):
            time.sleep(0.1)

    def on_end(self, name, result):
        pass

class Dies(Hangs):
    def on_epoch(self, name, epoch, metrics):
        if os.path.exists(os.path.join(os.environ["HANGS"], name)):
            os._exit(3)
"""
RESULT = ("key", "seed", "state", "accuracy", "loss", "num_params", "epochs")


class Heard(Progress):
    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


class Listener:
    """Kills the process at the second epoch of ``victim``, once the state after its first is on disk."""

    def __init__(self, victim=None, states=None):
        self.victim, self.states, self.ended, self.order = victim, states, {}, []

    def epoch_ended(self, task, curve, metrics):
        self.order.append((task.number, len(curve)))
        if (task, len(curve)) == (self.victim, 2):
            self.victim = None
            while not list(self.states.glob(f"{task.architecture.key}-*.state")):
                time.sleep(0.05)
            [worker] = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGKILL)
        return True

    def task_ended(self, task, fields):
        self.ended[task.number] = fields

    def should_stop(self):
        return False


@pytest.fixture
def given(tmp_path, monkeypatch):
    (tmp_path / "loggers_of_the_test.py").write_text(LOGGERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HANGS", str(tmp_path))
    recipe = {**SEARCH["recipe"], "batch_size": 512}
    settings = {"objectives": "accuracy,params", "runs": str(tmp_path / "runs"), "epochs": 2}
    return {**SEARCH, **settings, "recipe": recipe}


@pytest.fixture
def pack(given, tmp_path):
    """Makes the executor of a pack of three in a process, and its first three candidates."""
    made = []

    def make(**changes):
        plan = resolve(se_nas.SearchConfig(**{**given, "candidate_timeout": "10m", **changes}))
        setup, said = plan.setup(empty_run(tmp_path / f"run-{len(made)}")), []
        rooms = capacities(plan.space, list(plan.baselines.values()))
        made.append(make_executor(setup, PACKING, rooms, said.append))
        tasks = [
            Task(number=number, architecture=plan.baselines[name], seed=0, phase="search")
            for number, name in enumerate(("plain", "all_se_16", "last_stage"))
        ]
        return made[-1], tasks, said

    yield make
    for executor in made:
        executor.close(kill=True)


def run(executor, tasks, listener):
    for task in tasks:
        executor.submit(task, listener)
    while executor.tasks:
        executor.wait(listener)
    return {
        number: {name: value for name, value in fields.items() if name in RESULT}
        for number, fields in listener.ended.items()
    }


def test_a_process_that_is_killed_is_replaced_and_all_of_its_candidates_go_on(pack):
    here, tasks, _ = pack(candidate_timeout=None)
    expected = run(here, tasks, Listener())
    killed, tasks, said = pack()
    listener = Listener(tasks[0], killed._setup.checkpoints)
    assert run(killed, tasks, listener) == expected
    assert {fields["state"] for fields in expected.values()} == {"complete"}
    assert said == [
        f"the worker of trial {number} died (exit code -9); the trial continues in a new one"
        for number in range(3)
    ]
    assert listener.order.count((0, 1)) == 1
    assert listener.order.count((0, 2)) == 2


@pytest.mark.slow
def test_one_that_ends_its_process_is_found_out_and_the_others_complete(pack, tmp_path):
    executor, tasks, _ = pack(log=["loggers_of_the_test:Dies"])
    (tmp_path / tasks[1].architecture.key).touch()
    listener = Listener()
    run(executor, tasks, listener)
    assert {number: fields["state"] for number, fields in listener.ended.items()} == {
        0: "complete",
        1: "failed",
        2: "complete",
    }
    assert listener.ended[1]["error"] == "3 workers died of it, the last with exit code 3"
    assert executor.tasks == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_that_hangs_is_ended_with_its_stacks_and_the_others_go_on_from_their_last_states(
    given, tmp_path, monkeypatch
):
    monkeypatch.setattr(schedule, "decide_packing", lambda *args: PACKING)
    given |= {"trials": 5, "final_seeds": 0, "keep": "none", "sampler": "random"}
    quiet = table(search(se_nas.SearchConfig(**given, name="quiet")).path)
    hanging = next(row for row in quiet if row["baseline"] == "all_se_16")
    (tmp_path / hanging["key"]).touch()
    heard, given["log"] = Heard(), ["loggers_of_the_test:Hangs"]
    # Long enough for what does not hang on any machine.
    run = search(se_nas.SearchConfig(**given, candidate_timeout="3m", name="hangs"), heard)
    rows = {row["key"]: row for row in table(run.path)}
    assert len(rows) == 5
    failed = rows.pop(hanging["key"])
    assert failed["state"] == "failed"
    stacks = run.path / f"stacks-of-trial-{failed['number']}.txt"
    assert failed["error"] == (
        f"it took longer than candidate_timeout (3m); {stacks.name} shows where it was"
    )
    assert "on_epoch" in stacks.read_text()
    assert [path.name for path in run.path.glob("stacks-*")] == [stacks.name]
    expected = {row["key"]: {name: row[name] for name in RESULT} for row in quiet}
    assert {key: {name: row[name] for name in RESULT} for key, row in rows.items()} == {
        key: expected[key] for key in rows
    }
    [said] = [text for text in heard.messages if "hangs and its process was ended" in text]
    assert said.startswith(f"trial {failed['number']} hangs")
    assert not multiprocessing.active_children()


def test_a_watch_writes_the_stacks_reports_and_ends_the_process_if_nobody_else_does(tmp_path, monkeypatch):
    ended, reported, hanging = threading.Event(), [], []
    monkeypatch.setattr(_deadline, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(_deadline, "KILL_SECONDS", 0.01)
    monkeypatch.setattr(_deadline.os, "_exit", lambda code: ended.set())

    def report(number):
        reported.append((number, (tmp_path / "stacks-of-trial-7.txt").read_text()))

    Watch(lambda: hanging[0] if hanging else None, report, tmp_path, seconds=3600)
    time.sleep(0.05)
    assert not reported
    hanging.append(7)
    assert ended.wait(60)
    [(number, stacks)] = reported
    assert number == 7
    assert "test_a_watch_writes_the_stacks" in stacks


def test_a_disk_that_refuses_the_stacks_does_not_keep_the_process(tmp_path, monkeypatch):
    ended, reported = threading.Event(), []
    monkeypatch.setattr(_deadline, "KILL_SECONDS", 0.01)
    monkeypatch.setattr(_deadline.os, "_exit", lambda code: ended.set())
    Watch(lambda: 7, reported.append, tmp_path / "no such folder", seconds=3600)
    assert ended.wait(60)
    assert reported == [7]
