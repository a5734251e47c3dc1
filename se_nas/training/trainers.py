"""Users' training functions: ``train(model, context) -> {"accuracy": ...}`` instead of the built-in loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from torch import nn

from se_nas.errors import ConfigError
from se_nas.plugins import Plugins
from se_nas.training.context import STATES, Context, StopTraining, TrainResult
from se_nas.training.loop import train

DEFAULT_TRAINER = "default"
NAMES = Plugins(
    option="trainer",
    built_in={DEFAULT_TRAINER: train},
    group="se_nas.trainers",
    form="package.module:function",
)

Trainer = Callable[[nn.Module, Context], TrainResult]
"""What the study calls: the built-in ``train``, or a user's function behind ``adapt``."""


def load_trainer(name: str) -> Trainer:
    """A trainer by name: "default", an entry point of ``se_nas.trainers``, or ``package.module:function``.

    Raises:
        ConfigError: there is no such trainer, or it cannot be imported.
    """
    if name == DEFAULT_TRAINER:
        return train
    function = NAMES.load(name)
    return train if function is train else adapt(function, f"trainer {name!r}")


def adapt(function: Callable[[nn.Module, Context], Mapping[str, Any]], name: str = "the trainer") -> Trainer:
    """Make a user's function look like the built-in loop.

    It returns a mapping with ``accuracy`` (top-1 on ``context.data.val``, percent) and whatever it knows of
    ``loss``, ``top5``, ``ece``, ``per_class``, ``train_loss``, ``state`` and ``correct``: for each image of
    ``context.data.val``, in order, whether it was classified correctly; intervals then cover the choice of
    images. If it lets ``StopTraining`` of ``context.report`` pass, the last report counts. Other exceptions
    pass through.

    Raises (when called):
        ConfigError: what it returned is not such a mapping.
    """
    if not callable(function):
        raise ConfigError(f"{name} is {function!r}, which cannot be called.")

    def run(model: nn.Module, context: Context) -> TrainResult:
        try:
            returned: Mapping[str, Any] = function(model, context)
            cut_short = context.should_stop() and len(context.curve) < context.epochs
            state = "unfinished" if cut_short else "complete"
        except StopTraining:
            returned, state = context.curve[-1], "stopped"
        result = _checked(returned, name, len(context.data.val), state)
        return TrainResult(
            state=result["state"],
            accuracy=result["accuracy"],
            top5=result.get("top5"),
            loss=result.get("loss"),
            ece=result.get("ece"),
            per_class=tuple(result.get("per_class", ())),
            correct=result.get("correct"),
            train_loss=result.get("train_loss"),
            curve=tuple(context.curve),
            epochs=len(context.curve),
            epochs_planned=context.epochs,
            seconds=context.seconds,
            batch_size=context.recipe.batch_size,
            micro_batch=context.recipe.batch_size,
        )

    return run


def _checked(returned: Any, name: str, num_val: int, state: str) -> dict[str, Any]:
    if isinstance(returned, TrainResult):
        returned = {**returned.to_dict(), "correct": returned.correct}
    if not isinstance(returned, Mapping) or "accuracy" not in returned:
        got = sorted(returned) if isinstance(returned, Mapping) else type(returned).__name__
        raise ConfigError(f"{name} returned {got}; it must return a mapping with 'accuracy' in percent.")
    result = {"state": state, **returned}
    for field in ("accuracy", "loss", "top5", "ece", "train_loss"):
        value = result.get(field)
        # NumPy's scalars are real numbers; truth values are not meant as 0 and 1.
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value)
        ):
            raise ConfigError(f"{name} returned {field} {value!r}; it must be a finite number.")
        result[field] = None if value is None else float(value)
    accuracy = result["accuracy"]
    # A training that is stopped in its first epoch has none yet.
    missing = accuracy is None and result["state"] != "unfinished"
    if missing or (accuracy is not None and not 0 <= accuracy <= 100):
        raise ConfigError(f"{name} returned accuracy {accuracy!r}; it must be a percentage, 0 to 100.")
    if result.get("correct") is not None:
        correct = np.asarray(result["correct"])
        if correct.dtype != np.bool_ or correct.shape != (num_val,):
            raise ConfigError(
                f"{name} returned correct with type {correct.dtype} and shape {correct.shape}; it must hold a"
                f" truth value for each of the {num_val} validation images."
            )
        result["correct"] = correct
    if result["state"] not in STATES:
        raise ConfigError(f"{name} returned state {result['state']!r}; allowed: {', '.join(STATES)}.")
    return result
