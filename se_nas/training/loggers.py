"""Watching a training while it runs: TensorBoard, or any class with the two methods of ``Logger``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from se_nas.errors import ConfigError, blamed
from se_nas.plugins import Plugins
from se_nas.training.context import Logger, TrainResult

TENSORBOARD = "tensorboard"


def load_logger(name: str) -> Callable[[Path], Logger]:
    """What makes the logger of that name in a folder, checked and not called: a logger may create its folder.

    Args:
        name: "tensorboard", or ``package.module:Class``, which is called with the folder.

    Raises:
        ConfigError: there is no such logger, or the package that it needs is not installed.
    """
    make: Any = NAMES.load(name)
    if make is TensorBoardLogger:
        _summary_writer()
    if not callable(make):
        raise ConfigError(f"log {name!r} is {make!r}, which cannot be called.")
    return make


def make_logger(name: str, folder: Path) -> Logger:
    """A logger by name that writes to ``folder``.

    Raises:
        ConfigError: there is no such logger, or it raised while it was made.
    """
    make = load_logger(name)
    with blamed(f"log {name!r}"):
        return make(folder)


class TensorBoardLogger:
    """One TensorBoard run per candidate, in ``folder/NAME``: every number of an epoch is a scalar."""

    def __init__(self, folder: Path) -> None:
        self._make, self._folder = _summary_writer(), folder
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


def _summary_writer() -> Callable[[str], Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "log is 'tensorboard', which is not installed: pip install 'se-nas[tensorboard]'."
        ) from error
    return SummaryWriter


NAMES = Plugins(option="log", built_in={TENSORBOARD: TensorBoardLogger}, form="package.module:Class")
