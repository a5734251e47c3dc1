"""How far a training has come, for its checkpoints and its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from se_nas.training.context import Context, TrainResult
from se_nas.training.metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The last epoch that ended: its metrics, the further values of its report, and the curve up to it."""

    metrics: Metrics
    extra: dict[str, Any]
    curve: list[dict[str, Any]]


@dataclass(kw_only=True)
class Progress:
    """Where a training is.

    Attributes:
        epoch, step: the next step, both from 0.
        loss_sum: sum of the losses of the epoch's steps so far.
        restarts: 1 after a restart with a lower learning rate.
        reached: None before the first epoch has ended.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    restarts: int = 0
    reached: Reached | None = None

    def to_state(self, context: Context) -> dict[str, Any]:
        """Entries of a checkpoint."""
        metrics = None if self.reached is None else self.reached.metrics
        return {
            "identity": identity(context),
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "restarts": self.restarts,
            "micro_batch": context.runtime.micro_batch,
            "curve": list(context.curve),
            "seconds": context.seconds,
            "metrics": metrics and {**metrics.to_dict(), "per_class": list(metrics.per_class)},
            "extra": self.reached and self.reached.extra,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], context: Context, batch_size: int) -> Progress:
        """Go on from a checkpoint: the context too takes over what it knew."""
        if state["micro_batch"] is not None:
            known = context.runtime.micro_batch or batch_size
            context.runtime.micro_batch = min(state["micro_batch"], known)
        context.curve[:] = state["curve"]
        # States of earlier versions do not have them.
        context.go_on_from(state.get("seconds", 0.0))
        reached = None
        if state["metrics"] is not None:
            metrics = Metrics(**{**state["metrics"], "per_class": tuple(state["metrics"]["per_class"])})
            reached = Reached(metrics=metrics, extra=state["extra"], curve=list(context.curve))
        return cls(
            epoch=int(state["epoch"]),
            step=int(state["step"]),
            loss_sum=state["loss_sum"],
            restarts=state["restarts"],
            reached=reached,
        )

    def result(
        self, state: str, context: Context, batch_size: int, skipped: tuple[str, ...], weights: Path | None
    ) -> TrainResult:
        """The result of a training that ends here, in ``state``."""
        reached = self.reached
        values: dict[str, Any] = {"accuracy": None}
        if reached is not None:
            names = ("accuracy", "top5", "loss", "ece", "per_class", "correct")
            values = {name: getattr(reached.metrics, name) for name in names}
            values |= {"train_loss": reached.extra["train_loss"], "curve": tuple(reached.curve)}
        return TrainResult(
            state=state,
            epochs=0 if reached is None else len(reached.curve),
            epochs_planned=context.recipe.epochs,
            seconds=context.seconds,
            batch_size=batch_size,
            micro_batch=min(context.runtime.micro_batch or batch_size, batch_size),
            restarts=self.restarts,
            skipped=skipped,
            weights=weights,
            **values,
        )


def identity(context: Context) -> dict[str, Any]:
    """What must be equal for a checkpoint to be this training's."""
    layout = {"layout": context.layout} if context.layout else {}
    return layout | {
        "recipe": context.recipe.to_dict(),
        "data": context.data.fingerprint,
        "split_seed": context.data.split_seed,
        "input_size": list(context.data.input_size),
        "seed": context.seed,
        "precision": context.runtime.precision,
    }
