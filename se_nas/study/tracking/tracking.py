"""Gives the events of a search to its loggers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from se_nas.run import Manifest
from se_nas.study.progress import Progress
from se_nas.study.tracking.base import UNFINISHED, StudyFacts
from se_nas.study.tracking.choice import make_feeds
from se_nas.study.tracking.feed import Feed, say_troubles

if TYPE_CHECKING:
    from se_nas.study.storage import StudyStore


@contextmanager
def tracked(
    names: Sequence[str], manifest: Manifest, folder: Path, store: StudyStore, progress: Progress
) -> Iterator[Progress]:
    """What the events of a search have to be given to, so that its loggers see them besides ``progress``.

    Args:
        names: loggers; those that are not in ``RUN_LOGGERS`` are left to the trainings.
        manifest: of the run.
        folder: for the loggers' files.
        store: the study.
        progress: gets every event, and the sentence about a logger that fails.
    """
    feeds = make_feeds(names, StudyFacts.of(manifest, folder))
    if not feeds:
        yield progress
        return
    tracking = Tracking(feeds, store, progress)
    try:
        yield tracking
    finally:
        tracking.end()


class Tracking(Progress):
    """Logs every trial that this process trains, and those of the run that its loggers lack.

    Args:
        feeds: the loggers.
        store: the study.
        progress: gets every event, too.
    """

    def __init__(self, feeds: Sequence[Feed], store: StudyStore, progress: Progress) -> None:
        self._feeds, self._store, self._progress = feeds, store, progress
        self._rows: dict[int, dict[str, Any]] = {}
        self._attempts: dict[int, int] = {}
        if not store.shared:
            self._catch_up()

    def trial_started(self, row: Mapping[str, Any]) -> None:
        self._progress.trial_started(row)
        known = self._store.row(row["number"])
        self._log({**known, **row, "curve": tuple(known["curve"] or ()), "state": "running"})

    def epoch(self, row: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        self._progress.epoch(row, metrics)
        known = self._rows[row["number"]]
        curve = known["curve"]
        if curve and metrics["epoch"] <= curve[-1]["epoch"]:
            # A training that diverged begins anew, with a lower rate.
            curve = tuple(entry for entry in curve if entry["epoch"] < metrics["epoch"])
            self._attempts[row["number"]] = self._attempts.get(row["number"], 0) + 1
        self._log({**known, "curve": (*curve, dict(metrics))})

    def trial_finished(self, row: Mapping[str, Any], store: StudyStore) -> None:
        self._progress.trial_finished(row, store)
        self._log({**self._rows[row["number"]], **store.row(row["number"]), "state": row["state"]})
        del self._rows[row["number"]]

    def end(self) -> None:
        """Wait a moment for the loggers, and end them."""
        for feed in self._feeds:
            feed.close()
        say_troubles(self._feeds, self._progress.message)

    def message(self, text: str) -> None:
        self._progress.message(text)

    def plan(self, description: Sequence[tuple[str, str]]) -> None:
        self._progress.plan(description)

    def images_checked(self, done: int, total: int) -> None:
        self._progress.images_checked(done, total)

    def networks_measured(self, done: int, total: int) -> None:
        self._progress.networks_measured(done, total)

    def phase(self, name: str, seconds: float) -> None:
        self._progress.phase(name, seconds)

    def outlook(self, done: int, planned: int, seconds: float) -> None:
        self._progress.outlook(done, planned, seconds)

    def close(self) -> None:
        self._progress.close()

    def _catch_up(self) -> None:
        """Log the trials of earlier processes that a logger lacks: it is new here, or was away."""
        for row in self._store.rows():
            if row["state"] in UNFINISHED or self._store.is_imported(row["number"]):
                continue
            for feed in self._feeds:
                if row["number"] not in feed.done:
                    feed.put(dict(row))

    def _log(self, row: dict[str, Any]) -> None:
        self._rows[row["number"]] = row
        for feed in self._feeds:
            feed.put(row, self._attempts.get(row["number"], 0))
        say_troubles(self._feeds, self._progress.message)
