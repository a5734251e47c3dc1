"""The end of a training that takes too long: its process is ended, wherever it is.

A process that trains one candidate ends itself (``Deadline``). One that trains a pack says which candidate hangs
(``Watch``), so that the others can go on elsewhere.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from se_nas.run import writing
from se_nas.study.config import SearchConfig
from se_nas.wording import counted

KILL_SECONDS = 60.0
"""How long a process may take to start, and to write its stacks after a candidate's deadline."""
HANG_SECONDS = 10.0
"""How long a candidate's turn in a pack may go on after its deadline; a longer one is not going to end."""
LOOK_SECONDS = 1.0
"""Between looks whether one does."""


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


def ended_for(number: int, others: int) -> str:
    """A line about the process of a pack that was ended because one trial hangs, beside so many others."""
    return (
        f"trial {number} hangs and its process was ended; {counted(others, 'trial')} beside it"
        f" {'continues' if others == 1 else 'continue'} in a new one"
    )


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


class Watch:
    """A thread that looks whether a candidate of a pack in this process hangs; if one does, the process has to end.

    Args:
        hanging: gives the number of the trial that hangs, or None; it is called in the thread.
        report: is called in the thread once the stacks of all threads are in a file. This process is ended a little
            later, unless somebody else has ended it.
        folder: of the file.
        seconds: that a training may take. If the thread is kept from running for longer than that, by code that
            holds Python's lock, nobody knows who hangs: the process ends with its stacks on standard error.
    """

    def __init__(
        self,
        hanging: Callable[[], int | None],
        report: Callable[[int], object],
        folder: Path,
        seconds: float,
    ) -> None:
        self._hanging, self._report, self._folder, self._seconds = hanging, report, folder, seconds
        threading.Thread(target=self._run, name="se-nas watch", daemon=True).start()

    def _run(self) -> None:
        while (number := self._hanging()) is None:
            faulthandler.dump_traceback_later(self._seconds + KILL_SECONDS, exit=True, file=2)
            time.sleep(LOOK_SECONDS)
        faulthandler.cancel_dump_traceback_later()
        # A disk that refuses them must not keep the process.
        with suppress(OSError), stacks_of(self._folder, number).open("w") as file:
            faulthandler.dump_traceback(file)
        self._report(number)
        time.sleep(KILL_SECONDS)
        os._exit(1)
