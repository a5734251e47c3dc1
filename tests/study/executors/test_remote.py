"""What a Ray actor is, in this process and without Ray."""

import os
import tempfile
import threading

import numpy as np
import pytest
import torch
from least_manifest import empty_run
from small_cases import SEARCH

import se_nas
from se_nas.errors import RunError
from se_nas.study.executors import Inline, Packed, Task, _deadline, packed, remote, worker
from se_nas.study.executors._mirror import Mirror, files_of, write_files
from se_nas.study.executors._scratch import Scratch
from se_nas.study.executors._travel import Work, check_versions, elsewhere, from_arrays, to_arrays, versions
from se_nas.study.executors.remote import FILES, READY, Remote
from se_nas.study.executors.worker import (
    BROKEN,
    DONE,
    EPOCH,
    GO_ON,
    HANGS,
    RESUME,
    STOP,
    TRAIN,
    learned_by,
    pack,
)
from se_nas.study.packing import capacities
from se_nas.study.plan import resolve


@pytest.fixture
def plan(tmp_path):
    recipe = {**SEARCH["recipe"], "batch_size": 512}
    given = {**SEARCH, "recipe": recipe, "epochs": 2, "executor": "local", "runs": str(tmp_path)}
    return resolve(se_nas.SearchConfig(**given))


@pytest.fixture
def setup(plan, tmp_path):
    return plan.setup(empty_run(tmp_path / "run"))


@pytest.fixture
def actor(setup, tmp_path, monkeypatch):
    """Makes a ``Remote`` of this process, as if on a node that nothing drains."""
    monkeypatch.setattr(remote, "_node_id", lambda: ("a node", "nowhere"))
    monkeypatch.setattr(Remote, "_watch_drain", lambda *of: None)
    probe = tmp_path / "run" / ".ray.0"
    probe.touch()

    def make(images=True, **changes):
        given = {"setup": elsewhere(setup), "fingerprint": setup.data.fingerprint, "versions": versions()}
        work = Work(**{**given, "probe": probe, "places": None, "rooms": (), "threads": 1, **changes})
        return Remote(work, to_arrays(setup.data) if images else None)

    return make


def task_of(plan):
    return Task(number=7, architecture=plan.baselines["all_se_16"], seed=0, phase="search")


def until(made, kind):
    """The events up to one of this kind."""
    found = []
    while not found or found[-1][0] != kind:
        found += made.events()
    return found


class Listener:
    def epoch_ended(self, task, curve, metrics):
        return True

    def task_ended(self, task, fields):
        self.fields = fields

    def should_stop(self):
        return False


def without_seconds(fields):
    curve = [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in fields["curve"]]
    kept = {name: value for name, value in fields.items() if name not in ("seconds", "correct")}
    return {**kept, "curve": curve}


def test_it_trains_as_this_process_does_and_waits_for_an_answer_after_each_epoch(actor, plan, setup):
    made, task = actor(), task_of(plan)
    [(_, _, node, shared)] = until(made, READY)
    assert (node, shared) == ("a node", True)
    made.tell(TRAIN, pack(task), learned_by(setup), {})
    for epoch in (1, 2):
        [(_, number, curve, metrics)] = until(made, EPOCH)
        assert (number, len(curve), curve[-1]) == (7, epoch, metrics)
        made.tell(GO_ON, True)
    [(_, number, fields, learned)] = until(made, DONE)
    assert (number, learned) == (7, learned_by(setup))
    listener = Listener()
    for path in setup.checkpoints.iterdir():
        path.unlink()
    Inline(setup).submit(task, listener)
    assert without_seconds(fields) == without_seconds(listener.fields)
    assert np.array_equal(fields["correct"], listener.fields["correct"])


def test_a_folder_that_it_does_not_see_is_mirrored(actor, plan, setup, tmp_path):
    made, task = actor(probe=tmp_path / "elsewhere"), task_of(plan)
    assert until(made, READY)[-1][3] is False
    made.tell(TRAIN, pack(task), learned_by(setup), {})
    until(made, EPOCH)
    made.tell(STOP)
    made.tell(GO_ON, True)
    events = until(made, DONE)
    assert events[-1][2]["state"] == "unfinished"
    assert not setup.checkpoints.exists()
    for kind, *content in events:
        if kind == FILES:
            write_files(setup.folder, content[0])
    # Another actor, which sees the folder as little, goes on from what has arrived.
    [state] = files_of(setup, task)
    assert state.endswith(".state")
    again = actor(probe=tmp_path / "elsewhere")
    until(again, READY)
    again.tell(TRAIN, pack(task), learned_by(setup), files_of(setup, task))
    assert len(until(again, EPOCH)[-1][2]) == 2
    again.tell(GO_ON, True)
    for kind, *content in until(again, DONE):
        if kind == FILES:
            write_files(setup.folder, content[0])
    assert [path.suffix for path in setup.checkpoints.iterdir()] == [".safetensors"]


def test_a_pause_is_over_when_it_is_told(actor, plan, setup):
    made = actor()
    until(made, READY)
    made.tell(TRAIN, pack(task_of(plan)), learned_by(setup), {})
    until(made, EPOCH)
    made.pause()
    made.tell(GO_ON, True)
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(until(made, EPOCH)))
    reader.start()
    reader.join(0.5)
    assert not seen
    made.tell(RESUME)
    reader.join()
    assert len(seen[-1][2]) == 2
    made.tell(GO_ON, False)
    assert until(made, DONE)[-1][2]["state"] == "stopped"


def test_an_actor_says_who_hangs_in_its_pack_and_the_stacks_travel(actor, plan, setup, tmp_path, monkeypatch):
    ended, never = threading.Event(), threading.Event()
    monkeypatch.setattr(packed, "HANG_SECONDS", 0.0)
    monkeypatch.setattr(_deadline, "KILL_SECONDS", 0.0)
    monkeypatch.setattr(_deadline.os, "_exit", lambda code: ended.set())
    # A loaded machine may keep the thread that watches from running.
    monkeypatch.setattr(worker, "Watch", lambda *given: _deadline.Watch(*given[:3], seconds=3600))
    monkeypatch.setattr(Packed, "_place", lambda *given: never.wait())
    values = elsewhere(setup)
    values["config"] = values["config"].model_copy(update={"candidate_timeout": "1s"})
    rooms = capacities(plan.space, list(plan.baselines.values()))
    made = actor(setup=values, places=2, rooms=rooms, probe=tmp_path / "elsewhere")
    until(made, READY)
    made.tell(TRAIN, pack(task_of(plan)), learned_by(setup), {})
    [*before, hangs] = until(made, HANGS)
    assert hangs == (HANGS, 7)
    [(_, files)] = [event for event in before if event[0] == FILES]
    assert b"in _begin" in files["stacks-of-trial-7.txt"]
    assert ended.wait(60)


def test_what_differs_there_is_named(actor):
    [(_, text)] = until(actor(versions={**versions(), "timm": "0.1"}), BROKEN)
    assert "timm is" in text
    assert "where the search runs it is 0.1; install the same" in text
    with pytest.raises(RunError, match=r"torch is .*, where the search runs it is 2.0"):
        check_versions({**versions(), "torch": "2.0"})
    check_versions(versions())


def test_images_pass_through_memory_that_cannot_be_written(setup):
    arrays = to_arrays(setup.data)
    for name in ("train", "val", "test"):
        for array in arrays[name]:
            array.flags.writeable = False
    data = from_arrays(arrays, copy=False)
    assert data.fingerprint == setup.data.fingerprint
    assert data.class_names == setup.data.class_names
    for name in ("train", "val", "test"):
        here, there = getattr(setup.data, name), getattr(data, name)
        assert torch.equal(here.pixels, there.pixels)
        assert torch.equal(here.labels, there.labels)
        assert here.pixels.data_ptr() == there.pixels.data_ptr()
    # Code that may write to images has its own.
    own = from_arrays(arrays, copy=True)
    own.train.pixels.zero_()
    assert setup.data.train.pixels.any()


def test_a_mirror_names_what_changes(tmp_path):
    mirror = Mirror(tmp_path)
    mirror.take({"checkpoints/a.state": b"one"})
    assert mirror.changed() == {}
    (tmp_path / "checkpoints" / "a.state").write_bytes(b"three")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "b").write_bytes(b"")
    (tmp_path / "checkpoints" / ".a.state.1234").write_bytes(b"not whole")
    assert mirror.changed() == {"checkpoints/a.state": b"three", "logs/b": b""}
    assert mirror.changed() == {}
    os.unlink(tmp_path / "checkpoints" / "a.state")
    assert mirror.changed() == {"checkpoints/a.state": None}
    write_files(tmp_path, {"checkpoints/a.state": b"four", "logs/b": None})
    assert (tmp_path / "checkpoints" / "a.state").read_bytes() == b"four"
    assert not (tmp_path / "logs" / "b").exists()


def test_what_a_killed_process_left_in_the_temporary_folder_is_deleted_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, alive = Scratch(), Scratch()
    for scratch in (killed, alive):
        (scratch.folder / "weights").write_text("large")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("someone's")
    (tmp_path / "se-nas-actor-link.lock").symlink_to(elsewhere)
    # As when its process ends.
    killed._lock.release()
    Scratch()
    assert not killed.folder.exists()
    assert (alive.folder / "weights").read_text() == "large"
    assert elsewhere.read_text() == "someone's"
    assert len(list(tmp_path.glob("se-nas-actor-*.lock"))) == 3
