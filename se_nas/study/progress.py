"""What a search reports to whoever watches it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from se_nas.study.storage import StudyStore

_log = logging.getLogger("se_nas.progress")


class Progress:
    """Receives the events of a search; the methods of this base only log. Subclass it to show them.

    A row is a dictionary with ``se_nas.run.ROW_FIELDS``, as far as they are known at the time.
    """

    def message(self, text: str) -> None:
        """Something a person should know: a warning, a decision, the reason for a stop."""
        _log.info(text)

    def plan(self, description: Sequence[tuple[str, str]]) -> None:
        """The search is resolved and about to begin: ``Plan.describe``, pairs of a label and a text."""
        for name, value in description:
            _log.info("%s: %s", name, value)

    def images_checked(self, done: int, total: int) -> None:
        """So many of all images have been checked, before anything is trained."""

    def networks_measured(self, done: int, total: int) -> None:
        """So many of the networks of a latency table have been measured, before anything is trained."""

    def phase(self, name: str, seconds: float) -> None:
        """A phase (latency, search, final) begins and may take so many seconds (infinite for no limit)."""
        _log.info("%s", name)

    def outlook(self, done: int, planned: int, seconds: float) -> None:
        """By what is known now: trainings of the phase that are done, how many there will be, seconds until the end.

        The end is that of the run (infinite if it is unknown).
        """

    def trial_started(self, row: Mapping[str, Any]) -> None:
        """A candidate is about to be trained."""

    def epoch(self, row: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """One epoch of a candidate has ended."""

    def trial_finished(self, row: Mapping[str, Any], store: StudyStore) -> None:
        """A candidate has been evaluated; the store has every row."""
        _log.info("trial %s: %s %s", row.get("number"), row.get("state"), row.get("accuracy"))

    def close(self) -> None:
        """The search has ended, in whichever way."""
