"""The trainings of a run, from the moment a candidate is chosen until its row is complete; both phases use them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from se_nas.architecture import Architecture
from se_nas.run import FINAL, SEARCH
from se_nas.study.attributes import FIXED, LOSS, ROW
from se_nas.study.budget import Division
from se_nas.study.clock import Clock
from se_nas.study.database_errors import TakenOverError
from se_nas.study.executors import Executor, Task, failure
from se_nas.study.executors.task import (
    CHANGED,
    CORRECT,
    LOST,
    Curve,
    set_aside_damaged,
    stopped_after,
)
from se_nas.study.phases.oddities import Oddities
from se_nas.study.plan import Plan
from se_nas.study.progress import Progress
from se_nas.study.stopping import Stopping
from se_nas.study.storage import COLUMNS, StudyStore, now
from se_nas.wording import counted

_log = logging.getLogger(__name__)

STOPPED = "stopped"
RECENT = 5
"""Trainings that say how long the next will last: machines get busier and idler."""
POLL_SECONDS, LOOK_SECONDS = 2.0, 30.0
"""How often a worker without work looks whether others have ended theirs, and whether one of them is silent."""


class Trainings:
    """Costs candidates, has an executor train them, and keeps the study and whoever watches up to date.

    A ``Listener`` of the executor.

    Args:
        plan: the resolved search.
        store: where rows go.
        executor: trains.
        stopping: the rule that ends hopeless candidates of the search early. It learns from further readings
            of a network too, but these run to their end, as finalists do.
        progress: is notified of every event.
        clock: time spent and left.
        interrupted: whether the run is to end at the next batch.
    """

    def __init__(
        self,
        plan: Plan,
        store: StudyStore,
        executor: Executor,
        stopping: Stopping,
        progress: Progress,
        clock: Clock,
        interrupted: Callable[[], bool],
    ) -> None:
        self._plan, self._store, self._executor, self._stopping = plan, store, executor, stopping
        self._progress, self._clock, self._interrupted = progress, clock, interrupted
        self._costs: dict[int, dict[str, Any]] = {}
        self._began: dict[int, float] = {}
        self._lasted: list[float] = []
        self._lost: set[int] = set()
        self._oddities = Oddities(plan, store, progress)

    def claim(self, task: Task, baseline: str | None) -> None:
        """Store what a trial is, in one write: from now on it is begun, and ``go_on`` trains it."""
        architecture = task.architecture
        self._store.describe(
            task.number,
            key=architecture.key,
            description=architecture.describe(),
            baseline=baseline,
            position=architecture.position,
            widths=list(architecture.widths),
            gate=architecture.gate,
            act=architecture.act,
            bias=architecture.bias,
            seed=task.seed,
            phase=task.phase,
            epochs_planned=self._plan.recipe.epochs,
            state="running",
            started=now(),
        )

    def take_over(self) -> tuple[Task, Curve] | None:
        """A trial that was begun and that nobody works on, now ours, with its epochs so far; only in a turn."""
        if self.should_stop():
            return None
        trial = self._store.abandoned()
        if trial is None:
            return None
        row = trial.user_attrs[ROW]
        if FIXED in trial.user_attrs:
            architecture = Architecture.from_dict(trial.user_attrs[FIXED])
        else:
            architecture = self._plan.space.architecture(trial.params)
        task = Task(number=trial.number, architecture=architecture, seed=row["seed"], phase=row["phase"])
        return task, row.get("curve") or ()

    def go_on(self, task: Task, curve: Curve = ()) -> None:
        """Cost and train a trial that has been claimed, from its last checkpoint if it has one.

        Args:
            task: the candidate.
            curve: its epochs so far. If it was decided after the last of them to stop it, it is not trained.
        """
        if curve and self._stopping.was_stopped(task.number):
            self._began[task.number] = time.monotonic()
            self._progress.trial_started({**task.row, "seed": task.seed})
            self._costs[task.number] = self._costs_of(task)
            self.task_ended(task, stopped_after(curve))
            return
        note = set_aside_damaged(self._store.folder.checkpoints, task)
        if note is not None:
            self._progress.message(note)
        self.make_room()
        self._began[task.number] = time.monotonic()
        self._progress.trial_started({**task.row, "seed": task.seed})
        costs: dict[str, Any] = {}
        ended = None
        try:
            costs = self._costs_of(task)
        except Exception as error:
            # One candidate must not end a search of hours; the error is kept and many in a row stop the run.
            ended = {"state": "unfinished"} if self.should_stop() else failure(error)
        if ended is None and self.should_stop():
            ended = {"state": "unfinished"}
        if ended is None:
            try:
                self._store.record(task.number, error=None, **costs)
            except TakenOverError:
                self._lost.add(task.number)
                ended = {}
        if ended is not None:
            self._end(task, {**costs, **ended})
            return
        self._costs[task.number] = costs
        _log.debug("trial %d begins with seed %d: %s", task.number, task.seed, costs)
        self._executor.submit(task, self)

    def measure(self, finalists: Sequence[Architecture]) -> None:
        """Measure the costs of finalists that were predicted so far. Nothing may be in training: it would wait.

        Ends early if the run is to stop; then, as after an error, what is missing is measured with the training.
        """
        axes = [
            axis
            for axis in self._plan.axes.values()
            if not axis.objective.exact and axis.by_widths() is not None
        ]
        if axes and finalists:
            words = " and ".join(axis.objective.title for axis in axes)
            self._progress.message(f"measuring {words} of {counted(len(finalists), 'finalist')}")
        for axis in axes:
            for architecture in finalists:
                if self.should_stop():
                    return
                # It is raised again, and stored, when the finalist is trained.
                with suppress(Exception):
                    axis.fields(architecture, measure=True)

    def wait(self) -> bool:
        """Return when something has happened to what is in training, or after a moment; False if nothing is."""
        if not self._executor.tasks:
            return False
        self._executor.wait(self)
        return True

    def make_room(self) -> None:
        """Return when another candidate can be trained."""
        while len(self._executor.tasks) >= self._executor.capacity:
            self._executor.wait(self)

    def wait_for_one(self) -> bool:
        """Return when one more training has ended; False if there is none to wait for."""
        before = len(self._executor.tasks)
        while before and len(self._executor.tasks) == before:
            self._executor.wait(self)
        return before > 0

    def wait_for_others(self) -> None:
        """Return when one of our trainings or another worker's has ended, or when one of these may have been silent."""
        if self.wait():
            return
        until = time.monotonic() + LOOK_SECONDS
        while time.monotonic() < until and not self.should_stop():
            time.sleep(POLL_SECONDS)
            if self._store.stirred():
                return

    def drain(self) -> None:
        """Return when nothing is in training."""
        while self.wait():
            pass

    def searching(self) -> int:
        """Candidates of the search that are in training."""
        return sum(task.phase == SEARCH for task in self._executor.tasks)

    def expected_seconds(self) -> float:
        """Expected wall time per candidate, including cost measurement and waiting; 0 if nothing is known.

        Before one has ended in this process, the training time of those that ended in an earlier one, or else the
        plan's forecast.
        """
        seconds = self._lasted or [
            row["seconds"] for row in self._store.rows() if row["seconds"] and row["state"] == "complete"
        ]
        if seconds:
            return float(np.median(seconds[-RECENT:]))
        return 0.0 if self._plan.forecast is None else self._plan.forecast.each

    @property
    def places(self) -> int:
        """Trainings at a time; other workers have as many places as they train candidates now."""
        return self._executor.capacity + self._store.elsewhere()

    @property
    def division(self) -> Division:
        """How the run's time is divided, with the places that there are now."""
        return replace(self._plan.division, places=self.places)

    def time_left(self) -> float:
        """Seconds of training that the budget still has room for, over all places together.

        What others train counts as if it had just begun.
        """
        moment, expected = time.monotonic(), self.expected_seconds()
        under_way = sum(max(0.0, expected - (moment - began)) for began in self._began.values())
        under_way += self._store.elsewhere() * expected
        return max(0.0, self.places * self._clock.left - under_way)

    def seconds_for(self, trainings: int) -> float:
        """Expected wall time of so many trainings."""
        return self.expected_seconds() * math.ceil(trainings / self.places)

    def wall_left(self) -> float:
        """Seconds that each place still has, on average, once what is under way has ended."""
        return self.time_left() / self.places

    def should_stop(self) -> bool:
        return self._interrupted()

    def epoch_ended(self, task: Task, curve: Curve, metrics: Mapping[str, Any]) -> bool:
        self._progress.epoch(task.row, metrics)
        try:
            with self._store.together():
                self._store.record(task.number, curve=curve, epochs=len(curve))
                self._store.spend(self._clock.spent)
                # A repeat exists to average out noise; stopping unlucky repeats early would bias the mean upwards.
                if task.phase == FINAL or task.seed != self._plan.config.seed:
                    return True
                return self._stopping.goes_on(task.number, task.architecture, self._costs[task.number], curve)
        except TakenOverError:
            self._lost.add(task.number)
            return False

    def task_ended(self, task: Task, fields: dict[str, Any]) -> None:
        costs = self._costs.pop(task.number)
        self._oddities.of_training(task, changed=fields.pop(CHANGED, None), lost=fields.pop(LOST, ()))
        self._end(task, {**costs, **fields})

    def _end(self, task: Task, fields: dict[str, Any]) -> None:
        correct = fields.pop(CORRECT, None)
        try:
            if task.number in self._lost:
                raise TakenOverError(task.number)
            with self._store.together():
                if task.phase == SEARCH and fields["state"] == "complete":
                    self._stopping.finished(task.number, task.architecture, fields)
                    if fields.get("loss") is not None:
                        self._store.mark(task.number, **{LOSS: fields["loss"]})
                if task.phase == SEARCH and fields["state"] == STOPPED:
                    expected = self._stopping.expectation(task.number, task.architecture, fields)
                    self._store.mark(task.number, **expected)
                if correct is not None:
                    fields |= self._store.keep_correct(task.number, correct)
                self._store_end(task, fields)
        except TakenOverError as error:
            self._lost.discard(task.number)
            self._progress.message(
                f"{error}, because this one was silent for too long; it is left to the other"
            )
            fields = {**fields, "state": "unfinished"}
        self._conclude(task, fields)

    def _costs_of(self, task: Task) -> dict[str, Any]:
        """Fields of all costs; those of finalists are measured, mostly beforehand (``measure``)."""
        fields: dict[str, Any] = {}
        for axis in self._plan.axes.values():
            fields |= axis.fields(task.architecture, measure=task.phase == FINAL)
        return fields

    def _store_end(self, task: Task, fields: dict[str, Any]) -> None:
        """Store what came of a candidate, and notify the sampler."""
        if fields["state"] == "unfinished":
            self._store.leave(task.number, **fields)
        else:
            stopped, spent = fields["state"] == STOPPED, self._clock.spent
            with self._store.together():
                self._store.spend(spent)
                self._store.finish(
                    task.number, self._values(fields), stopped=stopped, **fields, elapsed=round(spent, 1)
                )

    def _conclude(self, task: Task, fields: dict[str, Any]) -> None:
        """Notify whoever watches of what came of a candidate, and decide whether the run can go on."""
        lasted = time.monotonic() - self._began.pop(task.number)
        if fields["state"] == "complete":
            # One that was begun in an earlier process has lasted longer than this one knows.
            self._lasted.append(max(lasted, fields["seconds"]))
        self._store.refresh_table()
        self._progress.trial_finished({**task.row, "seed": task.seed, **fields}, self._store)
        self._oddities.of_outcome(fields)

    def _values(self, fields: Mapping[str, Any]) -> list[float] | None:
        if fields["state"] == STOPPED:
            return None
        values = [fields.get(COLUMNS[name]) for name in self._plan.config.objectives]
        if any(value is None or not math.isfinite(value) for value in values):
            return None
        return [float(value) for value in values if value is not None]
