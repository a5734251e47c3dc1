"""Worker processes of a search on one machine, and the parent's hold on them.

The parent alone asks the sampler, writes the study and measures latency. Each worker trains one candidate at a
time, or one worker trains a pack of them. A worker that dies, however it dies, is noticed at once by its process
handle, and its candidates are given to a new one, which goes on from the last checkpoints.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from se_nas.errors import DiskError, RunError
from se_nas.study.executors._deadline import KILL_SECONDS, ended_for, too_late
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
    HANGS,
    PAUSE,
    PAUSED,
    RESUME,
    SAY,
    STOP,
    TRAIN,
    Pack,
    learn,
    learned_by,
    pack,
)

_log = logging.getLogger(__name__)

MOST_DEATHS = 3
"""Workers that one candidate may cost without ending an epoch before it counts as failed."""
SUSPECT = 2
"""Deaths after which a candidate trains alone in its process, so that no other is blamed for it."""
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
    tasks: list[Task] = field(default_factory=list)
    resting: bool = False
    deadline: float | None = None

    def task(self, number: int) -> Task:
        return next(task for task in self.tasks if task.number == number)


class ProcessPool:
    """An ``Executor`` of processes, started when they are first needed.

    Args:
        setup: what all trainings share.
        capacity: candidates at a time; as many processes, or one that trains a pack.
        say: is given a line when a worker has died.
        pack: what the one process trains; None for a process for each candidate.
    """

    def __init__(
        self, setup: Setup, capacity: int, say: Callable[[str], object], pack: Pack | None = None
    ) -> None:
        self.capacity = capacity
        self._setup, self._say, self._pack = setup, say, pack
        self._most, self._places = (capacity, 1) if pack is None else (1, capacity)
        self._members: list[_Member] = []
        self._waiting: list[Task] = []
        self._events: list[_EpochEnded | _Ended] = []
        self._deaths: dict[int, int] = {}
        self._started = 0
        self._stopping = self._pausing = False

    @property
    def tasks(self) -> list[Task]:
        busy = [task for member in self._members for task in member.tasks]
        ended = [event.task for event in self._events if isinstance(event, _Ended)]
        return [*busy, *self._waiting, *ended]

    def submit(self, task: Task, listener: Listener) -> Mapping[str, Any]:
        """Give a candidate to a worker with a free place; behind one that waits, it waits too."""
        self._waiting.append(task)
        self._place()
        member = next((member for member in self._members if task in member.tasks), None)
        return {} if member is None else {"worker": member.process.pid}

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
                if event.task in member.tasks:
                    self._send(member, (GO_ON, goes_on))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While entered, all trainings wait at a batch and the device is idle."""
        began, self._pausing = time.monotonic(), True
        asked = [member for member in self._members if member.tasks]
        for member in asked:
            member.resting = False
            self._send(member, (PAUSE,))
        try:
            while any(self._works(member) for member in asked):
                self._collect(POLL_SECONDS)
            yield
        finally:
            rested, self._pausing = time.monotonic() - began, False
            for member in asked:
                if member.deadline is not None:
                    member.deadline += rested
                self._send(member, (RESUME,))
            self._place()

    def close(self, *, kill: bool = False) -> None:
        """End all workers: those at rest by asking, the others by force."""
        for member in self._members:
            if kill or member.tasks:
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
        self._waiting.clear()
        remove_locks(self._setup.folder)

    def _place(self) -> None:
        """Give waiting candidates, in their order, to workers with a place; while the device is to be idle, to none."""
        while self._waiting and not self._pausing:
            member = self._member_for(self._waiting[0])
            if member is None:
                return
            self._begin(member, self._waiting.pop(0))

    def _member_for(self, task: Task) -> _Member | None:
        """A worker with a place for a candidate; None if there is none now."""
        for member in list(self._members):
            if not member.tasks and not member.process.is_alive():
                self._bury(member)
            elif not member.tasks:
                return member
            elif len(member.tasks) < self._places:
                deaths = (self._deaths.get(other.number, 0) for other in (task, *member.tasks))
                if max(deaths) < SUSPECT:
                    return member
        return self._spawn() if len(self._members) < self._most else None

    def _begin(self, member: _Member, task: Task) -> None:
        limit = self._setup.config.candidate_seconds
        if limit is not None and self._pack is None:
            # The worker ends itself, stacks and all; one that cannot even do that is ended here a little later.
            member.deadline = time.monotonic() + limit
        try:
            member.pipe.send((TRAIN, pack(task), learned_by(self._setup)))
        except OSError:
            if not member.tasks:
                # It died while it had nothing to train.
                self._bury(member)
                self._waiting.insert(0, task)
                return
        member.tasks.append(task)

    def _stop(self) -> None:
        """Ask every training to end at its next batch, as unfinished; what waits has ended."""
        if not self._stopping:
            self._stopping = True
            for member in self._members:
                if member.tasks:
                    self._send(member, (STOP,))
            self._events += [_Ended(task=task, fields={"state": "unfinished"}) for task in self._waiting]
            self._waiting.clear()

    def _works(self, member: _Member) -> bool:
        return member in self._members and bool(member.tasks) and not member.resting

    def _spawn(self) -> _Member:
        process, pipe = start_worker(self._setup, self._started, self._pack)
        self._started += 1
        _log.debug("worker %s started", process.pid)
        member = _Member(process=process, pipe=pipe)
        self._members.append(member)
        return member

    def _collect(self, seconds: float) -> None:
        """Take in what workers have sent, and notice those that have died."""
        busy = {member.pipe: member for member in self._members if member.tasks}
        handles = [member.process.sentinel for member in busy.values()]
        ready = wait([*busy, *handles], seconds)
        for member in busy.values():
            if member.deadline is not None and time.monotonic() > member.deadline + KILL_SECONDS:
                member.process.kill()
        for pipe, member in busy.items():
            if pipe in ready or member.process.sentinel in ready:
                self._read(member)
        self._place()

    def _read(self, member: _Member) -> None:
        try:
            while member.tasks and member.pipe.poll():
                self._take(member, member.pipe.recv())
        except (EOFError, OSError):
            pass
        else:
            if member.process.is_alive() or not member.tasks:
                return
        self._replace(member)

    def _take(self, member: _Member, message: tuple[Any, ...]) -> None:
        kind, *content = message
        if kind == PAUSED:
            member.resting = True
        elif kind == EPOCH:
            number, curve, metrics = content
            # Whatever ended its workers so far, it can be trained.
            self._deaths.pop(number, None)
            self._events.append(_EpochEnded(task=member.task(number), curve=curve, metrics=metrics))
        elif kind == DONE:
            number, fields, learned = content
            learn(self._setup, learned)
            self._finish(member, member.task(number), fields)
        elif kind == SAY:
            self._say(content[0])
        elif kind == HANGS:
            self._end_hanging(member, member.task(content[0]))
        elif kind == BROKEN:
            raise RunError(f"a worker could not start: {content[0]}")
        elif kind == DISK:
            raise DiskError(content[0])

    def _finish(self, member: _Member, task: Task, fields: dict[str, Any]) -> None:
        self._events.append(_Ended(task=task, fields=fields))
        member.tasks.remove(task)

    def _end_hanging(self, member: _Member, task: Task) -> None:
        """End a worker of a pack for one of its candidates; the others go on in a new one."""
        member.process.kill()
        self._bury(member)
        self._finish(member, task, too_late(self._setup.config, self._setup.folder, task.number))
        others = self._taken_from(member)
        if self._stopping:
            self._events += [_Ended(task=other, fields={"state": "unfinished"}) for other in others]
            return
        if others:
            self._say(ended_for(task.number, len(others)))
        self._waiting = [*others, *self._waiting]

    def _taken_from(self, member: _Member) -> list[Task]:
        """The candidates of a worker that is gone."""
        tasks, member.tasks = member.tasks, []
        # Epochs that it reported and nobody has read yet have no one to be answered to.
        self._events = [
            event for event in self._events if isinstance(event, _Ended) or event.task not in tasks
        ]
        return tasks

    def _replace(self, member: _Member) -> None:
        """Bury a worker that died, and give its candidates to a new one."""
        self._bury(member)
        code = member.process.exitcode
        if code == UNGUARDED:
            raise RunError(
                "a script that trains in several processes is imported by each of them:"
                ' call search and resume under  if __name__ == "__main__":'
            )
        overdue = member.deadline is not None and time.monotonic() >= member.deadline
        again = []
        for task in self._taken_from(member):
            self._deaths[task.number] = deaths = self._deaths.get(task.number, 0) + 1
            if overdue:
                fields = too_late(self._setup.config, self._setup.folder, task.number)
            elif self._stopping:
                fields = {"state": "unfinished"}
            elif deaths >= MOST_DEATHS:
                why = f"{deaths} workers died of it, the last with exit code {code}"
                fields = {"state": "failed", "error": why}
            else:
                self._say(
                    f"the worker of trial {task.number} died (exit code {code}); the trial continues in a new one"
                )
                again.append(task)
                continue
            self._events.append(_Ended(task=task, fields=fields))
        self._waiting = [*again, *self._waiting]

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
