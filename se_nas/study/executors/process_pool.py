"""Worker processes of a search on one machine, and the parent's hold on them.

The parent alone asks the sampler, writes the study and measures latency. Each worker trains one candidate at a
time. A worker that dies, however it dies, is noticed at once by its process handle, and its candidate is given
to a new one, which goes on from the last checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from se_nas.errors import DiskError, RunError
from se_nas.study.executors._deadline import KILL_SECONDS, too_late
from se_nas.study.executors._processes import UNGUARDED, remove_locks, start_worker
from se_nas.study.executors.base import Listener
from se_nas.study.executors.task import Curve, Setup, Task
from se_nas.study.executors.worker import (
    BROKEN,
    DISK,
    DONE,
    EPOCH,
    EXIT,
    GO_ON,
    PAUSE,
    PAUSED,
    RESUME,
    STOP,
    TRAIN,
    learn,
    learned_by,
    pack,
)

_log = logging.getLogger(__name__)

MOST_DEATHS = 3
"""Workers that one candidate may cost without ending an epoch before it counts as failed."""
POLL_SECONDS = 0.5
EXIT_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class _EpochEnded:
    """A candidate has been trained for one more epoch; its worker waits for the answer."""

    task: Task
    curve: Curve
    metrics: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """A training has ended; ``fields`` are those of ``CandidateTrainer.train`` or of ``failure``."""

    task: Task
    fields: dict[str, Any]


@dataclass(eq=False)
class _Member:
    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    resting: bool = False
    deadline: float | None = None


class ProcessPool:
    """An ``Executor`` of up to ``capacity`` processes, started when they are first needed.

    Args:
        setup: what all trainings share.
        capacity: processes at most.
        say: is given a line when a worker has died.
    """

    def __init__(self, setup: Setup, capacity: int, say: Callable[[str], object]) -> None:
        self.capacity = capacity
        self._setup, self._say = setup, say
        self._members: list[_Member] = []
        self._events: list[_EpochEnded | _Ended] = []
        self._deaths: dict[int, int] = {}
        self._started = 0
        self._stopping = False

    @property
    def tasks(self) -> list[Task]:
        busy = [member.task for member in self._members if member.task is not None]
        return [*busy, *(event.task for event in self._events if isinstance(event, _Ended))]

    def submit(self, task: Task, listener: Listener) -> Mapping[str, Any]:
        """Give a candidate to a free worker."""
        return {"worker": self._start(task).process.pid}

    def wait(self, listener: Listener) -> None:
        if listener.should_stop():
            self._stop()
        if not self._events:
            self._collect(POLL_SECONDS)
        if not self._events:
            return
        event = self._events.pop(0)
        if isinstance(event, _Ended):
            listener.task_ended(event.task, event.fields)
        else:
            goes_on = listener.epoch_ended(event.task, event.curve, event.metrics)
            for member in self._members:
                if member.task == event.task:
                    self._send(member, (GO_ON, goes_on))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While entered, all trainings wait at a batch and the device is idle."""
        began = time.monotonic()
        asked = [member for member in self._members if member.task is not None]
        for member in asked:
            member.resting = False
            self._send(member, (PAUSE,))
        try:
            while any(self._works(member) for member in asked):
                self._collect(POLL_SECONDS)
            yield
        finally:
            rested = time.monotonic() - began
            for member in asked:
                if member.deadline is not None:
                    member.deadline += rested
                self._send(member, (RESUME,))

    def close(self, *, kill: bool = False) -> None:
        """End all workers: those at rest by asking, the others by force."""
        for member in self._members:
            if kill or member.task is not None:
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
        remove_locks(self._setup.folder)

    def _start(self, task: Task) -> _Member:
        member = next((member for member in self._members if member.task is None), None)
        if member is not None and not member.process.is_alive():
            self._bury(member)
            member = None
        if member is None:
            member = self._spawn()
        member.task = task
        limit = self._setup.config.candidate_seconds
        # The worker ends itself, stacks and all; one that cannot even do that is ended here a little later.
        member.deadline = None if limit is None else time.monotonic() + limit
        try:
            member.pipe.send((TRAIN, pack(task), learned_by(self._setup)))
        except OSError:
            self._bury(member)
            return self._start(task)
        return member

    def _stop(self) -> None:
        """Ask every training to end at its next batch, as unfinished."""
        if not self._stopping:
            self._stopping = True
            for member in self._members:
                if member.task is not None:
                    self._send(member, (STOP,))

    def _works(self, member: _Member) -> bool:
        return member in self._members and member.task is not None and not member.resting

    def _spawn(self) -> _Member:
        process, pipe = start_worker(self._setup, self._started)
        self._started += 1
        _log.debug("worker %s started", process.pid)
        member = _Member(process=process, pipe=pipe)
        self._members.append(member)
        return member

    def _collect(self, seconds: float) -> None:
        """Take in what workers have sent, and notice those that have died."""
        busy = {member.pipe: member for member in self._members if member.task is not None}
        handles = [member.process.sentinel for member in busy.values()]
        ready = wait([*busy, *handles], seconds)
        for member in busy.values():
            if member.deadline is not None and time.monotonic() > member.deadline + KILL_SECONDS:
                member.process.kill()
        for pipe, member in busy.items():
            if pipe in ready or member.process.sentinel in ready:
                self._read(member)

    def _read(self, member: _Member) -> None:
        try:
            while member.task is not None and member.pipe.poll():
                self._take(member, member.pipe.recv())
        except (EOFError, OSError):
            pass
        else:
            if member.process.is_alive() or member.task is None:
                return
        self._replace(member)

    def _take(self, member: _Member, message: tuple[Any, ...]) -> None:
        kind, *content = message
        assert member.task is not None
        if kind == PAUSED:
            member.resting = True
        elif kind == EPOCH:
            # Whatever ended its workers so far, it can be trained.
            self._deaths.pop(member.task.number, None)
            self._events.append(_EpochEnded(task=member.task, curve=content[0], metrics=content[1]))
        elif kind == DONE:
            learn(self._setup, content[1])
            self._finish(member, content[0])
        elif kind == BROKEN:
            raise RunError(f"a worker could not start: {content[0]}")
        elif kind == DISK:
            raise DiskError(content[0])

    def _finish(self, member: _Member, fields: dict[str, Any]) -> None:
        assert member.task is not None
        self._events.append(_Ended(task=member.task, fields=fields))
        member.task = None

    def _replace(self, member: _Member) -> None:
        """Bury a worker that died, and give its candidate to a new one."""
        task = member.task
        assert task is not None
        self._bury(member)
        code = member.process.exitcode
        if code == UNGUARDED:
            raise RunError(
                "a script that trains in several processes is imported by each of them:"
                ' call search and resume under  if __name__ == "__main__":'
            )
        if member.deadline is not None and time.monotonic() >= member.deadline:
            self._events.append(
                _Ended(task=task, fields=too_late(self._setup.config, self._setup.folder, task.number))
            )
            return
        self._deaths[task.number] = deaths = self._deaths.get(task.number, 0) + 1
        if self._stopping:
            fields: dict[str, Any] = {"state": "unfinished"}
        elif deaths >= MOST_DEATHS:
            fields = {
                "state": "failed",
                "error": f"{deaths} workers died of it, the last with exit code {code}",
            }
        else:
            self._say(
                f"the worker of trial {task.number} died (exit code {code}); the trial continues in a new one"
            )
            # Epochs that it reported and nobody has read yet have no one to be answered to.
            self._events = [
                event for event in self._events if isinstance(event, _Ended) or event.task != task
            ]
            self._start(task)
            return
        self._events.append(_Ended(task=task, fields=fields))

    def _bury(self, member: _Member) -> None:
        member.process.join()
        member.pipe.close()
        self._members.remove(member)
        _log.debug("worker %s ended with exit code %s", member.process.pid, member.process.exitcode)

    @staticmethod
    def _send(member: _Member, message: tuple[Any, ...]) -> None:
        """A worker that has died is noticed when its answer is waited for."""
        try:
            member.pipe.send(message)
        except OSError:
            return
