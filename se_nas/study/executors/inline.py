"""Trains one candidate at a time, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from se_nas.study.executors.base import Listener
from se_nas.study.executors.task import CandidateTrainer, Setup, Task


class Inline:
    """An ``Executor`` whose ``submit`` returns when the training has ended.

    Args:
        setup: what all trainings share.
    """

    capacity = 1
    tasks: tuple[Task, ...] = ()

    def __init__(self, setup: Setup) -> None:
        self._trainer = CandidateTrainer(setup)

    def submit(self, task: Task, listener: Listener) -> Mapping[str, Any]:
        fields = self._trainer.train(
            task,
            lambda curve, metrics: listener.epoch_ended(task, curve, metrics),
            listener.should_stop,
        )
        listener.task_ended(task, fields)
        return {}

    def wait(self, listener: Listener) -> None:
        """Nothing is in training between two calls of ``submit``."""

    def paused(self) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self, *, kill: bool = False) -> None:
        """Nothing is held."""
