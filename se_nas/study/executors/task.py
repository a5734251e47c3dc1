"""A candidate to train, what all trainings of a run share, and the training of one."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from se_nas.architecture import Architecture
from se_nas.data import ImageData
from se_nas.errors import InfeasibleError, SeNasError
from se_nas.run import FINAL
from se_nas.study.candidate import build_candidate
from se_nas.study.config import SearchConfig
from se_nas.training import Context, Recipe, Runtime, TrainResult, evaluate, load_trainer, make_logger

CORRECT = "correct"
"""Key of which validation images were classified right; these go to a file, not into the row."""
_MEASURED = ("accuracy", "top5", "loss", "train_loss", "ece")
Curve = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One candidate to train with one seed; ``number`` is its trial's."""

    number: int
    architecture: Architecture
    seed: int
    phase: str

    @property
    def row(self) -> dict[str, Any]:
        """What identifies the trial for those who watch."""
        return {
            "number": self.number,
            "key": self.architecture.key,
            "description": self.architecture.describe(),
            "phase": self.phase,
        }


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all trainings of a run share.

    Attributes:
        config: what the user asked.
        data: the images.
        recipe: training settings.
        runtime: device, precision and memory format; learns what fits in memory and what can be compiled.
        folder: of the run, for what belongs to this machine's workers.
        checkpoints: folder of states and weights.
        logs: folder of the logger.
    """

    config: SearchConfig
    data: ImageData
    recipe: Recipe
    runtime: Runtime
    folder: Path
    checkpoints: Path
    logs: Path


class CandidateTrainer:
    """Trains candidates of one run, one at a time."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._train = load_trainer(setup.config.trainer)
        log = setup.config.log
        self._loggers = () if log is None else (make_logger(log, setup.logs),)

    def train(
        self, task: Task, on_epoch: Callable[[Curve, dict[str, Any]], bool], stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Fields of the candidate's row, and ``CORRECT`` if it is known.

        ``seconds`` are the candidate's own: building, training, validation and checkpoints, before an
        interruption too, without what it waits in ``on_epoch`` and ``stop``. A candidate that does not fit the
        machine is "infeasible", one that raises is "failed" with its error.

        Args:
            task: the candidate.
            on_epoch: gets the curve so far and the epoch's metrics; False ends the training early.
            stop: polled between batches; True ends the training as unfinished.
        """
        setup = self._setup

        def report(epoch: int, metrics: Mapping[str, Any]) -> bool:
            # The context's curve is whole after a resume and begins anew after a restart with a lower rate.
            return on_epoch([_plain(entry) for entry in context.curve], _plain(metrics))

        context = Context(
            data=setup.data,
            recipe=setup.recipe,
            runtime=setup.runtime,
            seed=task.seed,
            checkpoint_dir=setup.checkpoints,
            name=task.architecture.key,
            on_epoch=report,
            stop=stop,
            loggers=self._loggers,
        )
        try:
            fields = self._trained(task, context)
        except Exception as error:
            fields = failure(error)
        return {**fields, "seconds": round(context.seconds, 3)}

    def _trained(self, task: Task, context: Context) -> dict[str, Any]:
        model = build_candidate(
            task.architecture,
            self._setup.config,
            self._setup.recipe,
            num_classes=context.data.num_classes,
            seed=task.seed,
        )
        result = self._train(model, context)
        fields = _fields(result)
        if result.state == "complete" and result.correct is not None:
            fields[CORRECT] = result.correct
        if task.phase == FINAL and result.state == "complete" and context.data.test is not None:
            fields["test_accuracy"] = evaluate(model, context, "test").accuracy
        return fields


def failure(error: Exception) -> dict[str, Any]:
    """Fields of a candidate whose training or measurement raised."""
    if isinstance(error, InfeasibleError | torch.OutOfMemoryError):
        return {"state": "infeasible", "error": str(error)}
    if isinstance(error, SeNasError):
        return {"state": "failed", "error": str(error)}
    last = traceback.extract_tb(error.__traceback__)[-1]
    return {
        "state": "failed",
        "error": f"{type(error).__name__}: {error} ({last.name}, line {last.lineno})",
    }


def _fields(result: TrainResult) -> dict[str, Any]:
    return {
        **{name: _finite(getattr(result, name)) for name in _MEASURED},
        "state": result.state,
        "epochs": result.epochs,
        "curve": [_plain(entry) for entry in result.curve],
    }


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _finite(value) for name, value in metrics.items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
