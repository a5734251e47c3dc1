"""Feeds one logger from a thread of its own, so that a slow or absent server never holds up the search."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from se_nas.errors import SeNasError
from se_nas.run import read_json, write_json
from se_nas.study.tracking.base import UNFINISHED, Row, RunLogger

RETRY_SECONDS = 60.0
"""How long a logger that has failed is left alone."""
CLOSE_SECONDS = 45.0
"""How long the end of a search may wait for its loggers."""
_SECRET = re.compile(r"KEY|TOKEN|PASSWORD|SECRET")
_LONGEST = 200


class Feed:
    """Brings the runs of one logger up to date with the rows that it is given.

    Only the latest row of a trial counts, so nothing is lost while the logger fails: it is tried again with
    what there is then. Trials that are logged to their end are noted in a file, by which those that are missing are
    found when the run goes on.

    Args:
        name: of the logger.
        make: makes the logger; called in the thread.
        noted: the file.
    """

    def __init__(self, name: str, make: Callable[[], RunLogger], noted: Path) -> None:
        self.name = name
        self._make, self._noted = make, noted
        self._logger: RunLogger | None = None
        self._pending: dict[int, tuple[Row, int]] = {}
        self._held: dict[int, tuple[int, int]] = {}
        self._done = _read(noted)
        self._changed = threading.Condition()
        self._closing = False
        self._trouble: str | None = None
        self._told = False
        self._thread = threading.Thread(target=self._run, name=f"log {name}", daemon=True)
        self._thread.start()

    @property
    def done(self) -> frozenset[int]:
        """Trials that were logged to their end."""
        return frozenset(self._done)

    def put(self, row: Row, attempt: int = 0) -> None:
        """Log the state of a trial, soon.

        Args:
            row: all that is known of it, its whole ``curve`` included; it must not change any more.
            attempt: counts how often the training has begun anew, by which its curve is a new one.
        """
        with self._changed:
            self._pending[row["number"]] = row, attempt
            self._changed.notify()

    def trouble(self) -> str | None:
        """Why the logger does not work, in a sentence without secrets; only once, and None if it does."""
        if self._trouble is None or self._told:
            return None
        self._told = True
        return (
            f"log {self.name} does not work, and training continues without it: {self._trouble}. What is missing is"
            " logged as soon as it works again, or when the run is resumed"
        )

    def close(self) -> None:
        """Log what there is, as far as that is possible in ``CLOSE_SECONDS``, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive() and self._trouble is None:
            self._trouble = f"it takes more than {CLOSE_SECONDS:.0f} s to end"

    def _run(self) -> None:
        while self._wait_for_work():
            with self._changed:
                number = next(iter(self._pending))
                row, attempt = self._pending.pop(number)
            try:
                self._bring_up_to_date(row, attempt)
            except Exception as error:
                self._trouble = self._trouble or without_secrets(error)
                # What the service knows of it is asked for again.
                self._held.pop(number, None)
                with self._changed:
                    self._pending.setdefault(number, (row, attempt))
                    if self._closing:
                        return
                    self._changed.wait_for(lambda: self._closing, RETRY_SECONDS)
        if self._logger is not None:
            try:
                self._logger.close()
            except Exception as error:
                self._trouble = self._trouble or without_secrets(error)

    def _wait_for_work(self) -> bool:
        """Return when there is a row to log; False if there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._pending) or self._closing)
            return bool(self._pending)

    def _bring_up_to_date(self, row: Row, attempt: int) -> None:
        if self._logger is None:
            self._logger = self._make()
        number = row["number"]
        if number not in self._held:
            self._held[number] = self._logger.begin(row), attempt
        epochs, of_attempt = self._held[number]
        if of_attempt != attempt:
            epochs = 0
        for entry in row.get("curve") or ():
            if entry["epoch"] > epochs:
                self._logger.epoch(row, entry)
                epochs = entry["epoch"]
                self._held[number] = epochs, attempt
        if row["state"] != "running":
            self._logger.end(row)
            del self._held[number]
        if row["state"] not in UNFINISHED:
            self._done.add(number)
            self._noted.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._noted, sorted(self._done))


def say_troubles(feeds: Iterable[Feed], say: Callable[[str], None]) -> None:
    """Say which loggers do not work, each once."""
    for feed in feeds:
        trouble = feed.trouble()
        if trouble is not None:
            say(trouble)


def without_secrets(error: BaseException) -> str:
    """The first line of an error, without credentials in addresses and without secrets of the environment."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = re.sub(r"//[^/@\s]+@", "//", text)
    for name, value in os.environ.items():
        if _SECRET.search(name.upper()) and len(value) >= 4:
            text = text.replace(value, "***")
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"{type(error).__name__}: {cut.rstrip('.')}" if cut else type(error).__name__


def _read(path: Path) -> set[int]:
    """The numbers in a file; none if there is none, or it is damaged: logging twice harms less than stopping."""
    try:
        found: Any = read_json(path)
    except (OSError, SeNasError):
        return set()
    return {number for number in found if isinstance(number, int)} if isinstance(found, list) else set()
