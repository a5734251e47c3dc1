"""Training of candidates: the loop, its settings, its files, and how users plug in their own trainers."""

from se_nas.training.checkpoint import checkpoint_path, disk_used, prune, read_about
from se_nas.training.compile_choice import CompileChoice, choose_compile
from se_nas.training.compiling import block_structures, compile_blocks
from se_nas.training.context import Context, Logger, StopTraining, TrainResult
from se_nas.training.loggers import load_logger, make_logger
from se_nas.training.loop import evaluate, train
from se_nas.training.metrics import Metrics, score
from se_nas.training.randomness import initial_weights
from se_nas.training.recipe import PRESETS, Recipe
from se_nas.training.runtime import FALLBACKS, Runtime
from se_nas.training.session import Training
from se_nas.training.step import Step
from se_nas.training.timing import StepTime, measure_step_time
from se_nas.training.trainers import DEFAULT_TRAINER, Trainer, adapt, load_trainer

__all__ = [
    "DEFAULT_TRAINER",
    "FALLBACKS",
    "PRESETS",
    "CompileChoice",
    "Context",
    "Logger",
    "Metrics",
    "Recipe",
    "Runtime",
    "Step",
    "StepTime",
    "StopTraining",
    "TrainResult",
    "Trainer",
    "Training",
    "adapt",
    "block_structures",
    "checkpoint_path",
    "choose_compile",
    "compile_blocks",
    "disk_used",
    "evaluate",
    "initial_weights",
    "load_logger",
    "load_trainer",
    "make_logger",
    "measure_step_time",
    "prune",
    "read_about",
    "score",
    "train",
]
