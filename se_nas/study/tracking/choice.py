"""Loggers by name."""

from __future__ import annotations

from collections.abc import Mapping

from se_nas.plugins import Plugins
from se_nas.study.tracking.base import RunLogger
from se_nas.study.tracking.mlflow import MlflowRuns
from se_nas.study.tracking.tensorboard import TensorBoardRuns
from se_nas.study.tracking.wandb import WandbRuns
from se_nas.training import load_logger

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
