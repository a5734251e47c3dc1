"""The process that trains candidates for a search, one at a time or a pack: takes tasks from a pipe, and reports.

It writes checkpoints and nothing else of the run: the study belongs to the process that started it. Where that
one has gone, the training is stopped at the next batch, with its checkpoint.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from se_nas.architecture import Architecture
from se_nas.data import ImageData
from se_nas.errors import DiskError
from se_nas.run import writing
from se_nas.study.executors._deadline import Deadline, Watch
from se_nas.study.executors.base import Executor
from se_nas.study.executors.inline import Inline
from se_nas.study.executors.packed import Packed
from se_nas.study.executors.task import Curve, Setup, Task, failure
from se_nas.study.images import load_images
from se_nas.study.interrupts import SIGNALS
from se_nas.study.packing import Packing
from se_nas.training import FALLBACKS, Runtime
from se_nas.training.masked import Capacity

# Messages to a worker are tuples that begin with one of these, and so are its answers.
TRAIN, GO_ON, PAUSE, RESUME, STOP, EXIT = "train", "go on", "pause", "resume", "stop", "exit"
EPOCH, PAUSED, DONE, BROKEN, DISK = "epoch", "paused", "done", "broken", "disk"
SAY, HANGS = "say", "hangs"


@dataclass(frozen=True, kw_only=True)
class Pack:
    """What a process needs to train a pack.

    Attributes:
        packing: how many candidates train at a time, and on which devices.
        rooms: what masked networks can be; none if each candidate is built.
    """

    packing: Packing
    rooms: Sequence[Capacity]


def timed(setup: Setup, packed: Packed | None, report: Callable[[int], object]) -> tuple[Executor, Deadline]:
    """What trains in this process, with what ends a training that takes too long.

    Args:
        setup: what all trainings share.
        packed: the pack to train; None for one candidate at a time.
        report: is given the number of a trial of the pack that hangs, in another thread.
    """
    seconds = setup.config.candidate_seconds
    if packed is None:
        return Inline(setup), Deadline(seconds, setup.folder)
    # Candidates of a pack are in one process, which must not end for one of them before others know which it is.
    if seconds is not None:
        Watch(lambda: packed.hanging, report, setup.folder, seconds)
    return packed, Deadline(None, setup.folder)


def pack(task: Task) -> dict[str, Any]:
    """A task as plain values."""
    return {
        "number": task.number,
        "architecture": task.architecture.to_dict(),
        "seed": task.seed,
        "phase": task.phase,
    }


def unpack(values: Mapping[str, Any]) -> Task:
    """Inverse of ``pack``."""
    return Task(**{**values, "architecture": Architecture.from_dict(values["architecture"])})


def work(pipe: Connection, values: Mapping[str, Any], threads: int, lock: Path, pack: Pack | None) -> None:
    """Train what the pipe asks for until it says EXIT or is closed.

    Args:
        pipe: this end of the pipe.
        values: ``sendable`` of what all trainings share.
        threads: of torch, as in the parent, so that results on a CPU are those of training there.
        lock: a file that is held locked while this process lives.
        pack: the pack to train; None for one candidate at a time.
    """
    # Ctrl-C reaches every process of a terminal, Slurm's warning every one of a job; what to do the parent says.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    # An error of the pipe: the parent has gone, and nobody is left to report to.
    with suppress(EOFError, OSError):
        try:
            _serve(pipe, values, FileLock(lock), pack)
        except DiskError as error:
            pipe.send((DISK, str(error)))


def _serve(pipe: Connection, values: Mapping[str, Any], lock: FileLock, pack: Pack | None) -> None:
    with writing(lock.lock_file):
        lock.acquire()
    with lock:
        try:
            worker = _Worker(pipe, received(values), pack)
        except Exception as error:
            pipe.send((BROKEN, failure(error)["error"]))
            return
        worker.run()


class _Worker:
    """The listener of an executor in this process: what it hears goes to the parent, which answers."""

    def __init__(self, pipe: Connection, setup: Setup, pack: Pack | None) -> None:
        self._pipe, self._setup = pipe, setup
        self._sending = threading.Lock()
        self._given: list[tuple[Any, ...]] = []
        self._stopping = self._alone = False
        self._answer: bool | None = None
        packed = None
        if pack is not None:
            packed = Packed.planned(setup, pack.packing, pack.rooms, lambda text: self._send(SAY, text))
        self._executor, self._deadline = timed(setup, packed, lambda number: self._send(HANGS, number))

    def run(self) -> None:
        while True:
            while self._given:
                self._submit(*self._given.pop(0))
            if self._executor.tasks:
                self._executor.wait(self)
                self._poll()
                continue
            kind, *content = self._pipe.recv()
            if kind == EXIT:
                return
            # What else comes while nothing is trained was sent before the last result had arrived.
            if kind == TRAIN:
                self._stopping = False
                self._given.append(tuple(content))

    def epoch_ended(self, task: Task, curve: Curve, metrics: Mapping[str, Any]) -> bool:
        self._answer = None
        self._send(EPOCH, task.number, list(curve), dict(metrics))
        while self._answer is None and not self._alone:
            self._obey(*self._receive())
        return self._answer is not False

    def task_ended(self, task: Task, fields: dict[str, Any]) -> None:
        self._send(DONE, task.number, fields, learned_by(self._setup))

    def should_stop(self) -> bool:
        """Polled between batches: does what the parent has asked for."""
        self._poll()
        return self._stopping

    def _submit(self, values: Mapping[str, Any], learned: Mapping[str, Any]) -> None:
        for name, value in learned.items():
            setattr(self._setup.runtime, name, value)
        task = unpack(values)
        with self._deadline.within(task.number):
            self._executor.submit(task, self)

    def _send(self, *message: Any) -> None:
        """Send a message, from any thread; where the parent has gone, the training is to end."""
        if self._alone:
            return
        try:
            with self._sending:
                self._pipe.send(message)
        except OSError:
            self._stopping = self._alone = True

    def _receive(self) -> tuple[Any, ...]:
        """The next message; STOP where the parent has gone."""
        try:
            return tuple(self._pipe.recv())
        except (EOFError, OSError):
            self._stopping = self._alone = True
            return (STOP,)

    def _poll(self) -> None:
        while not self._alone and self._waits():
            self._obey(*self._receive())

    def _waits(self) -> bool:
        """Whether a message does, be it the end of the pipe."""
        try:
            return self._pipe.poll()
        except OSError:
            return True

    def _obey(self, kind: str, *content: Any) -> None:
        if kind == STOP:
            self._stopping = True
        elif kind == TRAIN:
            self._given.append(content)
        elif kind == GO_ON:
            self._answer = bool(content[0])
        elif kind == PAUSE:
            if self._setup.runtime.device.startswith("cuda"):
                torch.cuda.synchronize(self._setup.runtime.device)
            with self._executor.paused(), self._deadline.resting():
                self._send(PAUSED)
                while not self._alone and (other := self._receive())[0] != RESUME:
                    self._obey(*other)


LEARNED = ("micro_batch", *FALLBACKS, *(f"{name}_error" for name in FALLBACKS))


def learned_by(setup: Setup) -> dict[str, Any]:
    """What a training has found out about the machine, for those that follow."""
    return {name: getattr(setup.runtime, name) for name in LEARNED}


def learn(setup: Setup, learned: Mapping[str, Any]) -> None:
    """Take over what a training elsewhere has found out (``learned_by``)."""
    runtime = setup.runtime
    sizes = [size for size in (runtime.micro_batch, learned["micro_batch"]) if size is not None]
    runtime.micro_batch = min(sizes, default=None)
    for name in FALLBACKS:
        if getattr(runtime, name) and not learned[name]:
            setattr(runtime, name, False)
            setattr(runtime, f"{name}_error", learned[f"{name}_error"])


def sendable(setup: Setup) -> dict[str, Any]:
    """A setup as values that go to another process: images in memory are shared, others opened anew there."""
    values = {item.name: getattr(setup, item.name) for item in fields(setup)}
    values["runtime"] = setup.runtime.to_dict()
    if not setup.data.in_memory:
        values["data"] = (setup.data.mean, setup.data.std)
    return values


def received(values: Mapping[str, Any]) -> Setup:
    """Inverse of ``sendable``."""
    data = values["data"]
    if not isinstance(data, ImageData):
        data = load_images(values["config"]).with_statistics(*data)
    return Setup(**{**values, "data": data, "runtime": Runtime.from_dict(values["runtime"])})
