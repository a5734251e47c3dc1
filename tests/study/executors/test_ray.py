"""Candidates that train on a Ray cluster: three nodes on this machine, some of which go."""

import os
import subprocess
import sys
import threading
import time

import pytest
from least_manifest import empty_run
from small_cases import SEARCH, search_script, table

import se_nas
from se_nas.errors import ConfigError, RunError
from se_nas.run import ROW_FIELDS, RunFolder
from se_nas.study import ray_cluster, resume, search, session
from se_nas.study.executors import Inline, Task, make_executor
from se_nas.study.executors._actors import Actors
from se_nas.study.executors.process_pool import MOST_DEATHS
from se_nas.study.executors.ray import RayExecutor
from se_nas.study.executors.worker import HANGS
from se_nas.study.packing import Packing, capacities
from se_nas.study.plan import resolve
from se_nas.study.progress import Progress
from se_nas.study.ray_cluster import actors_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

OF_A_RUN = ("number", "seconds", "started", "finished", "elapsed", "curve")


@pytest.fixture
def small(tmp_path):
    def make(**changes):
        given = {**SEARCH, "sampler": "random", "epochs": 2, "runs": str(tmp_path / "runs")}
        return se_nas.SearchConfig(**{**given, **changes})

    return make


class Watch(Progress):
    def __init__(self, at=lambda row, metrics: None):
        self.at, self.messages = at, []

    def message(self, text):
        self.messages.append(text)

    def epoch(self, row, metrics):
        self.at(row, metrics)


class Listener:
    """Calls ``at(number, epochs)`` after every epoch, and keeps how each training ended."""

    def __init__(self, at=lambda number, epochs: None):
        self.at, self.stop, self.epochs, self.ended = at, False, [], {}

    def epoch_ended(self, task, curve, metrics):
        self.epochs.append((task.number, len(curve)))
        self.at(task.number, len(curve))
        return True

    def task_ended(self, task, fields):
        self.ended[task.number] = fields

    def should_stop(self):
        return self.stop


def results(path):
    """What came of each candidate of the search."""
    rows = [row for row in table(path) if row["phase"] == "search"]
    return {row["key"]: {name: row[name] for name in ROW_FIELDS if name not in OF_A_RUN} for row in rows}


def numbers(actor):
    return [task.number for task in actor.tasks]


def curve_of(fields):
    return [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in fields["curve"]]


@pytest.fixture
def executor(small, tmp_path, cluster):
    """A ``RayExecutor`` with its plan, and what it has said."""
    plan = resolve(small(executor="ray", epochs=3))
    said = []
    made = RayExecutor(plan.setup(empty_run(tmp_path / "run")), plan.packing, (), said.append)
    made.plan, made.said = plan, said
    yield made
    made.close(kill=True)


def begin(executor, listener, *baselines):
    for number, name in enumerate(baselines):
        task = Task(number=number, architecture=executor.plan.baselines[name], seed=0, phase="search")
        executor.submit(task, listener)


def drain(executor, listener, seconds=240):
    end = time.monotonic() + seconds
    while executor.tasks:
        assert time.monotonic() < end, executor.said
        executor.wait(listener)


def alone(plan, folder, name):
    """The fields of a baseline that is trained in this process."""
    executor = Inline(plan.setup(empty_run(folder)))
    listener = Listener()
    executor.submit(Task(number=0, architecture=plan.baselines[name], seed=0, phase="search"), listener)
    return listener.ended[0]


def test_results_are_those_of_one_process_even_if_a_node_is_killed_in_mid_epoch(small, cluster, monkeypatch):
    made, killed = [], []
    monkeypatch.setattr(
        session, "make_executor", lambda *given: made.append(make_executor(*given)) or made[-1]
    )

    def kill(row, metrics):
        """A moment after it was told to go on with its second epoch; the driver is on the first node."""
        [node] = [actor.node for actor in made[0]._members if row["number"] in numbers(actor)]
        others = [other for other in cluster.worker_nodes if other.node_id == node]
        if others and not killed:
            killed.append(row["number"])
            threading.Timer(0.1, cluster.remove_node, others, {"allow_graceful": False}).start()

    watch = Watch(kill)
    spread = search(small(trials=4, final_seeds=0, epochs=5, executor="ray", name="spread"), watch)
    expected = f"was lost; trial {killed[0]} continues in another actor"
    assert [text for text in watch.messages if expected in text], watch.messages
    here = search(small(trials=4, final_seeds=0, epochs=5, name="here"))
    assert results(spread.path) == results(here.path)
    manifest = RunFolder.open(spread.path).manifest
    assert manifest.executor["name"] == "ray"
    assert manifest.executor["resources"] == {"CPU": 1.0}
    assert manifest.packing["actors"] == 3
    assert not list(spread.path.glob(".ray.*"))


def test_without_a_shared_folder_a_checkpoint_travels(executor, tmp_path):
    executor._actors._probe.unlink()
    states = executor._setup.checkpoints

    def kill(number, epochs):
        # The state of an epoch is written after the epoch is reported, and arrives with the next event.
        if epochs == 2 and not executor.said:
            assert [path.suffix for path in states.iterdir()] == [".state"]
            executor._ray.kill(executor._members[-1].handle)

    listener = Listener(kill)
    begin(executor, listener, "all_se_16")
    drain(executor, listener)
    assert [text for text in executor.said if "died; the trial continues" in text]
    assert listener.epochs == [(0, 1), (0, 2), (0, 2), (0, 3)]
    assert listener.ended[0]["state"] == "complete"
    assert curve_of(listener.ended[0]) == curve_of(alone(executor.plan, tmp_path / "alone", "all_se_16"))
    assert [path.suffix for path in states.iterdir()] == [".safetensors"]


def test_a_pack_of_which_one_hangs_goes_on_without_it_in_another_actor(small, cluster, tmp_path, monkeypatch):
    """What an actor says of a candidate that hangs is tested without Ray."""
    monkeypatch.setattr(Actors, "most", 1)
    plan, said = resolve(small(executor="ray", epochs=3, candidate_timeout="10m")), []
    packing = Packing(places=2, devices=("cpu",), packed=True, masked=True, reason="").trained_by(1)
    rooms = capacities(plan.space, list(plan.baselines.values()))
    executor = make_executor(plan.setup(empty_run(tmp_path / "run")), packing, rooms, said.append)
    executor.plan, executor.said, listener = plan, said, Listener()
    begin(executor, listener, "plain", "all_se_16")
    while not listener.epochs:
        executor.wait(listener)
    [member] = executor._members
    assert numbers(member) == [0, 1]
    executor._take(member, HANGS, [1], listener)
    assert executor._members == []
    drain(executor, listener)
    assert listener.ended[1] == {
        "state": "failed",
        "error": "it took longer than candidate_timeout (10m)",
    }
    assert listener.ended[0]["state"] == "complete"
    assert said == [
        "trial 1 hangs and its process was ended; 1 trial beside it continues in a new one",
    ]
    executor.close(kill=True)


def test_a_node_that_is_drained_is_left(executor, cluster, tmp_path):
    import ray
    from ray._raylet import GcsClient

    gone = []

    def leave(number, epochs):
        if not gone:
            gone.append(executor._members[-1].node)
            client = GcsClient(address=ray.get_runtime_context().gcs_address)
            preempted, soon = 2, int((time.time() + 600) * 1000)
            assert client.drain_node(gone[0], preempted, "a test", soon)[0]

    listener = Listener(leave)
    names = ("plain", "all_se_16")
    begin(executor, listener, *names)
    assert executor.capacity == 3
    while executor.capacity == 3:
        executor.wait(listener)
        if not executor.tasks:
            # Both may have ended before the node noticed; an idle actor leaves too.
            time.sleep(0.5)
    drain(executor, listener)
    assert executor.capacity == 2
    assert [text for text in executor.said if "is draining a node" in text]
    assert not [member for member in executor._members if member.node in gone and member.tasks]
    for number, name in enumerate(names):
        assert curve_of(listener.ended[number]) == curve_of(alone(executor.plan, tmp_path / name, name))


def test_only_actors_that_no_node_took_along_count_as_unable_to_start(executor, cluster):
    def bury(actor):
        executor._members.append(actor)
        executor._bury(actor, RuntimeError("it died"), Listener())

    starting = executor._actors.start()
    assert not executor._actors.is_lost(starting)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    end = time.monotonic() + 60
    while not executor._actors.is_lost(starting):
        assert time.monotonic() < end
        time.sleep(0.2)
    for _ in range(MOST_DEATHS):
        bury(starting)
    for _ in range(MOST_DEATHS - 1):
        bury(executor._actors.start())
    with pytest.raises(RunError, match=f"{MOST_DEATHS} Ray actors died before they could start, .*it died"):
        bury(executor._actors.start())


def test_nodes_that_join_are_used(executor, cluster):
    assert executor.capacity == 3
    cluster.add_node(num_cpus=2, object_store_memory=100 * 2**20)
    end = time.monotonic() + 60
    while executor.capacity != 5:
        assert time.monotonic() < end
        time.sleep(0.2)


def wait_until_described():
    """Ray describes a cluster some seconds after its begin."""
    end = time.monotonic() + 120
    while not ray_cluster.is_static():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_node_that_is_joining_is_waited_for(small, cluster):
    said = []

    def bring(text):
        said.append(text)
        cluster.add_node(num_cpus=1, resources={"edge": 2}, object_store_memory=100 * 2**20)

    wait_until_described()
    config = small(executor="ray", ray_resources="CPU=1,edge=1")
    assert actors_of(config, "cpu", bring) == 1
    assert len(said) == 1
    assert said[0].startswith("no node of the Ray cluster has CPU=1,edge=1 for a candidate; its 3 nodes have")
    assert said[0].endswith("Waiting 15 seconds for one that is joining")
    assert actors_of(config, "cpu", bring) == 1
    assert len(said) == 1


def test_a_cluster_that_nobody_enlarges_is_refused(small, cluster, monkeypatch):
    monkeypatch.setattr(ray_cluster, "JOIN_SECONDS", 1.5)
    wait_until_described()
    with pytest.raises(
        ConfigError, match=r"has CPU=1,edge=1 for a candidate; .* has no autoscaler: join such"
    ):
        actors_of(small(executor="ray", ray_resources="CPU=1,edge=1"), "cpu", [].append)


def test_a_cluster_with_an_autoscaler_is_waited_for_until_it_does_not_grow(small, cluster, monkeypatch):
    """Something that needs a place is what an autoscaler sees."""
    monkeypatch.setattr(ray_cluster, "is_static", lambda: False)
    monkeypatch.setattr(ray_cluster, "GROW_SECONDS", 1.5)
    said = []
    with pytest.raises(ConfigError, match=r"has CPU=1,edge=1 for a candidate; .* None has joined within"):
        actors_of(small(executor="ray", ray_resources="CPU=1,edge=1"), "cpu", said.append)
    assert len(said) == 1
    assert "which Ray's autoscaler is asked for" in said[0]


def test_a_search_whose_driver_is_killed_goes_on_elsewhere(small, tmp_path, cluster):
    config = small(trials=4, final_seeds=0, epochs=3, executor="ray", name="killed")
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    command = [sys.executable, "-c", search_script(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line.split()[1:] == ["2"]:
                break
        process.kill()
    run = resume(tmp_path / "runs" / "killed", executor="local")
    assert RunFolder.open(run.path).manifest.executor is None
    assert RunFolder.open(run.path).config["executor"] == "local"
    here = search(small(trials=4, final_seeds=0, epochs=3, name="here"))
    assert results(run.path) == results(here.path)
