"""Loggers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from se_nas.plugins import Plugins
from se_nas.study.tracking.base import RunLogger, StudyFacts
from se_nas.study.tracking.feed import Feed
from se_nas.study.tracking.mlflow import MlflowRuns
from se_nas.study.tracking.tensorboard import TensorBoardRuns
from se_nas.study.tracking.wandb import WandbRuns
from se_nas.training import Logger, load_logger, make_logger

RUN_LOGGERS: Mapping[str, type[RunLogger]] = {
    "mlflow": MlflowRuns,
    "tensorboard": TensorBoardRuns,
    "wandb": WandbRuns,
}
NAMES = Plugins(option="log", built_in=RUN_LOGGERS, form="package.module:Class")


def check_log(name: str) -> None:
    """Refuse a logger that cannot be used here.

    Args:
        name: one of ``RUN_LOGGERS``, or ``package.module:Class``, a logger of each training (`se_nas.training.Logger`).

    Raises:
        ConfigError: there is no such logger, its package is missing, or the user has to set something up first.
    """
    if name in RUN_LOGGERS:
        RUN_LOGGERS[name].check()
    elif ":" in name:
        load_logger(name)
    else:
        raise NAMES.unknown(name)


def make_loggers(names: Sequence[str] | None, folder: Path) -> tuple[Logger, ...]:
    """Those loggers that watch each training, in the process that trains; ``folder`` is for their files."""
    return tuple(make_logger(name, folder) for name in names or () if name not in RUN_LOGGERS)


def make_feeds(names: Sequence[str] | None, study: StudyFacts) -> list[Feed]:
    """Those loggers that keep a run per trial, each in a thread of its own."""
    return [
        Feed(name, partial(RUN_LOGGERS[name], study), study.folder / f"{name}-trials.json")
        for name in dict.fromkeys(names or ())
        if name in RUN_LOGGERS
    ]
