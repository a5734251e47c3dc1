"""The process that trains candidates for a search: takes tasks from a pipe, and reports every epoch.

It writes checkpoints and nothing else of the run: the study belongs to the process that started it. Where that
one has gone, the training is stopped at the next batch, with its checkpoint.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from se_nas.architecture import Architecture
from se_nas.data import ImageData
from se_nas.errors import DiskError
from se_nas.run import writing
from se_nas.study.executors._deadline import Deadline
from se_nas.study.executors.task import CandidateTrainer, Curve, Setup, Task, failure
from se_nas.study.images import load_images
from se_nas.study.interrupts import SIGNALS
from se_nas.training import FALLBACKS, Runtime

# Messages to a worker are tuples that begin with one of these, and so are its answers.
TRAIN, GO_ON, PAUSE, RESUME, STOP, EXIT = "train", "go on", "pause", "resume", "stop", "exit"
EPOCH, PAUSED, DONE, BROKEN, DISK = "epoch", "paused", "done", "broken", "disk"


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


def work(pipe: Connection, values: Mapping[str, Any], threads: int, lock: Path) -> None:
    """Train what the pipe asks for until it says EXIT or is closed.

    Args:
        pipe: this end of the pipe.
        values: ``sendable`` of what all trainings share.
        threads: of torch, as in the parent, so that results on a CPU are those of training there.
        lock: a file that is held locked while this process lives.
    """
    # Ctrl-C reaches every process of a terminal, Slurm's warning every one of a job; what to do the parent says.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    # An error of the pipe: the parent has gone, and nobody is left to report to.
    with suppress(EOFError, OSError):
        try:
            _serve(pipe, values, FileLock(lock))
        except DiskError as error:
            pipe.send((DISK, str(error)))


def _serve(pipe: Connection, values: Mapping[str, Any], lock: FileLock) -> None:
    with writing(lock.lock_file):
        lock.acquire()
    with lock:
        try:
            worker = _Worker(pipe, received(values))
        except Exception as error:
            pipe.send((BROKEN, failure(error)["error"]))
            return
        worker.run()


class _Worker:
    def __init__(self, pipe: Connection, setup: Setup) -> None:
        self._pipe, self._setup = pipe, setup
        self._trainer = CandidateTrainer(setup)
        self._stopping = self._alone = False
        self._deadline = Deadline(setup.config.candidate_seconds, setup.folder)

    def run(self) -> None:
        while True:
            kind, *content = self._pipe.recv()
            if kind == EXIT:
                return
            # What else comes while nothing is trained was sent before the last result had arrived.
            if kind == TRAIN:
                self._train(*content)

    def _train(self, values: Mapping[str, Any], learned: Mapping[str, Any]) -> None:
        self._stopping = False
        for name, value in learned.items():
            setattr(self._setup.runtime, name, value)
        task = unpack(values)
        with self._deadline.within(task.number):
            outcome = self._trainer.train(task, self._epoch, self._stop)
        if not self._alone:
            self._pipe.send((DONE, outcome, learned_by(self._setup)))

    def _epoch(self, curve: Curve, metrics: dict[str, Any]) -> bool:
        try:
            if not self._alone:
                self._pipe.send((EPOCH, curve, metrics))
            while not self._alone:
                kind, *content = self._pipe.recv()
                if kind == GO_ON:
                    return bool(content[0])
                self._obey(kind)
        except (EOFError, OSError):
            self._stopping = self._alone = True
        return True

    def _stop(self) -> bool:
        """Polled between batches: does what the parent has asked for."""
        try:
            while not self._alone and self._pipe.poll():
                self._obey(self._pipe.recv()[0])
        except (EOFError, OSError):
            self._stopping = self._alone = True
        return self._stopping

    def _obey(self, kind: str) -> None:
        if kind == STOP:
            self._stopping = True
        elif kind == PAUSE:
            if self._setup.runtime.device.startswith("cuda"):
                torch.cuda.synchronize(self._setup.runtime.device)
            with self._deadline.resting():
                self._pipe.send((PAUSED,))
                while kind != RESUME:
                    kind = self._pipe.recv()[0]
                    self._stopping |= kind == STOP


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
