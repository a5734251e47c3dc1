"""Watching a training while it runs: TensorBoard, or any class with the two methods of ``Logger``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from se_nas.errors import ConfigError
from se_nas.training.context import Logger, TrainResult

TENSORBOARD = "tensorboard"


def make_logger(name: str, folder: Path) -> Logger:
    """A logger by name: "tensorboard", or ``package.module:Class``, which is called with the folder.

    Raises:
        ConfigError: there is no such logger, or the package that it needs is not installed.
    """
    if name == TENSORBOARD:
        return TensorBoardLogger(folder)
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigError(f"log is {name!r}; allowed: {TENSORBOARD} or package.module:Class.")
    try:
        made: Logger = getattr(importlib.import_module(module), attribute)(folder)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"log {name!r} cannot be imported: {error}.") from error
    return made


class TensorBoardLogger:
    """One TensorBoard run a candidate, in ``folder/NAME``: every number of an epoch is a scalar."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "log is 'tensorboard', which is not installed: pip install 'se-nas[tensorboard]'."
            ) from error
        self._make, self._folder = SummaryWriter, folder
        self._writers: dict[str, Any] = {}

    def on_epoch(self, name: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        writer = self._writers.get(name)
        if writer is None:
            writer = self._writers[name] = self._make(str(self._folder / name))
        for tag, value in metrics.items():
            if tag != "epoch" and isinstance(value, int | float):
                writer.add_scalar(tag, value, epoch)
        writer.flush()

    def on_end(self, name: str, result: TrainResult) -> None:
        writer = self._writers.pop(name, None)
        if writer is not None:
            writer.close()
