"""What trains the candidates of a run, and what it says about them.

A phase decides what is trained; an executor trains it, and knows neither the study nor the sampler. It calls back
while it is asked to do something, never from another thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from se_nas.study.executors.task import Curve, Task


class Listener(Protocol):
    """Whoever drives an executor."""

    def epoch_ended(self, task: Task, curve: Curve, metrics: Mapping[str, Any]) -> bool:
        """A candidate has been trained for one more epoch; whether it goes on.

        Args:
            task: the candidate.
            curve: metrics of all epochs so far; shorter than before if the training was started anew.
            metrics: of the last one.
        """

    def task_ended(self, task: Task, fields: dict[str, Any]) -> None:
        """A training has ended, in whichever way; ``fields`` are those of ``CandidateTrainer.train``."""

    def should_stop(self) -> bool:
        """Whether every training is to end at its next batch, as unfinished."""


class Executor(Protocol):
    """Trains up to ``capacity`` candidates at a time."""

    @property
    def capacity(self) -> int:
        """How many tasks may be in training at a time; it may change."""

    @property
    def tasks(self) -> Sequence[Task]:
        """What was submitted and whose end has not yet been reported."""

    def submit(self, task: Task, listener: Listener) -> Mapping[str, Any]:
        """Train a candidate; only with fewer than ``capacity`` tasks.

        May return at once or when the training has ended. Returns what the trial's record should say about
        where it runs.
        """

    def wait(self, listener: Listener) -> None:
        """Return when something was reported, or after a moment in which nothing happened."""

    def paused(self) -> AbstractContextManager[None]:
        """While entered, no training uses the device that this process measures on."""

    def close(self, *, kill: bool = False) -> None:
        """Give everything back; with ``kill``, without waiting for trainings to end."""
