"""Optuna's view of a study that this process writes: in memory for whoever reads, in a database for good.

A trial reaches the database in one transaction when it is complete in itself: a queued or finished one at once, one
that is being proposed when it is described (`WholeTrials.release`). A process that is killed while it proposes
leaves no trace of the proposal, and a queued trial is still queued.

Two threads may write: one that proposes, and one that does everything else.
"""

from __future__ import annotations

import copy
import threading
from bisect import insort
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Table

from se_nas.study.background_database import BackgroundDatabase
from se_nas.study.database import STUDY_NAME, SYSTEM_ATTRIBUTES, USER_ATTRIBUTES, Database
from se_nas.study.database_errors import UnavailableError

STUDY_ID = 0


@dataclass(frozen=True, kw_only=True)
class News:
    """What other workers have written since the last turn.

    Attributes:
        whole: whether everything that was known before is void, and ``changed`` are all trials.
        changed: trials in order of number.
    """

    whole: bool = False
    changed: Sequence[FrozenTrial] = ()


class WholeTrials(BaseStorage):
    """The one study of a database, for the only process that writes it. A trial's id is its number.

    Where several do (``shared_trials``), what is trained next is chosen in a ``turn``.

    Args:
        database: where trials are read once and written.

    Raises:
        RunError: from any method that writes, if the database cannot be written.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writer: Database | BackgroundDatabase = database
        self._trials = database.trials()
        self._directions = database.directions
        self._user_attrs, self._system_attrs = database.attributes()
        self._distributions: dict[str, BaseDistribution] = {}
        for trial in self._trials:
            self._distributions |= trial.distributions
        # At least so many trials from the first on are finished, and stay so.
        self._settled = 0
        self._held: set[int] = set()
        self._changed: dict[int, None] = {}
        self._attributes: list[tuple[Table, str, Any]] = []
        self._depth = 0
        self._lock = threading.RLock()
        self._abandoned = [trial.number for trial in self._trials if trial.state == TrialState.RUNNING]

    @contextmanager
    def turn(self) -> Iterator[News]:
        """Entered by whoever chooses what is trained next; says what has changed meanwhile."""
        yield News()

    def wait(self, error: UnavailableError) -> None:
        """Return when a turn that has failed may be taken again."""
        raise error

    def abandoned(self) -> int | None:
        """A trial that was begun and that nobody works on, now this process's; only in a turn."""
        return self._abandoned.pop(0) if self._abandoned else None

    def elsewhere(self) -> Sequence[FrozenTrial]:
        """Trials that were begun and are not this process's."""
        return ()

    def leave(self, number: int) -> None:
        """Leave a trial that was begun to whoever goes on."""
        insort(self._abandoned, number)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written inside of this becomes true in one transaction, at the end; after an error, not at all.

        Another thread waits with what it has to write.
        """
        with self._lock:
            self._depth += 1
            try:
                yield
            except BaseException:
                self._changed.clear()
                self._attributes.clear()
                raise
            finally:
                self._depth -= 1
            self._save()

    def release(self, trial_id: int) -> None:
        """Write a trial that was being proposed: from now on the database follows every change of it."""
        self._held.discard(trial_id)
        self._set(self.get_trial(trial_id))

    def discard(self) -> None:
        """Forget all trials that are being proposed; those that were queued are queued again."""
        with self._lock:
            for number in sorted(self._held, reverse=True):
                queued = self._writer.saved(number)
                if queued is None:
                    assert number == len(self._trials) - 1
                    self._trials.pop()
                else:
                    self._trials[number] = queued
            self._held.clear()

    def write_in_background(self) -> None:
        """From now on, what is written is in the database a moment later; errors are those of a later call."""
        if self._writer is self._database:
            self._writer = BackgroundDatabase(self._database)

    def flush(self) -> None:
        """Return once everything is in the database."""
        if isinstance(self._writer, BackgroundDatabase):
            self._writer.flush()

    def close(self) -> None:
        """Give the database back."""
        self._writer.close()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        with self._lock:
            return self._create(template_trial)

    def _create(self, template_trial: FrozenTrial | None) -> int:
        number = len(self._trials)
        if template_trial is None:
            trial = FrozenTrial(
                number=number,
                trial_id=number,
                state=TrialState.RUNNING,
                params={},
                distributions={},
                user_attrs={},
                system_attrs={},
                value=None,
                intermediate_values={},
                datetime_start=datetime.now(),
                datetime_complete=None,
            )
        else:
            trial = copy.deepcopy(template_trial)
            trial.number = trial._trial_id = number
            trial.distributions = {
                name: self._distributions.setdefault(name, distribution)
                for name, distribution in trial.distributions.items()
            }
        if trial.state == TrialState.RUNNING:
            self._hold(number)
        self._trials.append(trial)
        self._set(trial)
        return number

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        trial = self._updatable(trial_id)
        known = self._distributions.setdefault(param_name, distribution)
        check_distribution_compatibility(known, distribution)
        trial.params = {**trial.params, param_name: distribution.to_external_repr(param_value_internal)}
        trial.distributions = {
            **trial.distributions,
            param_name: known if known == distribution else distribution,
        }
        self._set(trial)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        trial = self._updatable(trial_id)
        if state == TrialState.RUNNING:
            if trial.state != TrialState.WAITING:
                return False
            trial.datetime_start = datetime.now()
            # Optuna's `Trial` writes to the dictionaries of what it was given; the queued trial must stay as it is.
            for name in ("params", "distributions", "user_attrs", "system_attrs"):
                setattr(trial, name, dict(getattr(trial, name)))
            self._hold(trial_id)
        trial.state = state
        if values is not None:
            trial.values = list(values)
        if state.is_finished():
            trial.datetime_complete = datetime.now()
            self._held.discard(trial_id)
        self._set(trial)
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        raise NotImplementedError("a trial's curve is in its row; Optuna's pruners are not used.")

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial = self._updatable(trial_id)
        trial.user_attrs = {**trial.user_attrs, key: value}
        self._set(trial)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        trial = self._updatable(trial_id)
        trial.system_attrs = {**trial.system_attrs, key: value}
        self._set(trial)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._lock:
            self._user_attrs[key] = value
            self._attributes.append((USER_ATTRIBUTES, key, value))
            self._save()

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._lock:
            self._system_attrs[key] = value
            self._attributes.append((SYSTEM_ATTRIBUTES, key, value))
            self._save()

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if not 0 <= trial_id < len(self._trials):
            raise KeyError(f"there is no trial {trial_id}.")
        return self._trials[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if states is None:
            found = list(self._trials)
        else:
            # Whoever asks for a suggestion asks for what is waiting: seldom anything, however many have ended.
            ended = any(state.is_finished() and state in states for state in TrialState)
            found = [t for t in (self._trials if ended else self._open()) if t.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def _open(self) -> list[FrozenTrial]:
        """All trials but the finished ones that no open one precedes."""
        with self._lock:
            settled = self._settled
            while settled < len(self._trials) and self._trials[settled].state.is_finished():
                settled += 1
            self._settled = settled
            return self._trials[settled:]

    def get_n_trials(self, study_id: int, state: tuple[TrialState, ...] | TrialState | None = None) -> int:
        return len(self._trials) if state is None else super().get_n_trials(study_id, state)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        return self.get_trial(trial_number).number

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name != STUDY_NAME:
            raise KeyError(f"there is no study {study_name!r}.")
        return STUDY_ID

    def get_study_name_from_id(self, study_id: int) -> str:
        return STUDY_NAME

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._user_attrs)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._system_attrs)

    def get_all_studies(self) -> list[FrozenStudy]:
        return [
            FrozenStudy(
                study_name=STUDY_NAME,
                direction=None,
                directions=self._directions,
                user_attrs=dict(self._user_attrs),
                system_attrs=dict(self._system_attrs),
                study_id=STUDY_ID,
            )
        ]

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        raise NotImplementedError("a run has one study.")

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError("a run keeps its study.")

    def _updatable(self, trial_id: int) -> FrozenTrial:
        """A copy of a trial that may still change; its dictionaries are shared until they are replaced."""
        trial = self.get_trial(trial_id)
        self.check_trial_is_updatable(trial_id, trial.state)
        return copy.copy(trial)

    def _hold(self, trial_id: int) -> None:
        """Keep a trial that is being proposed out of the database, even if it was queued in this transaction."""
        self._held.add(trial_id)
        self._changed.pop(trial_id, None)

    def _set(self, trial: FrozenTrial) -> None:
        with self._lock:
            self._trials[trial.number] = trial
            if trial.number not in self._held:
                self._changed[trial.number] = None
                self._save()

    def _save(self) -> None:
        if self._depth == 0 and (self._changed or self._attributes):
            self._writer.save((self._trials[number] for number in self._changed), self._attributes)
            self._changed.clear()
            self._attributes.clear()
