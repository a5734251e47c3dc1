"""Worker processes of a search on one machine, and the parent's hold on them.

The parent alone asks the sampler, writes the study and measures latency. Each worker trains one candidate at a
time. A worker that dies, however it dies, is noticed at once by its process handle, and its candidate is given
to a new one, which goes on from the last checkpoint.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
from filelock import FileLock, Timeout

from se_nas.errors import RunError
from se_nas.study.executors.task import Curve, Job, Setup
from se_nas.study.executors.worker import (
    BROKEN,
    DONE,
    EPOCH,
    EXIT,
    GO_ON,
    PAUSE,
    PAUSED,
    RESUME,
    STOP,
    TRAIN,
    learned_by,
    pack,
    sendable,
    work,
)
from se_nas.training import FALLBACKS

MOST_DEATHS = 3
"""Workers that one candidate may cost before it counts as failed."""
POLL_SECONDS = 0.5
EXIT_SECONDS = 20.0
ORPHAN_SECONDS = 120
_LOCKS = "worker-*.lock"


@dataclass(frozen=True, kw_only=True)
class EpochEnded:
    """A candidate has been trained for one more epoch; ``Pool.answer`` lets it go on."""

    job: Job
    curve: Curve
    metrics: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A training has ended; ``fields`` are those of ``CandidateTrainer.train`` or of ``failure``."""

    job: Job
    fields: dict[str, Any]


@dataclass(eq=False)
class _Member:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None
    resting: bool = False


@dataclass
class Pool:
    """Up to ``size`` processes that train candidates.

    Args:
        setup: what all trainings share.
        size: processes at most; they are started when they are first needed.
        folder: of the run, for the locks that say which workers live.
        say: told when a worker has died.
    """

    setup: Setup
    size: int
    folder: Path
    say: Callable[[str], object]
    _members: list[_Member] = field(default_factory=list)
    _events: list[EpochEnded | Trained] = field(default_factory=list)
    _deaths: dict[int, int] = field(default_factory=dict)
    _orphaned: list[Job] = field(default_factory=list)
    _paused: bool = False
    _started: int = 0
    _stopping: bool = False

    @property
    def jobs(self) -> list[Job]:
        """What is being trained, or has been and was not yet told by ``next_event``."""
        busy = [member.job for member in self._members if member.job is not None]
        ended = [event.job for event in self._events if isinstance(event, Trained)]
        return [*busy, *self._orphaned, *ended]

    @property
    def has_room(self) -> bool:
        return len(self.jobs) < self.size

    def start(self, job: Job) -> int:
        """Give a candidate to a free worker; returns its process id."""
        member = next((member for member in self._members if member.job is None), None)
        if member is not None and not member.process.is_alive():
            self._bury(member)
            member = None
        if member is None:
            member = self._spawn()
        member.job = job
        try:
            member.pipe.send((TRAIN, pack(job), learned_by(self.setup)))
        except OSError:
            self._bury(member)
            return self.start(job)
        assert member.process.pid is not None
        return member.process.pid

    def next_event(self) -> EpochEnded | Trained | None:
        """The next thing that happened; None where nothing did for half a second."""
        if not self._events:
            self._collect(POLL_SECONDS)
        return self._events.pop(0) if self._events else None

    def answer(self, job: Job, goes_on: bool) -> None:
        """Let a candidate train on after an epoch, or end it early."""
        for member in self._members:
            if member.job == job:
                self._send(member, (GO_ON, goes_on))

    def stop(self) -> None:
        """Ask every training to end at its next batch, as unfinished."""
        if not self._stopping:
            self._stopping = True
            for member in self._members:
                if member.job is not None:
                    self._send(member, (STOP,))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While entered, all trainings wait at a batch and the device is idle."""
        asked = [member for member in self._members if member.job is not None]
        self._paused = True
        for member in asked:
            member.resting = False
            self._send(member, (PAUSE,))
        try:
            while any(self._works(member) for member in asked):
                self._collect(POLL_SECONDS)
            yield
        finally:
            self._paused = False
            for member in asked:
                self._send(member, (RESUME,))
            while self._orphaned and not self._stopping:
                self.start(self._orphaned.pop())

    def close(self, *, kill: bool = False) -> None:
        """End all workers: those at rest by asking, the others by force."""
        for member in self._members:
            if kill or member.job is not None:
                member.process.kill()
            else:
                self._send(member, (EXIT,))
        end = time.monotonic() + EXIT_SECONDS
        for member in self._members:
            member.process.join(max(0.0, end - time.monotonic()))
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
            member.pipe.close()
        self._members.clear()
        for lock in self.folder.glob(_LOCKS):
            lock.unlink(missing_ok=True)

    def _works(self, member: _Member) -> bool:
        return member in self._members and member.job is not None and not member.resting

    def _spawn(self) -> _Member:
        context = torch.multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        lock = self.folder / f"worker-{self._started}.lock"
        self._started += 1
        process = context.Process(
            target=work,
            args=(theirs, sendable(self.setup), torch.get_num_threads(), lock),
            name=f"se-nas worker {self._started}",
            daemon=False,
        )
        with _without_interrupts():
            process.start()
        theirs.close()
        member = _Member(process=process, pipe=ours)
        self._members.append(member)
        return member

    def _collect(self, seconds: float) -> None:
        """Take in what workers have sent, and notice those that have died."""
        busy = {member.pipe: member for member in self._members if member.job is not None}
        handles = [member.process.sentinel for member in busy.values()]
        ready = wait([*busy, *handles], seconds)
        for pipe, member in busy.items():
            if pipe in ready or member.process.sentinel in ready:
                self._read(member)

    def _read(self, member: _Member) -> None:
        try:
            while member.job is not None and member.pipe.poll():
                self._take(member, member.pipe.recv())
        except (EOFError, OSError):
            pass
        else:
            if member.process.is_alive() or member.job is None:
                return
        self._replace(member)

    def _take(self, member: _Member, message: tuple[Any, ...]) -> None:
        kind, *content = message
        assert member.job is not None
        if kind == PAUSED:
            member.resting = True
        elif kind == EPOCH:
            self._events.append(EpochEnded(job=member.job, curve=content[0], metrics=content[1]))
        elif kind == DONE:
            self._learn(content[1])
            self._finish(member, content[0])
        elif kind == BROKEN:
            raise RunError(f"a worker could not begin: {content[0]}")

    def _finish(self, member: _Member, fields: dict[str, Any]) -> None:
        assert member.job is not None
        self._events.append(Trained(job=member.job, fields=fields))
        member.job = None

    def _learn(self, learned: dict[str, Any]) -> None:
        runtime = self.setup.runtime
        sizes = [size for size in (runtime.micro_batch, learned["micro_batch"]) if size is not None]
        runtime.micro_batch = min(sizes, default=None)
        for name in FALLBACKS:
            if getattr(runtime, name) and not learned[name]:
                setattr(runtime, name, False)
                setattr(runtime, f"{name}_error", learned[f"{name}_error"])

    def _replace(self, member: _Member) -> None:
        """Bury a worker that died, and give its candidate to a new one."""
        job = member.job
        assert job is not None
        self._bury(member)
        code = member.process.exitcode
        self._deaths[job.number] = deaths = self._deaths.get(job.number, 0) + 1
        if self._stopping:
            fields: dict[str, Any] = {"state": "unfinished"}
        elif deaths >= MOST_DEATHS:
            fields = {
                "state": "failed",
                "error": f"{deaths} workers died of it, the last with exit code {code}",
            }
        else:
            self.say(
                f"the worker of trial {job.number} died (exit code {code}); the trial goes on in a new one"
            )
            # Epochs that it reported and nobody has read yet have no one to be answered to.
            self._events = [event for event in self._events if isinstance(event, Trained) or event.job != job]
            self.start(job)
            return
        self._events.append(Trained(job=job, fields=fields))

    def _bury(self, member: _Member) -> None:
        member.process.join()
        member.pipe.close()
        self._members.remove(member)

    @staticmethod
    def _send(member: _Member, message: tuple[Any, ...]) -> None:
        """A worker that has died is noticed when its answer is waited for."""
        try:
            member.pipe.send(message)
        except OSError:
            return


def wait_for_orphans(folder: Path) -> None:
    """Return when the workers of a search that was killed have ended; they notice it at their next batch.

    Raises:
        RunError: one of them is still there after two minutes.
    """
    for path in folder.glob(_LOCKS):
        lock = FileLock(path, timeout=ORPHAN_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"a worker of the process that was killed still trains in {folder} ({path.name} is held);"
                " end it, then go on."
            ) from None
        lock.release()
        path.unlink(missing_ok=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started inside of this never sees Ctrl-C, not even before it can ignore it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
