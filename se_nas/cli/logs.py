"""Handlers for the library's logs: ``--quiet``, ``--verbose`` and ``--log-file`` of every command."""

from __future__ import annotations

import logging
import platform
from pathlib import Path

import typer

import se_nas
from se_nas.errors import ConfigError
from se_nas.wording import printable

EVENTS = "se_nas.progress"
"""Logger of what a progress shows too."""


class _OnStandardError(logging.Handler):
    """Writes to what standard error is at the time: a live display replaces it."""

    def emit(self, record: logging.LogRecord) -> None:
        typer.echo(printable(self.format(record)), err=True)


def configure(*, quiet: bool, verbose: bool, log_file: Path | None) -> None:
    """Give the logger ``se_nas`` the handlers that the options ask for, instead of those of an earlier command.

    Raises:
        ConfigError: both ``quiet`` and ``verbose``, or the file cannot be written.
    """
    if quiet and verbose:
        raise ConfigError("--quiet and --verbose cannot be combined; leave one of them out.")
    logger = logging.getLogger("se_nas")
    for handler in [handler for handler in logger.handlers if getattr(handler, "of_command", False)]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.DEBUG if verbose or log_file is not None else logging.WARNING)
    shown = _OnStandardError(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
    shown.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    # Progress says these itself.
    shown.addFilter(lambda record: record.name != EVENTS)
    _add(shown)
    if log_file is not None:
        try:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            written = logging.FileHandler(log_file, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"log_file is {str(log_file)!r}, which cannot be written: {error.strerror}."
            ) from error
        written.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        _add(written)
        logger.debug("se-nas %s, Python %s", se_nas.__version__, platform.python_version())


def _add(handler: logging.Handler) -> None:
    handler.of_command = True  # type: ignore[attr-defined]
    logging.getLogger("se_nas").addHandler(handler)


def is_quiet() -> bool:
    """Whether the command was asked to print nothing but results and errors."""
    return any(
        isinstance(handler, _OnStandardError) and handler.level >= logging.ERROR
        for handler in logging.getLogger("se_nas").handlers
    )
