"""What an actor of Ray's is: it trains candidates, in a thread, for a driver elsewhere that calls its methods.

It writes checkpoints and nothing else of the run. Where it does not see the run's folder, it trains in one of its
own, and what is written there goes to the driver with the next event.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import ray
import torch

from se_nas.errors import DiskError
from se_nas.study.executors._mirror import Mirror
from se_nas.study.executors._scratch import Scratch
from se_nas.study.executors._travel import Work, check_versions, setup_of
from se_nas.study.executors.packed import Packed
from se_nas.study.executors.task import Curve, Task, failure
from se_nas.study.executors.worker import (
    BROKEN,
    DISK,
    DONE,
    EPOCH,
    GO_ON,
    HANGS,
    PAUSE,
    RESUME,
    SAY,
    STOP,
    TRAIN,
    learned_by,
    timed,
    unpack,
)

READY, FILES, LEAVING = "ready", "files", "leaving"
LOOK_SECONDS = 1.0
"""Between looks for files that are to be sent."""
DRAIN_SECONDS = 5.0
"""Between looks whether Ray drains the node."""
THREADS = {"events": 1, "pause": 1}
"""Of Ray's, by the name of their group."""


class Remote:
    """Its methods are what the driver calls; each returns at once, but ``events`` and ``pause`` wait.

    These two have a thread each, so that calls of one kind stay in order and wait for no other.

    Args:
        work: what all trainings share.
        images: ``to_arrays``, or None if they are read from their path.
    """

    def __init__(self, work: Work, images: Mapping[str, Any] | None) -> None:
        self._inbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._waiting: list[tuple[Any, ...]] = []
        self._stopping = self._draining = False
        self._answer: bool | None = None
        threading.Thread(target=self._run, args=(work, images), daemon=True).start()

    def tell(self, *message: Any) -> None:
        """Take a message of the driver's."""
        self._inbox.put(message)

    @ray.method(concurrency_group="events")
    def events(self) -> list[tuple[Any, ...]]:
        """What has happened since the last call; returns when something has."""
        found = [self._outbox.get()]
        while not self._outbox.empty():
            found.append(self._outbox.get())
        return found

    def reach(self) -> None:
        """Return: so the driver knows that it can be reached."""

    @ray.method(concurrency_group="pause")
    def pause(self) -> None:
        """Return when no training uses the device, until RESUME is told."""
        rests = threading.Event()
        self._inbox.put((PAUSE, rests))
        rests.wait()

    # What follows runs in the thread that trains.

    def _run(self, work: Work, images: Mapping[str, Any] | None) -> None:
        here = socket.gethostname()
        try:
            try:
                torch.set_num_threads(work.threads)
                self._prepare(work, images)
            except Exception as error:
                self._outbox.put((BROKEN, f"on {here}: {failure(error)['error']}"))
                return
            self._serve()
        except DiskError as error:
            self._outbox.put((DISK, f"on {here}: {error}"))

    def _serve(self) -> None:
        while True:
            while self._waiting:
                self._submit(*self._waiting.pop(0))
            if self._executor.tasks:
                self._executor.wait(self)
                self._poll()
            else:
                self._obey(self._inbox.get())

    def _prepare(self, work: Work, images: Mapping[str, Any] | None) -> None:
        check_versions(work.versions)
        shared = work.probe.exists()
        setup = setup_of(work, images)
        self._scratch = None if shared else Scratch()
        self._mirror = None if self._scratch is None else Mirror(self._scratch.folder)
        if self._mirror is not None:
            setup = self._mirror.within(setup)
        self._setup, self._looked = setup, 0.0
        packed = None
        if work.places is not None:
            packed = Packed(setup, work.rooms, work.places, lambda text: self._outbox.put((SAY, text)))
        self._executor, self._deadline = timed(setup, packed, self._report_hanging)
        node = _node_id()
        threading.Thread(target=self._watch_drain, args=node, daemon=True).start()
        self._outbox.put((READY, socket.gethostname(), node[0], shared))

    def _submit(
        self, values: Mapping[str, Any], learned: Mapping[str, Any], files: Mapping[str, Any]
    ) -> None:
        for name, value in learned.items():
            setattr(self._setup.runtime, name, value)
        if self._mirror is not None:
            self._mirror.take(files)
        task = unpack(values)
        with self._deadline.within(task.number):
            self._executor.submit(task, self)

    def epoch_ended(self, task: Task, curve: Curve, metrics: Mapping[str, Any]) -> bool:
        self._send_files()
        self._outbox.put((EPOCH, task.number, list(curve), dict(metrics)))
        self._answer = None
        while self._answer is None:
            self._obey(self._inbox.get())
        return self._answer

    def task_ended(self, task: Task, fields: dict[str, Any]) -> None:
        self._send_files()
        self._outbox.put((DONE, task.number, fields, learned_by(self._setup)))

    def should_stop(self) -> bool:
        """Polled between batches."""
        self._poll()
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._send_files()
            self._looked = time.monotonic()
        return self._stopping or self._draining

    def _poll(self) -> None:
        while not self._inbox.empty():
            self._obey(self._inbox.get())

    def _obey(self, message: tuple[Any, ...]) -> None:
        kind, *content = message
        if kind == TRAIN:
            self._waiting.append(tuple(content))
        elif kind == GO_ON:
            self._answer = bool(content[0])
        elif kind == STOP:
            self._stopping = True
        elif kind == PAUSE:
            if self._setup.runtime.device.startswith("cuda"):
                torch.cuda.synchronize(self._setup.runtime.device)
            with self._deadline.resting():
                content[0].set()
                while (other := self._inbox.get())[0] != RESUME:
                    self._obey(other)

    def _report_hanging(self, number: int) -> None:
        """Called by another thread, while the one that trains does not go on."""
        self._send_files()
        self._outbox.put((HANGS, number))

    def _send_files(self) -> None:
        changed = {} if self._mirror is None else self._mirror.changed()
        if changed:
            self._outbox.put((FILES, changed))

    def _watch_drain(self, node: str, address: str) -> None:
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        client = GcsClient(address=address)
        while node not in client.get_draining_nodes():
            time.sleep(DRAIN_SECONDS)
        # The driver has to know this before a training ends for it.
        self._outbox.put((LEAVING,))
        self._draining = True


def _node_id() -> tuple[str, str]:
    """This node of Ray's, and the address of what knows about all nodes."""
    context = ray.get_runtime_context()
    return context.get_node_id(), context.gcs_address
