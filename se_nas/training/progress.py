"""What a training has reached: identity and results, in checkpoints and in the outcome."""

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

    @staticmethod
    def to_state(reached: Reached | None) -> dict[str, Any]:
        """Entries of a checkpoint, without the curve."""
        if reached is None:
            return {"metrics": None, "extra": None}
        metrics = {**reached.metrics.to_dict(), "per_class": list(reached.metrics.per_class)}
        return {"metrics": metrics, "extra": reached.extra}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Reached | None:
        """Inverse of ``to_state``, for a checkpoint with a curve."""
        if state["metrics"] is None:
            return None
        values = {**state["metrics"], "per_class": tuple(state["metrics"]["per_class"])}
        return cls(metrics=Metrics(**values), extra=state["extra"], curve=list(state["curve"]))


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


def outcome(
    state: str,
    context: Context,
    reached: Reached | None,
    *,
    batch_size: int,
    restarts: int,
    skipped: tuple[str, ...],
    weights: Path | None,
) -> TrainResult:
    """The result of a training that ends in ``state`` with what it has reached."""
    micro_batch = min(context.runtime.micro_batch or batch_size, batch_size)
    common: dict[str, Any] = {
        "state": state,
        "epochs_planned": context.recipe.epochs,
        "seconds": context.seconds,
        "batch_size": batch_size,
        "micro_batch": micro_batch,
        "restarts": restarts,
        "skipped": skipped,
        "weights": weights,
    }
    if reached is None:
        return TrainResult(accuracy=None, **common)
    metrics = reached.metrics
    return TrainResult(
        accuracy=metrics.accuracy,
        top5=metrics.top5,
        loss=metrics.loss,
        ece=metrics.ece,
        per_class=metrics.per_class,
        correct=metrics.correct,
        train_loss=reached.extra["train_loss"],
        curve=tuple(reached.curve),
        epochs=len(reached.curve),
        **common,
    )
