"""The search: ask for a candidate, have it trained, tell the sampler, until a budget or the space is exhausted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, Trial

from se_nas.architecture import Architecture
from se_nas.run import SEARCH
from se_nas.study.ahead import Ahead
from se_nas.study.attributes import BASELINE
from se_nas.study.clock import Clock
from se_nas.study.executors import Task
from se_nas.study.executors.task import Curve
from se_nas.study.interrupts import Interrupts
from se_nas.study.phases.trainings import Trainings
from se_nas.study.plan import Plan
from se_nas.study.progress import Progress
from se_nas.study.shared_storage import SharedStore
from se_nas.study.storage import StudyStore
from se_nas.study.suggestions import Again, Suggestions

BY_USER = "stopped by the user"
SETTLED_SHARE, SETTLED_IN_A_ROW = 0.001, 5
"""A search has settled when so many suggestions in a row each promise less than this share of the front's
hypervolume in improvement."""


class Search:
    """Evaluates candidates until a budget is spent, the space is exhausted or the user stops it.

    Args:
        plan: the resolved search.
        store: the study.
        suggestions: where candidates come from.
        trainings: what trains them.
        clock: time left for the search.
        interrupts: whether the user has asked for an end.
        progress: is notified of how many candidates there will be.
    """

    def __init__(
        self,
        plan: Plan,
        store: StudyStore,
        suggestions: Suggestions,
        trainings: Trainings,
        clock: Clock,
        interrupts: Interrupts,
        progress: Progress,
    ) -> None:
        self._plan, self._store, self._suggestions = plan, store, suggestions
        self._ahead = Ahead(suggestions, store, threaded=plan.suggests_ahead and not store.shared)
        self._trainings, self._clock, self._interrupts = trainings, clock, interrupts
        self._progress = progress

    def seconds_left(self) -> float:
        """Seconds that the search may take without the final seeds of its candidates; infinite for no limit."""
        each, division = self._trainings.expected_seconds(), self._trainings.division
        fitting = division.candidates(self._clock.left, each, done=self._done())
        return max(0.0, self._clock.left - division.seconds(fitting, each, done=fitting))

    def run(self) -> str:
        """Search, beginning with the trials that nobody works on any more; returns why it ended, in words."""
        try:
            reason = self._run()
        finally:
            self._ahead.close()
        self._trainings.drain()
        # What was still in training may have changed the numbers.
        return self._reason_to_stop() or reason

    def _run(self) -> str:
        while True:
            self._trainings.make_room()
            if not self._ahead.ready and self._reason_to_stop() is None and self._trainings.wait():
                # The others train on until it is.
                continue
            if isinstance(self._store, SharedStore):
                self._prepare_turn(self._store)
            chosen = self._store.turn(self._choose)
            if isinstance(chosen, str):
                return chosen
            if isinstance(chosen, Again):
                continue
            if chosen is None:
                self._trainings.wait_for_others()
            else:
                self._tell_outlook()
                self._trainings.go_on(*chosen)
                if self._reason_to_stop() is None:
                    self._ahead.prepare()

    def _prepare_turn(self, store: SharedStore) -> None:
        """Do what takes time before a turn: all other workers wait while one has it."""
        self._suggestions.forget()
        store.look()
        if store.search_ended is None and self._reason_to_stop() is None:
            self._suggestions.prepare()

    def _choose(self) -> tuple[Task, Curve] | Again | str | None:
        """What to train next, or why the search has ended; None while others still train for it."""
        if self._interrupts.requested:
            return BY_USER
        found = self._trainings.take_over()
        if found is not None:
            return found
        reason = self._store.search_ended or self._reason_to_stop()
        if reason is None:
            suggested = self._ahead.next()
            if isinstance(suggested, Again):
                return suggested
            if suggested is not None:
                return self._claim(*suggested), ()
            reason = (
                f"every architecture of the space that the limits allow has been evaluated ({self._done()})"
            )
        self._store.end_search(reason)
        return None if self._store.elsewhere(SEARCH) else reason

    def _claim(self, trial: Trial | FrozenTrial, architecture: Architecture) -> Task:
        task = Task(
            number=trial.number,
            architecture=architecture,
            seed=self._suggestions.seed(architecture),
            phase=SEARCH,
        )
        self._trainings.claim(task, trial.user_attrs.get(BASELINE))
        return task

    def _reason_to_stop(self) -> str | None:
        if self._interrupts.requested:
            return BY_USER
        trials = self._plan.config.trials
        if trials is not None and self._done() >= trials:
            return f"all {trials} candidates have been evaluated"
        if self._plan.config.stop_when_settled and has_settled(
            self._store.last_suggestions(SETTLED_IN_A_ROW)
        ):
            return (
                f"the search has settled: each of the last {SETTLED_IN_A_ROW} suggestions promised less than"
                f" {100 * SETTLED_SHARE:.1f} % more hypervolume ({self._done()} candidates)"
            )
        if self._trainings.should_stop() or not self._another_fits():
            return f"the search's share of the budget is spent ({self._done()} candidates)"
        return None

    def _another_fits(self) -> bool:
        """Whether there is time for one more candidate and the final seeds of all; the first one is always tried."""
        done, each = self._done(), self._trainings.expected_seconds()
        return not done or self._trainings.division.seconds(done + 1, each, done=done) <= self._clock.left

    def _tell_outlook(self) -> None:
        """Say how many candidates there will be, and when the run ends, by what trainings have taken so far."""
        done, each, division = self._done(), self._trainings.expected_seconds(), self._trainings.division
        if each:
            left = self._trainings.wall_left()
            planned = division.candidates(left, each, done=done)
            seconds = self._clock.left
            if planned >= division.most:
                under_way = 0.0 if math.isinf(left) else seconds - left
                seconds = min(seconds, under_way + division.seconds(planned, each, done=done))
            self._progress.outlook(self._store.num_evaluated(), planned, seconds)

    def _done(self) -> int:
        return self._store.num_evaluated() + self._trainings.searching() + self._store.elsewhere(SEARCH)


def has_settled(suggestions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the latest suggestions of `ParetoSampler` (``se_nas:model``) all promised next to nothing.

    Points of the initial design, which no model chose, promise nothing known and keep a search going.
    """
    latest = suggestions[-SETTLED_IN_A_ROW:]
    promised = [record["improvement"] for record in latest if record["improvement"] is not None]
    return len(promised) == SETTLED_IN_A_ROW and max(promised) < SETTLED_SHARE
