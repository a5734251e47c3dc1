"""``train``: one candidate, from its first weights to its final ones; ``evaluate`` on a split."""

from __future__ import annotations

from torch import nn

from se_nas.training.context import Context, TrainResult
from se_nas.training.evaluation import Evaluation
from se_nas.training.metrics import Metrics
from se_nas.training.session import Training, make_batches

__all__ = ["evaluate", "make_batches", "train"]


def train(model: nn.Module, context: Context) -> TrainResult:
    """Train a model as ``context.recipe`` says and evaluate it after every epoch.

    The model is changed in place and ends with its final weights (those of the average, if the recipe has
    one), on ``context.device``. On a CPU the result is a function of first weights, recipe, data and seed,
    for a given number of threads. If ``context.checkpoint_dir`` holds a state of this candidate, training
    goes on from there, with the same result as without the interruption.

    Raises:
        InfeasibleError: a single image does not fit in the device's memory.
        CheckpointError: the checkpoint found does not fit.
        DiskError: a checkpoint cannot be written.
        DataError: too many images cannot be decoded, or the model has fewer outputs than the data has classes.
    """
    training = Training(model, context)
    while training.advance():
        pass
    return training.result()


def evaluate(model: nn.Module, context: Context, split: str = "val") -> Metrics:
    """Metrics of a model on ``data.val`` or ``data.test``, in the runtime's precision."""
    augment = make_batches(context).augment
    return Evaluation(model, context.data, augment, context.runtime, split)()
