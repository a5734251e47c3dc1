"""Logs a training that is no trial of a study: a retraining."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from se_nas.study.progress import Progress
from se_nas.study.tracking.base import StudyFacts
from se_nas.study.tracking.choice import make_feeds
from se_nas.study.tracking.feed import Feed, say_troubles


@contextmanager
def logged_training(
    names: Sequence[str], study: StudyFacts, row: Mapping[str, Any], progress: Progress
) -> Iterator[LoggedTraining]:
    """Log one training, from its first epoch on; it stays "unfinished" unless `LoggedTraining.end` is called.

    Args:
        names: loggers; those that are not in ``RUN_LOGGERS`` are left out.
        study: the group that the run is in, and the folder for the loggers' files.
        row: what is known of the training before it begins, ``number`` and ``phase`` at least.
        progress: gets the sentence about a logger that fails.
    """
    logged = LoggedTraining(make_feeds(names, study), row, progress)
    try:
        yield logged
    finally:
        logged.close()


class LoggedTraining:
    """See `logged_training`.

    Args:
        feeds: the loggers.
        row: what is known of the training before it begins.
        progress: gets the sentence about a logger that fails.
    """

    def __init__(self, feeds: Sequence[Feed], row: Mapping[str, Any], progress: Progress) -> None:
        self._feeds, self._progress = feeds, progress
        self._row: dict[str, Any] = {**row, "curve": (), "state": "running"}
        self._attempt = 0

    def epoch(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Log what the training has reported so far, epochs of earlier processes included."""
        if len(curve) <= len(self._row["curve"]):
            # It diverged and begins anew, with a lower rate.
            self._attempt += 1
        self._row["curve"] = tuple(map(dict, curve))
        self._put()

    def end(self, found: Mapping[str, Any]) -> None:
        """Log the results of a training that is complete; nothing may follow."""
        self._row |= {**found, "epochs": len(self._row["curve"]), "state": "complete"}

    def close(self) -> None:
        """Close the run, wait a moment for the loggers, and end them."""
        if self._row["state"] == "running":
            self._row["state"] = "unfinished"
        # Without an epoch in this process, what an earlier one has logged stays as it is.
        if self._row["curve"]:
            self._put()
        for feed in self._feeds:
            feed.close()
        say_troubles(self._feeds, self._progress.message)

    def _put(self) -> None:
        for feed in self._feeds:
            feed.put(dict(self._row), self._attempt)
        say_troubles(self._feeds, self._progress.message)
