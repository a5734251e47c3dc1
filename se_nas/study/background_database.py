"""A database that is written by a thread, for a pack: its steps must not wait for a disk."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy import Table

from se_nas.study.database import Database

PAUSE = 0.2
"""Seconds between two transactions, in which further writes gather. A process that is killed loses them, and goes on
from the checkpoints of its trainings."""


class BackgroundDatabase:
    """Writes what a `Database` is to write, in the same order, but later.

    Whatever was to become true in one transaction still does: transactions are joined and never divided. An error is
    raised by the next call.

    Args:
        database: already read; nothing else may write to it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.directions: list[StudyDirection] = database.directions
        self._trials: dict[int, FrozenTrial] = {}
        self._attributes: dict[tuple[str, str], tuple[Table, str, Any]] = {}
        self._under_way: dict[int, FrozenTrial] = {}
        self._changed = threading.Condition()
        self._writing = self._closing = self._urgent = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="study", daemon=True)
        self._thread.start()

    def save(self, trials: Iterable[FrozenTrial], attributes: Iterable[tuple[Table, str, Any]] = ()) -> None:
        """As `Database.save`, but it may not be written yet when this returns.

        Raises:
            RunError: an earlier write has failed. What was to be written since is lost.
        """
        found = list(trials)
        with self._changed:
            self._raise()
            self._trials |= {trial.number: trial for trial in found}
            self._attributes |= {(item[0].name, item[1]): item for item in attributes}
            # The checkpoint of a trial that has ended is gone: it would be trained again.
            self._urgent |= any(trial.state.is_finished() for trial in found)
            self._changed.notify_all()

    def saved(self, number: int) -> FrozenTrial | None:
        """A trial as it was last given to ``save``, or read."""
        with self._changed:
            return self._trials.get(number) or self._under_way.get(number) or self._database.saved(number)

    def flush(self) -> None:
        """Return once everything is written.

        Raises:
            RunError: a write has failed.
        """
        with self._changed:
            self._urgent = True
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._error or not (self._trials or self._attributes or self._writing)
            )
            self._raise()

    def close(self) -> None:
        """Write everything and give the database back."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._database.close()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._trials or self._attributes or self._closing)
                if not (self._trials or self._attributes):
                    return
                # Further writes gather meanwhile.
                self._changed.wait_for(lambda: self._urgent or self._closing, timeout=PAUSE)
                self._urgent = False
                trials, attributes = list(self._trials.values()), list(self._attributes.values())
                self._trials, self._attributes, self._writing = {}, {}, True
                self._under_way = {trial.number: trial for trial in trials}
            error: BaseException | None = None
            try:
                self._database.save(trials, attributes)
            except BaseException as raised:
                error = raised
            with self._changed:
                self._writing, self._error = False, error or self._error
                self._under_way = {}
                self._changed.notify_all()
