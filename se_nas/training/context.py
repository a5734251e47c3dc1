"""What a training function receives and returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from se_nas.data import ImageData
from se_nas.training.recipe import Recipe
from se_nas.training.runtime import Runtime

STATES = ("complete", "stopped", "unfinished", "diverged")


class StopTraining(Exception):  # noqa: N818 - it is a signal, as StopIteration is
    """Raised by ``Context.report`` when the study has no use for further epochs."""


class Interrupted(Exception):  # noqa: N818
    """Ends a training from within when the run is being stopped (Ctrl-C, budget)."""


class Logger(Protocol):
    """Sees training while it runs. Give any number of them to ``Context(loggers=...)``."""

    def on_epoch(self, name: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        """After every epoch of the candidate ``name``; ``epoch`` counts from 1."""

    def on_end(self, name: str, result: TrainResult) -> None:
        """After the last."""


@dataclass(kw_only=True)
class Context:
    """Everything that a training needs besides the model. A user's trainer gets the same.

    Attributes:
        data: the images; ``data.train``, ``data.val``.
        recipe: the settings; ``recipe.epochs`` is the planned length.
        runtime: device, precision and memory format, decided once for a run.
        seed: decides order, augmentation and dropout, nothing about the model's first weights.
        checkpoint_dir: folder for checkpoints of this candidate; None keeps none.
        name: the candidate's name in file names and logs.
        on_epoch: called after every epoch as ``on_epoch(epoch, metrics)``; False ends the training early.
        stop: polled between batches; True ends the training as "unfinished", with its checkpoint written.
        loggers: see ``Logger``.
        layout: says how the network's tensors are laid out; a checkpoint with another layout is not gone on from.
    """

    data: ImageData
    recipe: Recipe
    runtime: Runtime
    seed: int = 0
    checkpoint_dir: Path | None = None
    name: str = "candidate"
    on_epoch: Callable[[int, Mapping[str, Any]], bool] | None = None
    stop: Callable[[], bool] | None = None
    loggers: tuple[Logger, ...] = ()
    layout: str = ""
    curve: list[dict[str, Any]] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> str:
        return self.runtime.device

    @property
    def seconds(self) -> float:
        """What the training has taken so far, including the time before an interruption and excluding the time spent
        in ``stop`` and ``on_epoch``, in which a search judges it and may let it rest.
        """
        return time.monotonic() - self._started

    def skip(self, seconds: float) -> None:
        """Do not count these seconds, in which others trained."""
        self._started += seconds

    def go_on_from(self, seconds: float) -> None:
        """Count the seconds that the training had taken when it was interrupted."""
        self._started -= max(0.0, seconds - self.seconds)

    @property
    def epochs(self) -> int:
        return self.recipe.epochs

    def report(self, epoch: int, accuracy: float, **metrics: Any) -> None:
        """Record the validation accuracy (top-1, percent) after an epoch, counted from 1.

        ``loss`` (on the validation images) is what separates close candidates: pass it if you can.

        Raises:
            StopTraining: the study stops this candidate. A trainer need not catch it: the last report counts.
        """
        row = {
            "epoch": epoch,
            "accuracy": float(accuracy),
            "seconds": round(self.seconds, 3),
        }
        # NumPy's scalars, which JSON does not know, become plain numbers.
        row |= {k: v.item() if isinstance(v, np.generic) else v for k, v in metrics.items()}
        self.curve.append(row)
        for logger in self.loggers:
            logger.on_epoch(self.name, epoch, row)
        with self._waiting():
            goes_on = self.on_epoch is None or self.on_epoch(epoch, row)
        if not goes_on:
            raise StopTraining

    def should_stop(self) -> bool:
        """Whether the run is being stopped. Poll this between batches and return what you have."""
        with self._waiting():
            return self.stop is not None and self.stop()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        before = time.monotonic()
        try:
            yield
        finally:
            self._started += time.monotonic() - before


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Outcome of one training.

    Attributes:
        state: "complete", "stopped" (early, by the study), "unfinished" (the run was stopped; resume goes
            on), "diverged" (the loss exploded twice; values are the last good ones).
        accuracy, top5: on the validation images, percent; None if no epoch ended.
        loss: cross-entropy on the validation images (natural logarithm).
        ece: expected calibration error, 15 equal bins (Guo et al. 2017), in [0, 1].
        per_class: accuracy of each class, percent; None for a class without validation images.
        correct: for each validation image, in order, whether it was classified correctly; None if unknown.
        train_loss: mean training loss of the last epoch, with its smoothing and mixing.
        curve: one dictionary per epoch: epoch, accuracy, loss, train_loss, lr, seconds.
        epochs, epochs_planned: trained and planned.
        seconds: ``Context.seconds`` at the end.
        batch_size: images of one optimiser step; ``micro_batch`` those of one pass, smaller after running out
            of memory.
        restarts: 1 after a restart with a lower learning rate.
        skipped: names of images that could not be decoded while training.
        weights: file of the final weights, None without ``checkpoint_dir``.
    """

    state: str
    accuracy: float | None
    top5: float | None = None
    loss: float | None = None
    ece: float | None = None
    per_class: tuple[float | None, ...] = ()
    correct: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    train_loss: float | None = None
    curve: tuple[dict[str, Any], ...] = ()
    epochs: int = 0
    epochs_planned: int = 0
    seconds: float = 0.0
    batch_size: int = 0
    micro_batch: int = 0
    restarts: int = 0
    skipped: tuple[str, ...] = ()
    weights: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without ``correct``."""
        values = {**asdict(self), "weights": None if self.weights is None else str(self.weights)}
        del values["correct"]
        return values
