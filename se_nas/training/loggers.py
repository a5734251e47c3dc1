"""Watching a training while it runs, by any class with the two methods of ``Logger``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from se_nas.errors import ConfigError, blamed
from se_nas.plugins import Plugins
from se_nas.training.context import Logger


def load_logger(name: str) -> Callable[[Path], Logger]:
    """What makes the logger of that name in a folder, checked and not called: a logger may create its folder.

    Args:
        name: ``package.module:Class``, which is called with the folder.

    Raises:
        ConfigError: there is no such logger.
    """
    make: Any = NAMES.load(name)
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


NAMES = Plugins(option="log", built_in={}, form="package.module:Class")
