"""Trains candidates on the nodes of a Ray cluster, in actors that this process drives.

An actor trains one candidate at a time, or a pack of them on its GPU. This process alone asks the sampler, writes the
study and measures latency. Ray places actors, notices those that die, and says which nodes are to be left. The
candidates of an actor that is gone go on in another, from their last checkpoints.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from se_nas.errors import DiskError, RunError
from se_nas.study.executors._actors import Actor, Actors
from se_nas.study.executors._deadline import KILL_SECONDS, ended_for, too_late
from se_nas.study.executors._mirror import write_files
from se_nas.study.executors.base import Listener
from se_nas.study.executors.process_pool import MOST_DEATHS, POLL_SECONDS
from se_nas.study.executors.remote import FILES, LEAVING, READY
from se_nas.study.executors.task import Setup, Task
from se_nas.study.executors.worker import (
    BROKEN,
    DISK,
    DONE,
    EPOCH,
    GO_ON,
    HANGS,
    RESUME,
    SAY,
    STOP,
    learn,
)
from se_nas.study.packing import Packing
from se_nas.study.ray_cluster import in_one_line, join
from se_nas.training.masked import Capacity

AGAIN_SECONDS = 0.1
"""Between two attempts to reach an actor."""


class RayExecutor:
    """An ``Executor`` of as many actors as the nodes of a cluster have room for, made when they are first needed.

    Args:
        setup: what all trainings share.
        packing: how many candidates train at a time in an actor.
        rooms: what masked networks can be.
        say: is given a line when an actor or a node is gone.
    """

    def __init__(
        self, setup: Setup, packing: Packing, rooms: Sequence[Capacity], say: Callable[[str], object]
    ) -> None:
        self._ray, self._setup, self._say = join(setup.config), setup, say
        self._actors = Actors(setup, packing, rooms)
        self._members: list[Actor] = []
        self._waiting: list[Task] = []
        self._deaths: dict[int, int] = {}
        self._stillborn, self._stopping = 0, False

    @property
    def capacity(self) -> int:
        """What the nodes have room for now; at least one actor, which waits for a node."""
        return max(1, self._actors.most) * self._actors.places

    @property
    def tasks(self) -> list[Task]:
        return [*(task for member in self._members for task in member.tasks), *self._waiting]

    def submit(self, task: Task, listener: Listener) -> Mapping[str, Any]:
        """Give a candidate to an actor that has a place, or to a new one."""
        self._waiting.append(task)
        self._place()
        return {}

    def wait(self, listener: Listener) -> None:
        if listener.should_stop():
            self._stop(listener)
        self._place()
        self._end_overdue()
        calls = {member.events: member for member in self._members}
        if not calls:
            time.sleep(POLL_SECONDS)
            return
        ready, _ = self._ray.wait(list(calls), timeout=POLL_SECONDS)
        for call in ready:
            # Whoever was served comes last next time.
            self._members.remove(calls[call])
            self._members.append(calls[call])
            self._read(calls[call], listener)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While entered, no training uses this machine; those on other machines go on."""
        began = time.monotonic()
        here = [member for member in self._members if member.host == socket.gethostname()]
        calls = [member.pause() for member in here]
        try:
            if calls:
                self._ray.wait(calls, num_returns=len(calls))
            yield
        finally:
            for member in here:
                if member.deadline is not None:
                    member.deadline += time.monotonic() - began
                member.tell(RESUME)

    def close(self, *, kill: bool = False) -> None:
        """End all actors."""
        for member in self._members:
            self._actors.end(member)
        self._members.clear()
        self._actors.close()

    def _place(self) -> None:
        """Give waiting candidates to actors that are ready, and make an actor for each as far as there is room."""
        for task in list(self._waiting):
            member = self._member_for(task)
            if member is not None:
                self._waiting.remove(task)
                member.tasks.append(task)
                self._begin(member, task)
        staying = sum(not member.leaving for member in self._members)
        wanted = min(self._actors.most, len(self.tasks)) if self._waiting else 0
        self._members += [self._actors.start() for _ in range(wanted - staying)]

    def _member_for(self, task: Task) -> Actor | None:
        """The actor with the fewest candidates; None without a place.

        A candidate whose actor died trains in an actor of its own, because it may be what ended it.
        """
        ready = [member for member in self._members if member.ready and not member.leaving]
        for member in sorted(ready, key=lambda member: len(member.tasks)):
            suspects = [other for other in (task, *member.tasks) if other.number in self._deaths]
            if not member.tasks or (len(member.tasks) < self._actors.places and not suspects):
                return member
        return None

    def _begin(self, member: Actor, task: Task) -> None:
        limit = self._setup.config.candidate_seconds
        if limit is not None and self._actors.places == 1:
            # The actor ends itself, stacks and all; one that cannot even do that is ended here a little later.
            member.deadline = time.monotonic() + limit
        member.begin(task, self._setup)

    def _stop(self, listener: Listener) -> None:
        """Ask every training to end at its next batch, as unfinished; what has not begun has ended."""
        if not self._stopping:
            self._stopping = True
            for member in self._members:
                member.tell(STOP)
        while self._waiting:
            listener.task_ended(self._waiting.pop(0), {"state": "unfinished"})

    def _end_overdue(self) -> None:
        for member in self._members:
            if member.deadline is not None and time.monotonic() > member.deadline + KILL_SECONDS:
                self._actors.end(member)

    def _dismiss(self, member: Actor) -> None:
        """End an actor; its candidates wait for another one."""
        self._actors.end(member)
        self._members.remove(member)
        self._waiting += member.tasks

    def _read(self, member: Actor, listener: Listener) -> None:
        try:
            events = self._ray.get(member.events)
        except self._ray.exceptions.ActorUnavailableError:
            # What it has sent may be lost. Whether it is gone, and its node with it, Ray knows a little later.
            time.sleep(AGAIN_SECONDS)
            member.reach()
            return
        except self._ray.exceptions.RayError as error:
            self._bury(member, error, listener)
            return
        if member.unreachable:
            self._bury(member, ConnectionError("it could not be reached"), listener)
            return
        member.listen()
        for kind, *content in events:
            self._take(member, kind, content, listener)
            if member not in self._members:
                return
        if member.leaving and not member.tasks:
            self._dismiss(member)

    def _take(self, member: Actor, kind: str, content: list[Any], listener: Listener) -> None:
        if kind == READY:
            member.host, member.node, member.shared = content
            self._stillborn = 0
        elif kind == FILES:
            write_files(self._setup.folder, content[0])
        elif kind == EPOCH:
            number, curve, metrics = content
            # Whatever ended its actors so far, it can be trained.
            self._deaths.pop(number, None)
            member.tell(GO_ON, listener.epoch_ended(member.task(number), curve, metrics))
        elif kind == DONE:
            number, fields, learned = content
            learn(self._setup, learned)
            self._finish(member, member.task(number), fields, listener)
        elif kind == LEAVING:
            assert member.node is not None
            member.leaving = True
            self._actors.leave(member.node)
            self._say(f"Ray is draining a node on {member.host}; what trains there continues elsewhere")
        elif kind == SAY:
            self._say(content[0])
        elif kind == HANGS:
            self._end_hanging(member, member.task(content[0]), listener)
        elif kind == BROKEN:
            raise RunError(f"a candidate cannot be trained {content[0]}")
        elif kind == DISK:
            raise DiskError(content[0])

    def _finish(self, member: Actor, task: Task, fields: dict[str, Any], listener: Listener) -> None:
        member.tasks.remove(task)
        member.deadline = None
        if fields["state"] == "unfinished" and member.leaving and not self._stopping:
            self._waiting.append(task)
        else:
            listener.task_ended(task, fields)

    def _end_hanging(self, member: Actor, task: Task, listener: Listener) -> None:
        """End an actor that trains a pack for one of its candidates; the others go on elsewhere."""
        member.tasks.remove(task)
        self._dismiss(member)
        if member.tasks:
            self._say(ended_for(task.number, len(member.tasks)))
        listener.task_ended(task, too_late(self._setup.config, self._setup.folder, task.number))

    def _bury(self, member: Actor, error: Exception, listener: Listener) -> None:
        """Let the candidates of an actor that is gone go on in others."""
        if getattr(error, "actor_init_failed", False):
            raise RunError(f"no Ray actor can start: {in_one_line(error)}")
        gone = self._actors.is_lost(member)
        if not member.ready and not gone:
            self._stillborn += 1
            if self._stillborn == MOST_DEATHS:
                raise RunError(
                    f"{MOST_DEATHS} Ray actors died before they could start, the last with: {in_one_line(error)}"
                )
        overdue = member.deadline is not None and time.monotonic() >= member.deadline
        lost = gone or isinstance(error, ConnectionError)
        self._dismiss(member)
        for task in member.tasks:
            if self._stopping:
                fields: dict[str, Any] = {"state": "unfinished"}
            elif overdue:
                fields = too_late(self._setup.config, self._setup.folder, task.number)
            elif lost:
                # Nodes come and go; no candidate is to blame for that.
                self._say(f"{member.host} was lost; trial {task.number} continues in another actor")
                continue
            else:
                self._deaths[task.number] = deaths = self._deaths.get(task.number, 0) + 1
                if deaths < MOST_DEATHS:
                    self._say(
                        f"the actor of trial {task.number} on {member.host} died; the trial continues in a new one"
                    )
                    continue
                why = f"{deaths} actors died of it, the last with: {in_one_line(error)}"
                fields = {"state": "failed", "error": why}
            self._waiting.remove(task)
            listener.task_ended(task, fields)
