"""Training of candidates: the loop, its settings, its files, and the door for users' own trainers."""

from se_nas.training.checkpoint import checkpoint_path, disk_used, prune, read_about
from se_nas.training.context import Context, Logger, StopTraining, TrainResult
from se_nas.training.loop import evaluate, train
from se_nas.training.metrics import Metrics, score
from se_nas.training.randomness import initial_weights
from se_nas.training.recipe import PRESETS, Recipe
from se_nas.training.runtime import Runtime
from se_nas.training.timing import StepTime, measure_step_time

__all__ = [
    "PRESETS",
    "Context",
    "Logger",
    "Metrics",
    "Recipe",
    "Runtime",
    "StepTime",
    "StopTraining",
    "TrainResult",
    "checkpoint_path",
    "disk_used",
    "evaluate",
    "initial_weights",
    "measure_step_time",
    "prune",
    "read_about",
    "score",
    "train",
]
