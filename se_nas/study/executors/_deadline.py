"""The end of a training that takes too long: its process is ended, wherever it is."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from se_nas.run import writing
from se_nas.study.config import SearchConfig

KILL_SECONDS = 60.0
"""How long a process may take to start, and to write its stacks after a candidate's deadline."""


def stacks_of(folder: Path, number: int) -> Path:
    """Where the stacks of a trial are that was ended at its deadline."""
    return folder / f"stacks-of-trial-{number}.txt"


def too_late(config: SearchConfig, folder: Path, number: int) -> dict[str, Any]:
    """Fields of a trial that was ended at its deadline."""
    error = f"it took longer than candidate_timeout ({config.candidate_timeout})"
    path = stacks_of(folder, number)
    if path.exists():
        error += f"; {path.name} shows where it was"
    return {"state": "failed", "error": error}


class Deadline:
    """Ends this process if a training takes longer, with the stacks of its threads in a file.

    Args:
        seconds: that a training may take; None for no limit.
        folder: of the file.
    """

    def __init__(self, seconds: float | None, folder: Path) -> None:
        self._seconds, self._folder = seconds, folder
        self._end: float | None = None
        self._stacks: TextIO | None = None

    @contextmanager
    def within(self, number: int) -> Iterator[None]:
        """While entered, the training of this trial runs against the clock."""
        if self._seconds is None:
            yield
            return
        path = stacks_of(self._folder, number)
        with writing(path):
            self._stacks = path.open("w")
        with self._stacks:
            self._end = time.monotonic() + self._seconds
            self._watch()
            try:
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
                self._end = None
        path.unlink()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """While entered, the clock stands still."""
        began = time.monotonic()
        faulthandler.cancel_dump_traceback_later()
        yield
        if self._end is not None:
            self._end += time.monotonic() - began
            self._watch()

    def _watch(self) -> None:
        if self._end is not None and self._stacks is not None:
            left = max(0.01, self._end - time.monotonic())
            faulthandler.dump_traceback_later(left, exit=True, file=self._stacks)
