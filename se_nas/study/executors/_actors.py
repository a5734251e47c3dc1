"""The driver's hold on Ray's actors: how they are made, what is known of each, and how many there is room for."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from se_nas.study.executors._mirror import files_of
from se_nas.study.executors._travel import Work, elsewhere, to_arrays, versions
from se_nas.study.executors.remote import THREADS, Remote
from se_nas.study.executors.task import Setup, Task
from se_nas.study.executors.worker import TRAIN, learned_by, pack
from se_nas.study.packing import Packing
from se_nas.study.ray_cluster import actor_needs, as_options, join, room
from se_nas.training.masked import Capacity

ROOM_SECONDS = 1.0
"""How long what is known about the nodes counts as new."""


@dataclass(eq=False)
class Actor:
    """One actor and its candidates.

    Attributes:
        handle: Ray's.
        events: the call that returns what has happened.
        nodes: those of the cluster when it was made.
        tasks: its candidates.
        node, host: where it is; None until it is ready.
        shared: whether it sees the run's folder.
        unreachable: whether the connection to it was lost.
        leaving: whether Ray drains its node.
        deadline: of its candidate, on the clock of ``time.monotonic``; None for none.
    """

    handle: Any
    nodes: set[str]
    events: Any = None
    tasks: list[Task] = field(default_factory=list)
    node: str | None = None
    host: str | None = None
    shared: bool = True
    unreachable: bool = False
    leaving: bool = False
    deadline: float | None = None

    @property
    def ready(self) -> bool:
        """Whether it can be given candidates."""
        return self.node is not None

    def __post_init__(self) -> None:
        self.listen()

    def tell(self, *message: Any) -> None:
        """Send a message; an actor that has died is noticed by its ``events``."""
        self.handle.tell.remote(*message)

    def listen(self) -> None:
        """Ask for what happens next."""
        self.events = self.handle.events.remote()

    def reach(self) -> None:
        """Ask, in place of ``events``, for nothing but an answer; an actor that gives one has lost events."""
        self.unreachable = True
        self.events = self.handle.reach.remote()

    def pause(self) -> Any:
        """Ask it to rest; the call returns when it does."""
        return self.handle.pause.remote()

    def begin(self, task: Task, setup: Setup) -> None:
        """Let it train one of its candidates, from the last checkpoint if there is one."""
        files = {} if self.shared else files_of(setup, task)
        self.tell(TRAIN, pack(task), learned_by(setup), files)

    def task(self, number: int) -> Task:
        return next(task for task in self.tasks if task.number == number)


class Actors:
    """Makes actors that train for one run, and gives up what they share.

    Args:
        setup: what all trainings share.
        packing: how many candidates train at a time in an actor.
        rooms: what masked networks can be.

    Attributes:
        places: candidates that an actor has room for.
    """

    def __init__(self, setup: Setup, packing: Packing, rooms: Sequence[Capacity]) -> None:
        self._ray = join(setup.config)
        self.places = packing.places if packing.packed else 1
        self._needs = actor_needs(setup.config, setup.runtime.device)
        self._left: set[str] = set()
        self._most, self._most_at = 0, -ROOM_SECONDS
        self._probe = setup.folder.resolve() / f".ray.{secrets.token_hex(4)}"
        self._probe.touch()
        work = Work(
            setup=elsewhere(setup),
            fingerprint=setup.data.fingerprint,
            versions=versions(),
            probe=self._probe,
            places=self.places if packing.packed else None,
            rooms=rooms,
            threads=max(1, int(self._needs["CPU"])),
        )
        images = to_arrays(setup.data) if setup.data.in_memory else None
        # What is put goes to a node once, however many actors it has.
        self._given = self._ray.put(work), self._ray.put(images)
        self._class = self._ray.remote(concurrency_groups=THREADS)(Remote).options(**as_options(self._needs))

    @property
    def most(self) -> int:
        """How many actors there is room for now."""
        if time.monotonic() - self._most_at >= ROOM_SECONDS:
            self._most, self._most_at = room(self._needs, self._left), time.monotonic()
        return self._most

    def start(self) -> Actor:
        """An actor, which begins when Ray has found it a place."""
        return Actor(self._class.remote(*self._given), nodes=self._nodes())

    def end(self, actor: Actor) -> None:
        """End an actor at once."""
        self._ray.kill(actor.handle)

    def leave(self, node: str) -> None:
        """A node is drained: there is no room there any more."""
        self._left.add(node)
        self._most_at = -ROOM_SECONDS

    def is_lost(self, actor: Actor) -> bool:
        """Whether the node of an actor that died is gone; of one that was not ready, any that it could be on."""
        self._most_at = -ROOM_SECONDS
        return not ({actor.node} if actor.ready else actor.nodes) <= self._nodes()

    def _nodes(self) -> set[str]:
        """Those that are alive, by Ray's names."""
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

    def close(self) -> None:
        """The connection to the cluster stays, as is Ray's custom."""
        self._probe.unlink(missing_ok=True)
