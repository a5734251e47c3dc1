"""Ctrl-C and termination: the first asks the search to stop cleanly, a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from se_nas.study.progress import Progress


class Interrupts:
    """While entered, SIGINT and SIGTERM set ``requested``; the next one raises KeyboardInterrupt.

    Outside the main thread, where signals cannot be caught, nothing is changed.
    """

    def __init__(self, progress: Progress) -> None:
        self.requested = False
        self._progress = progress
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._progress.message("stopping after this batch; press Ctrl-C again to stop at once")
