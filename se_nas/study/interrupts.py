"""Signals: the first asks a search to stop cleanly, a second one ends it at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
"""Ctrl-C, the end that a system asks for, a terminal that has gone, and Slurm's warning before its time limit."""


class Stopped(KeyboardInterrupt):
    """A signal ends the search at once, because it is the second or because there is nothing to keep yet.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """While entered, the first of ``SIGNALS`` sets ``requested``; the next one raises ``Stopped``.

    A signal that the process ignores, as ``nohup`` has it ignore SIGHUP, stays ignored. Outside the main thread, where
    signals cannot be caught, nothing is changed.

    Args:
        say: is given a line at the first signal.
        at_once: whether the first signal already raises ``Stopped``: nothing is there yet that could be kept.

    Attributes:
        requested: whether the search is to stop.
        number: the first signal; None before it.
    """

    def __init__(self, say: Callable[[str], object], *, at_once: bool = False) -> None:
        self.requested = False
        self.number: int | None = None
        self._say, self._at_once, self._process = say, at_once, os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A process that reads images was forked with this handler: it ends with its parent, or if that ends it.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        if self.requested or self._at_once:
            raise Stopped(number)
        self.requested, self.number = True, number
        if number == getattr(signal, "SIGHUP", None):
            _write_nowhere()
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        self._say(f"{name}: stopping after this batch; a second signal stops at once")


def _write_nowhere() -> None:
    """Whatever wrote to a terminal that has gone would end the search with an error."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None and stream.isatty():
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
