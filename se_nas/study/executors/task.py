"""A candidate to train, what all trainings of a run share, and the training of one."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from se_nas.architecture import Architecture
from se_nas.data import ImageData
from se_nas.errors import CheckpointError, DataError, InfeasibleError, SeNasError
from se_nas.run import FINAL, refused
from se_nas.study.candidate import build_candidate
from se_nas.study.config import SearchConfig
from se_nas.study.executors._global_state import kept
from se_nas.study.tracking import make_loggers
from se_nas.training import (
    Context,
    Logger,
    Recipe,
    Runtime,
    TrainResult,
    evaluate,
    load_trainer,
)
from se_nas.training.checkpoint import STATE, checkpoint_path, load_state
from se_nas.training.loader import damaged_names
from se_nas.wording import counted

CORRECT = "correct"
"""Key of which validation images were classified right; these go to a file, not into the row."""
CHANGED = "changed"
"""Key of what a trainer has changed for the whole process (`_global_state.kept`); it is not a field of a row either."""
LOST = "lost"
"""Key of the names of training images that could be read when the run began and no longer can."""
_MEASURED = ("accuracy", "top5", "loss", "train_loss", "ece")
Curve = Sequence[dict[str, Any]]


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
    """Trains candidates of one run, one at a time, with the trainer that the configuration names."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._train = load_trainer(setup.config.trainer)
        self._loggers = make_loggers(setup.config.log, setup.logs)

    def train(
        self, task: Task, on_epoch: Callable[[Curve, dict[str, Any]], bool], stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Fields of the candidate's row, and ``CORRECT``, ``LOST`` and ``CHANGED`` if they apply.

        The process is put back into the state in which the trainer found it.

        ``seconds`` are the candidate's: building, training, validation and checkpoints, before an interruption
        too, without what it waits in ``on_epoch`` and ``stop``. A candidate that does not fit the machine is
        "infeasible", one that raises is "failed" with its error.

        Args:
            task: the candidate.
            on_epoch: gets the curve so far and the epoch's metrics; False ends the training early.
            stop: polled between batches; True ends the training as unfinished.

        Raises:
            DiskError: the disk refuses what the training writes.
        """
        context = make_context(self._setup, task, self._setup.runtime, self._loggers, on_epoch, stop)
        changed: list[str] = []
        try:
            with kept(changed):
                model = build(self._setup, task)
                fields = outcome(task, self._train(model, context), model, context)
        except Exception as error:
            fields = failure(error)
        if changed:
            fields[CHANGED] = changed
        return {**fields, "seconds": round(context.seconds, 3)}


def make_context(
    setup: Setup,
    task: Task,
    runtime: Runtime,
    loggers: tuple[Logger, ...],
    on_epoch: Callable[[Curve, dict[str, Any]], bool],
    stop: Callable[[], bool],
    layout: str = "",
) -> Context:
    """What the training of a candidate is given; see ``CandidateTrainer.train`` and ``Context``."""

    def report(epoch: int, metrics: Mapping[str, Any]) -> bool:
        _refuse_lost(setup.data, "val")
        # The context's curve is whole after a resume and begins anew after a restart with a lower rate.
        return on_epoch([_plain(entry) for entry in context.curve], _plain(metrics))

    context = Context(
        data=setup.data,
        recipe=setup.recipe,
        runtime=runtime,
        seed=task.seed,
        checkpoint_dir=setup.checkpoints,
        name=task.architecture.key,
        on_epoch=report,
        stop=stop,
        loggers=loggers,
        layout=layout,
    )
    return context


def build(setup: Setup, task: Task) -> nn.Module:
    """The network of a candidate with its first weights, on the CPU."""
    return build_candidate(
        task.architecture,
        setup.config,
        setup.recipe,
        num_classes=setup.data.num_classes,
        seed=task.seed,
    )


def outcome(task: Task, result: TrainResult, model: nn.Module, context: Context) -> dict[str, Any]:
    """Fields of the row of a candidate whose training has ended; a finalist sees the test images."""
    fields = {
        **{name: _finite(getattr(result, name)) for name in _MEASURED},
        "state": result.state,
        "epochs": result.epochs,
        "curve": [_plain(entry) for entry in result.curve],
    }
    if result.state == "complete" and result.correct is not None:
        fields[CORRECT] = result.correct
    if result.skipped:
        fields[LOST] = list(result.skipped)
    if task.phase == FINAL and result.state == "complete" and context.data.test is not None:
        fields["test_accuracy"] = evaluate(model, context, "test").accuracy
        _refuse_lost(context.data, "test")
    return fields


def _refuse_lost(data: ImageData, split: str) -> None:
    """Images that could be read when the run began and no longer can: accuracies would not be comparable.

    Raises:
        DataError: there are such images.
    """
    names = damaged_names(data, split)
    if names:
        raise DataError(f"{lost_images(names, split)}. Once they are back, the run can continue.")


def lost_images(names: Sequence[str], split: str) -> str:
    """What has happened to images, in words."""
    words = {"train": "training image", "val": "validation image", "test": "test image"}
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{counted(len(names), words[split])} can no longer be read: {shown}"


def stopped_after(curve: Curve) -> dict[str, Any]:
    """Fields of the row of a candidate that was stopped after these epochs: those that ``outcome`` would give."""
    last = curve[-1]
    return {
        **{name: last.get(name) for name in _MEASURED},
        "state": "stopped",
        "epochs": len(curve),
        "curve": list(curve),
        "seconds": last.get("seconds"),
    }


def set_aside_damaged(checkpoints: Path, task: Task) -> str | None:
    """Rename a training state that cannot be read, so that the candidate is trained anew; returns what was done."""
    path = checkpoint_path(checkpoints, task.architecture.key, task.seed, STATE)
    try:
        load_state(path)
    except CheckpointError as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        return f"trial {task.number} starts over, and its state was set aside as {aside.name}: {error}"
    return None


def failure(error: Exception) -> dict[str, Any]:
    """Fields of a candidate whose training or measurement raised.

    Raises:
        DiskError: the disk's fault, not the candidate's: the search has to end, and goes on once that is mended.
    """
    if (fault := refused(error)) is not None:
        raise fault from error
    if isinstance(error, DataError):
        # Not the candidate's fault, and nothing that another one would be spared.
        return {"state": "unfinished", "error": str(error)}
    if isinstance(error, InfeasibleError | torch.OutOfMemoryError):
        return {"state": "infeasible", "error": str(error)}
    if isinstance(error, SeNasError):
        return {"state": "failed", "error": str(error)}
    last = traceback.extract_tb(error.__traceback__)[-1]
    return {
        "state": "failed",
        "error": f"{type(error).__name__}: {error} ({last.name}, line {last.lineno})",
    }


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _finite(value) for name, value in metrics.items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
