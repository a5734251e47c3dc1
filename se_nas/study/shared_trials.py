"""A study that several workers write, as one of them sees it: the trials of the others as of its last turn."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest

from optuna.trial import FrozenTrial, TrialState

from se_nas.study.database_errors import TakenOverError, UnavailableError
from se_nas.study.server import WORKER, SharedDatabase
from se_nas.study.whole_trials import News, WholeTrials


class SharedTrials(WholeTrials):
    """The one study of a database, for one of the workers that write it; see ``WholeTrials``.

    New trials, and those that nobody works on any more, are for the worker whose turn it is. What it has claimed it
    writes at any time.

    Args:
        database: on a server.

    Raises:
        TakenOverError: from any method that writes without a turn, if the trial is another worker's.
    """

    _database: SharedDatabase

    def __init__(self, database: SharedDatabase) -> None:
        super().__init__(database)
        self.claimed: frozenset[int] = frozenset()
        self._stale = False

    @contextmanager
    def turn(self) -> Iterator[News]:
        before = self.claimed
        try:
            with self._database.turn(), self.together():
                yield self._read()
        except BaseException:
            self.claimed, self._stale = before, True
            raise

    def wait(self, error: UnavailableError) -> None:
        self._database.patience.wait(error)

    def look(self) -> News:
        """Learn without a turn what the others have done, for whoever prepares one; attributes wait for the turn."""
        return News() if self._stale or self._held else self._read_trials(whole=False)

    @contextmanager
    def rehearsal(self) -> Iterator[list[FrozenTrial]]:
        """Nothing that is written inside of this is kept.

        Afterwards the list that it yields has the trials that were begun or made, in order of number, for ``adopt``.
        """
        made: list[FrozenTrial] = []
        with self._lock:
            trials, user, system = list(self._trials), dict(self._user_attrs), dict(self._system_attrs)
            settled = self._settled
            self._depth += 1
            try:
                yield made
            finally:
                self._depth -= 1
                self._settled = settled
                pairs = zip_longest(self._trials[settled:], trials[settled:])
                made += [after for after, before in pairs if after is not before]
                self._trials, self._user_attrs, self._system_attrs = trials, user, system
                self._held.clear()
                self._changed.clear()
                self._attributes.clear()

    def adopt(self, trial: FrozenTrial, *, queued: bool) -> int | None:
        """Make a trial that was rehearsed one of the study; only in a turn.

        Args:
            trial: of a rehearsal.
            queued: whether it was in the study before, as a queued one.

        Returns:
            Its number, which may be another one now; None if another worker has taken it from the queue.
        """
        adopted = copy.copy(trial)
        if not queued:
            adopted.number = adopted._trial_id = len(self._trials)
            self._trials.append(adopted)
        elif self.get_trial(trial.number).state != TrialState.WAITING:
            return None
        if adopted.state == TrialState.RUNNING:
            self._hold(adopted.number)
        self._set(adopted)
        return adopted.number

    def abandoned(self) -> int | None:
        alive = self._database.alive()
        for trial in self._open():
            if trial.state == TrialState.RUNNING and trial.number not in self.claimed:
                # One of our own that we do not know of: the answer to the turn that claimed it was lost.
                ours = trial.system_attrs.get(WORKER) == self._database.worker
                if ours or trial.number not in alive:
                    self._claim(trial.number)
                    return trial.number
        return None

    def elsewhere(self) -> Sequence[FrozenTrial]:
        return [
            trial
            for trial in self._open()
            if trial.state == TrialState.RUNNING and trial.number not in self.claimed
        ]

    def others_at_work(self) -> bool:
        """Whether another worker that gives signs of life has claimed a trial; only in a turn."""
        return bool(self._database.alive() - self.claimed)

    def stirred(self) -> bool:
        """Whether others have begun, ended or left a trial since the last turn."""
        return self._database.stirred()

    def leave(self, number: int) -> None:
        self.claimed -= {number}
        self.set_trial_system_attr(number, WORKER, None)

    def release(self, trial_id: int) -> None:
        self._claim(trial_id)
        super().release(trial_id)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        if state.is_finished():
            self.claimed -= {trial_id}
        return super().set_trial_state_values(trial_id, state, values)

    def give_sign(self) -> float:
        """Prolong the claims; returns the seconds that the study has used. May be called from another thread."""
        return self._database.give_sign(self.claimed)

    def _claim(self, number: int) -> None:
        self.claimed |= {number}
        self.set_trial_system_attr(number, WORKER, self._database.worker)

    def _read(self) -> News:
        """Bring what is known of the study up to date."""
        # A trial that was proposed and not described is in no database.
        whole, self._stale = self._stale or bool(self._held), False
        news = self._read_trials(whole=whole)
        self._user_attrs, self._system_attrs = self._database.attributes()
        return news

    def _read_trials(self, *, whole: bool) -> News:
        if whole:
            self._database.forget()
            self._held.clear()
            self._trials, self._settled = [], 0
        unfinished = [trial.number for trial in self._open() if not trial.state.is_finished()]
        changed = []
        for trial in self._database.news(unfinished, len(self._trials)):
            self._distributions |= trial.distributions
            if trial.number == len(self._trials):
                self._trials.append(trial)
                changed.append(trial)
                continue
            before, self._trials[trial.number] = self._trials[trial.number], trial
            if (before.state, before.user_attrs) != (trial.state, trial.user_attrs):
                changed.append(trial)
        return News(whole=whole, changed=changed)

    def _save(self) -> None:
        try:
            super()._save()
        except TakenOverError as error:
            self._changed.clear()
            self._attributes.clear()
            self.claimed, self._stale = self.claimed - {error.number}, True
            raise
