"""Trains several candidates side by side in this process, in turns of one step: a pack.

On a GPU each place of the pack holds a network whose step is one CUDA graph on a stream of its own. One thread
launches them in turn, their kernels overlap, and all share the images in the device's memory. What a place needs is
built and captured once: a candidate is a copy of first weights and a few masks (``se_nas.training.masked``). On a CPU
the same code runs uncaptured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from se_nas.architecture import Architecture
from se_nas.study.candidate import build_plain_candidate
from se_nas.study.executors._deadline import HANG_SECONDS, too_late
from se_nas.study.executors.base import Listener
from se_nas.study.executors.task import (
    Curve,
    Setup,
    Task,
    build,
    failure,
    make_context,
    outcome,
)
from se_nas.study.packing import Packing
from se_nas.study.tracking import make_loggers
from se_nas.training import Context, Runtime, Training
from se_nas.training.batches import REMEMBERED, Batches, MemoryBatches
from se_nas.training.faults import OutOfMemoryError
from se_nas.training.loader import LoaderBatches
from se_nas.training.masked import Capacity, FirstWeights, Place
from se_nas.training.shared_batches import SharedBatches

MOMENT = 0.05
"""Seconds after which ``wait`` returns in any case, so that a place is not left empty for an epoch of the others."""
SEEDS = 4
"""Seeds whose draws are kept."""


class _Built:
    """A place for candidates that no masked network can be: each is built, and captured, anew."""

    layout = ""

    def __init__(self, setup: Setup, task: Task) -> None:
        self._setup, self._task = setup, task

    def begin(
        self,
        architecture: Architecture,
        context: Context,
        *,
        batches: Batches | None = None,
        alone: Callable[[], bool] = lambda: True,
    ) -> Training:
        return Training(build(self._setup, self._task), context, batches=batches, alone=alone)

    def end(self, training: Training) -> None:
        """Nothing of it can be used again."""


@dataclass(eq=False, kw_only=True)
class _Running:
    task: Task
    training: Training
    context: Context
    place: Place | _Built
    device: int


class Packed:
    """An ``Executor`` of ``capacity`` places, shared evenly among devices.

    A candidate that runs out of memory beside others waits until there is room and goes on from its checkpoint, with
    one place less from then on. One that fails in any other way ends alone, as does one that takes longer than it
    may, between two of its turns. A turn that does not end can only be seen (``hanging``).

    Args:
        setup: what all trainings share; trained by se-nas' own trainer.
        capacities: what masked networks can be, one for each position of the space.
        capacity: places in all.
        say: is given a line when places are given up.
        runtimes: one for each device; by default ``setup.runtime`` alone.
    """

    def __init__(
        self,
        setup: Setup,
        capacities: Sequence[Capacity],
        capacity: int,
        say: Callable[[str], object],
        runtimes: Sequence[Runtime] = (),
    ) -> None:
        self._places = capacity
        self._setup, self._capacities, self._say = setup, tuple(capacities), say
        self._runtimes = tuple(runtimes) or (setup.runtime,)
        self._loggers = make_loggers(setup.config.log, setup.logs)
        self._first = [FirstWeights(self._plain, init=setup.config.init) for _ in self._runtimes]
        self._idle: list[tuple[int, Place]] = []
        self._running: list[_Running] = []
        self._waiting: list[Task] = []
        self._saving: list[tuple[_Running, dict[str, Any]]] = []
        self._deadlines: dict[int, float] = {}
        self._at: tuple[Task | None, float] = None, 0.0
        self._batches: dict[tuple[int, int], MemoryBatches | SharedBatches] = {}
        self._under_way = False
        self._reported = False

    @classmethod
    def planned(
        cls, setup: Setup, packing: Packing, rooms: Sequence[Capacity], say: Callable[[str], object]
    ) -> Packed:
        """The pack that was decided on, on all of its devices."""
        runtimes = [setup.runtime, *(setup.runtime.on(device) for device in packing.devices[1:])]
        return cls(setup, rooms, packing.at_a_time, say, runtimes)

    @property
    def capacity(self) -> int:
        """The places, and those that have trained and whose weights are being written, which take none."""
        return self._places + len(self._saving)

    @property
    def tasks(self) -> list[Task]:
        saving = (running.task for running, _ in self._saving)
        return [*saving, *(running.task for running in self._running), *self._waiting]

    @property
    def hanging(self) -> int | None:
        """The trial whose turn, or the writing of whose weights, goes on long after its deadline, or None.

        Another thread may ask.
        """
        saving = ((running.task, 0.0) for running, _ in self._saving if not running.training.saved)
        for task, since in (self._at, *saving):
            if task is None:
                continue
            deadline = self._deadlines.get(task.number, math.inf)
            if time.monotonic() > max(deadline, since) + HANG_SECONDS:
                return task.number
        return None

    def submit(self, task: Task, listener: Listener) -> Mapping[str, Any]:
        """Begin a candidate, or let it wait; it is trained in ``wait``."""
        if self._can_begin(task):
            self._begin(task, listener)
        else:
            self._waiting.append(task)
        return {}

    def _can_begin(self, task: Task) -> bool:
        """Whether a candidate may join those that train.

        Images on disk are decoded once for all that train, so these are of one seed and begin together.
        """
        if not self._running:
            return True
        if len(self._running) >= self._places:
            return False
        together = not self._under_way and self._running[0].task.seed == task.seed
        return self._setup.data.in_memory or together

    def _begin(self, task: Task, listener: Listener) -> None:
        if not self._running:
            self._under_way = False
        limit = self._setup.config.candidate_seconds
        if limit is not None:
            self._deadlines[task.number] = time.monotonic() + limit
        device = min(range(len(self._runtimes)), key=self._load)
        with self._turn(task):
            place = self._place(task, device)
            context = make_context(
                self._setup,
                task,
                self._runtimes[device],
                self._loggers,
                lambda curve, metrics: self._epoch_ended(task, curve, metrics, listener),
                lambda: self._should_stop(listener),
                place.layout,
            )
            training = place.begin(
                task.architecture,
                context,
                batches=self._shared_batches(task.seed, device),
                alone=lambda: len(self._running) <= 1,
            )
        self._running.append(
            _Running(task=task, training=training, context=context, place=place, device=device)
        )

    def wait(self, listener: Listener) -> None:
        """Train until a candidate has ended an epoch, or has ended, or a moment has passed."""
        self._reported, until = False, time.monotonic() + MOMENT
        if not self._running and self._saving:
            self._saving[0][0].training.wait(MOMENT)
        self._report_saved(listener)
        while self._running and not self._reported and time.monotonic() < until:
            began, round_, self._under_way = time.monotonic(), list(self._running), True
            for running in round_:
                with self._turn(running.task):
                    self._advance(running, listener)
            self._share(time.monotonic() - began, round_)
            for task in [task for task in self._waiting if self._can_begin(task)]:
                if self._can_begin(task):
                    self._waiting.remove(task)
                    self._begin(task, listener)
            self._report_saved(listener)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is launched outside of ``wait``; what has been is waited for."""
        for runtime in self._runtimes:
            if runtime.device.startswith("cuda"):
                torch.cuda.synchronize(runtime.device)
        began = time.monotonic()
        with self._turn(None):
            yield
            for number in self._deadlines:
                self._deadlines[number] += time.monotonic() - began

    def close(self, *, kill: bool = False) -> None:
        for running in [*self._running, *(running for running, _ in self._saving)]:
            running.training.close()
        self._running.clear()
        self._saving.clear()
        self._idle.clear()
        self._deadlines.clear()

    @contextmanager
    def _turn(self, task: Task | None) -> Iterator[None]:
        """While entered, it is this candidate's turn; None is for whoever drives this executor."""
        (before, _), self._at = self._at, (task, time.monotonic())
        try:
            yield
        finally:
            self._at = before, time.monotonic()

    def _advance(self, running: _Running, listener: Listener) -> None:
        if time.monotonic() > self._deadlines.get(running.task.number, math.inf):
            running.training.close()
            late = too_late(self._setup.config, self._setup.folder, running.task.number)
            self._running.remove(running)
            self._end(running, {**late, "seconds": round(running.context.seconds, 3)}, listener)
            return
        try:
            if running.training.advance():
                return
            training = running.training
            fields = outcome(running.task, training.outcome, training.model, running.context)
        except OutOfMemoryError as error:
            self._crowd_out(running, error)
            return
        except Exception as error:
            # Its place may be broken; the next candidate gets a new one.
            fields = failure(error)
        else:
            running.place.end(running.training)
            if isinstance(running.place, Place):
                self._idle.append((running.device, running.place))
            self._running.remove(running)
            self._saving.append((running, {**fields, "seconds": round(running.context.seconds, 3)}))
            # Its place is free.
            self._reported = True
            if self._places == 1:
                # What is suggested next is to know of it.
                self._report_saved(listener, seconds=None)
            return
        self._running.remove(running)
        self._end(running, {**fields, "seconds": round(running.context.seconds, 3)}, listener)

    def _report_saved(self, listener: Listener, seconds: float | None = 0.0) -> None:
        """Report the trainings whose files are on disk, waiting for each as long as told; None is for ever."""
        for running, fields in list(self._saving):
            try:
                running.training.wait(seconds)
                if not running.training.saved:
                    continue
                running.training.close()
            except Exception as error:
                fields = {**failure(error), "seconds": fields["seconds"]}
            self._saving = [each for each in self._saving if each[0] is not running]
            self._end(running, fields, listener)

    def _end(self, running: _Running, fields: dict[str, Any], listener: Listener) -> None:
        self._reported = True
        self._deadlines.pop(running.task.number, None)
        with self._turn(None):
            listener.task_ended(running.task, fields)

    def _epoch_ended(self, task: Task, curve: Curve, metrics: dict[str, Any], listener: Listener) -> bool:
        self._reported = True
        with self._turn(None):
            return listener.epoch_ended(task, curve, metrics)

    def _should_stop(self, listener: Listener) -> bool:
        with self._turn(None):
            return listener.should_stop()

    def _crowd_out(self, running: _Running, error: OutOfMemoryError) -> None:
        running.training.close()
        self._running.remove(running)
        self._waiting.append(running.task)
        self._deadlines.pop(running.task.number, None)
        self._idle.clear()
        self._places = max(1, len(self._running))
        if running.context.device.startswith("cuda"):
            torch.cuda.empty_cache()
        self._say(
            f"trial {running.task.number} ran out of memory beside {len(self._running)} others ({error}); it"
            f" continues later, and from now on at most {self._places} candidates train at a time"
        )

    def _place(self, task: Task, device: int) -> Place | _Built:
        capacity = next((room for room in self._capacities if room.holds(task.architecture)), None)
        if capacity is None:
            return _Built(self._setup, task)
        for index, (where, place) in enumerate(self._idle):
            if where == device and place.network.capacity is capacity:
                del self._idle[index]
                return place
        # A network of another position that waits for its turn takes memory that this one may need.
        while self._idle and len(self._idle) + len(self._running) >= 2 * self._places:
            self._idle.pop(0)
        return Place(capacity, self._first[device], self._runtimes[device])

    def _plain(self) -> torch.nn.Module:
        setup = self._setup
        architecture = self._capacities[0].widest
        return build_plain_candidate(
            architecture, setup.config, setup.recipe, num_classes=setup.data.num_classes
        )

    def _shared_batches(self, seed: int, device: int) -> MemoryBatches | SharedBatches:
        """Batches of a seed, for all trainings on a device."""
        setup = self._setup
        key = (seed, device)
        if key not in self._batches:
            while len(self._batches) >= SEEDS * len(self._runtimes):
                del self._batches[next(iter(self._batches))]
            data, recipe, runtime = setup.data, setup.recipe, self._runtimes[device]
            self._batches[key] = (
                MemoryBatches(data, recipe, runtime, seed, remember=REMEMBERED)
                if data.in_memory
                else SharedBatches(LoaderBatches(data, recipe, runtime, seed))
            )
        return self._batches[key]

    def _load(self, device: int) -> int:
        return sum(running.device == device for running in self._running)

    @staticmethod
    def _share(seconds: float, running: Sequence[_Running]) -> None:
        """Count an equal share of a round's time for each; kernels of several trainings cannot be told apart."""
        for each in running:
            each.context.skip(seconds * (1 - 1 / len(running)))
