"""The study of a run: the truth about its trials. ``trials.json`` is a table derived from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from se_nas.architecture import Architecture
from se_nas.documents import without_collections
from se_nas.objectives import OBJECTIVES
from se_nas.run import STUDY, RunFolder
from se_nas.samplers.pareto_sampler import MODEL
from se_nas.study.attributes import FIXED, IMPORTED, ROW
from se_nas.study.checking import ENDED, SPENT, check_study
from se_nas.study.database import STUDY_NAME
from se_nas.study.database_errors import UnavailableError, closed_if_refused
from se_nas.study.readings import Readings
from se_nas.study.run_storage import open_storage, quiet_optuna
from se_nas.study.whole_trials import STUDY_ID, News, WholeTrials

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")
COLUMNS = {name: objective.column for name, objective in OBJECTIVES.items()}
"""Objectives by their names in a configuration, and their fields in a row."""
FROM_TRIAL = ("number", "params", "state")
"""Fields of a row that Optuna itself keeps, or that are set on the way."""
TABLE_SECONDS = 5.0
"""How old ``trials.json`` may become while trials end."""
TABLE_SHARE = 0.01
"""Share of a run's time that writing ``trials.json`` may take: it grows with the number of trials."""


class StudyStore:
    """The study of one run folder, with its trials as rows; ``SharedStore`` if other workers write it too.

    What has been asked once is kept and follows every change: our own at once, those of other workers in a turn.
    A second thread may ``ask``, and ``tell`` and ``mark`` what it has asked for; everything else belongs to one thread.
    """

    shared = False

    def __init__(self, folder: RunFolder, storage: WholeTrials) -> None:
        self.folder = folder
        self._storage = storage
        self._written = -float("inf")
        self._writing = 0.0
        with closed_if_refused(storage.close):
            with quiet_optuna():
                self.study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
            objectives = len(storage.get_study_directions(STUDY_ID))
            with without_collections():
                check_study(self.trials(), objectives, self.attributes, str(folder.path / STUDY))
                self._follow(News(whole=True, changed=self.trials()))

    @classmethod
    def create(cls, folder: RunFolder, objectives: Sequence[str]) -> StudyStore:
        """The study of a run that begins, or that was killed while it began."""
        store = cls(folder, open_storage(folder, objectives))
        store.name_objectives(objectives)
        return store

    @classmethod
    def open(cls, folder: RunFolder) -> StudyStore:
        """The study of an existing run; RunError if its file is missing or damaged."""
        return cls(folder, open_storage(folder))

    def name_objectives(self, objectives: Sequence[str]) -> None:
        """Let Optuna and its dashboard know what the values are."""
        if self.study.metric_names != list(objectives):
            with quiet_optuna():
                self.study.set_metric_names(list(objectives))

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The study's user attributes."""
        return self._storage.get_study_user_attrs(STUDY_ID)

    def set_attributes(self, **attributes: Any) -> None:
        """Store attributes of the study; those of a shared one only in a turn."""
        with self.together():
            for name, value in attributes.items():
                self._storage.set_study_user_attr(STUDY_ID, name, value)

    def write_in_background(self) -> None:
        """From now on nobody waits for the disk, and an error is raised by a later call; not of a shared study."""
        self._storage.write_in_background()

    def flush(self) -> None:
        """Return once everything is stored."""
        self._storage.flush()

    def close(self) -> None:
        """Give the database back."""
        self._storage.close()

    def together(self) -> AbstractContextManager[None]:
        """What is written inside of this becomes true at once, at the end; after an error, nothing of it."""
        return self._storage.together()

    def turn(self, choose: Callable[[], T]) -> T:
        """What ``choose`` decides about what is trained next, alone among all workers.

        ``choose`` knows what the others have done, and what it stores is stored as a whole, at the end. It is called
        again if the database is lost meanwhile.
        """
        while True:
            try:
                with self._storage.turn() as news:
                    self._follow(news)
                    return choose()
            except UnavailableError as error:
                self._storage.wait(error)

    def abandoned(self) -> FrozenTrial | None:
        """A trial that was begun and that nobody works on, now ours; only in a turn."""
        number = self._storage.abandoned()
        return None if number is None else self._storage.get_trial(number)

    def elsewhere(self, phase: str | None = None) -> int:
        """How many trials, of one phase or of any, are in the hands of others, or abandoned."""
        return sum(phase in (None, trial.user_attrs[ROW]["phase"]) for trial in self._storage.elsewhere())

    def leave(self, number: int, **fields: Any) -> None:
        """Store the last fields of an unfinished trial, which whoever goes on continues."""
        with self.together():
            self.record(number, **fields)
            self._storage.leave(number)

    def refresh(self) -> None:
        """Learn what other workers have done."""
        self.turn(lambda: None)

    @property
    def search_ended(self) -> str | None:
        """Why the search has ended for all workers, once one of them has found that out."""
        return self.attributes.get(ENDED)

    def end_search(self, reason: str) -> None:
        """Let no other worker suggest anything more; only in a turn."""

    def stirred(self) -> bool:
        """Whether others have begun, ended or left a trial since the last turn."""
        return False

    def leave_all(self) -> None:
        """Leave what this process has begun to the other workers."""

    def enqueue(self, params: Mapping[str, Any] | None, architecture: Architecture, **fields: Any) -> None:
        """Queue an architecture; ``params`` is None if the space cannot express it."""
        self.study.enqueue_trial(dict(params or {}), user_attrs=fields | _fixed(params, architecture))

    def add(self, trial: FrozenTrial) -> None:
        """Add a finished trial of another run."""
        self.study.add_trial(trial)
        self._learn(self.num_trials - 1)

    def begin(
        self,
        params: Mapping[str, Any] | None,
        choices: Mapping[str, Sequence[Any]],
        architecture: Architecture,
    ) -> int:
        """Begin a trial of a given architecture at once, past queue and sampler; returns its number.

        Nothing is stored before it is described.

        Args:
            params: the space's parameters; None if it cannot express the architecture.
            choices: of the space's parameters.
            architecture: what is to be trained.
        """
        given = dict(params or {})
        template = create_trial(
            state=TrialState.RUNNING,
            params=given,
            distributions={name: CategoricalDistribution(choices[name]) for name in given},
            user_attrs=_fixed(params, architecture),
        )
        return self._storage.create_new_trial(self.study._study_id, template_trial=template)

    def describe(self, number: int, **fields: Any) -> None:
        """Store a trial that was asked for or begun, with the fields of its row that say what it is: one write."""
        with self.together():
            self.record(number, **fields, params=self._storage.get_trial(number).params)
            self._storage.release(number)

    def record(self, number: int, **fields: Any) -> None:
        """Store fields of a trial's row."""
        row = {**self._storage.get_trial(number).user_attrs.get(ROW, {}), **fields}
        self._storage.set_trial_user_attr(number, ROW, row)
        self._learn(number)

    def mark(self, number: int, **attributes: Any) -> None:
        """Store attributes of a trial that are not part of its row."""
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(number, name, value)

    def keep_correct(self, number: int, correct: NDArray[np.bool_]) -> dict[str, Any]:
        """Store which validation images a trial classified correctly, shape (images,); returns fields of its row."""
        return {"correct": self.folder.write_correct(number, correct)}

    def finish(
        self, number: int, values: Sequence[float] | None, *, stopped: bool = False, **fields: Any
    ) -> None:
        """Store the last fields, and objective values (None for a trial without), in one write."""
        with self.together():
            self.record(number, **fields, finished=now())
            self.tell(number, values, stopped=stopped)

    def ask(self) -> Trial:
        """A trial: the oldest queued one, else a new one."""
        return self.study.ask()

    def forget_proposals(self) -> None:
        """Forget trials that were asked for and not described; those that were queued are queued again."""
        self._storage.discard()

    def tell(self, number: int, values: Sequence[float] | None, *, stopped: bool = False) -> None:
        """Notify the sampler of a trial's objective values; None: it was stopped early, or has failed."""
        without = TrialState.PRUNED if stopped else TrialState.FAIL
        self.study.tell(number, values, state=None if values is not None else without)
        self._learn(number)

    def spend(self, seconds: float) -> None:
        """Store the time that the run has used, so that a resumed run keeps to its budget."""
        self.set_attributes(**{SPENT: round(seconds, 1)})

    @property
    def spent(self) -> float:
        """Seconds that the run has used, as last stored."""
        return self.attributes.get(SPENT, 0.0)

    def trials(self) -> list[FrozenTrial]:
        """All trials in order of number. They are the study's own: copy before you change one."""
        return self._storage.get_all_trials(self.study._study_id, deepcopy=False)

    @property
    def num_trials(self) -> int:
        """Trials of any state, those that were not trained included."""
        return self._storage.get_n_trials(self.study._study_id)

    def last_suggestions(self, count: int) -> list[dict[str, Any]]:
        """What the sampler's model said of its last suggestions, oldest first (`ParetoSampler` only).

        Suggestions that were made ahead and not taken yet are left out.
        """
        found: list[dict[str, Any]] = []
        for number in range(self.num_trials - 1, -1, -1):
            if len(found) == count:
                break
            trial = self._storage.get_trial(number)
            record = trial.system_attrs.get(MODEL)
            if record is not None and (trial.state.is_finished() or ROW in trial.user_attrs):
                found.append(record)
        return found[::-1]

    def is_repeat(self, number: int) -> bool:
        """Whether `ParetoSampler` asked for this trial as another reading of what it has read."""
        record = self._storage.get_trial(number).system_attrs.get(MODEL) or {}
        return record.get("source") == "repeat"

    def rows(self) -> list[dict[str, Any]]:
        """One row per trial that is a reading of its own, in order of number. Copy before you change one."""
        return self._readings.rows()

    def row(self, number: int) -> dict[str, Any]:
        """The row of one trial. Copy before you change it."""
        return self._readings.row(number)

    def is_imported(self, number: int) -> bool:
        """Whether a trial is a reading of another run."""
        return IMPORTED in self._storage.get_trial(number).user_attrs

    def values_by_key(self) -> Mapping[str, list[float] | None]:
        """Objective values of every architecture that was begun; None without values yet."""
        return self._readings.values

    def seeds_of(self, key: str) -> set[int]:
        """Seeds with which the search has begun an architecture."""
        return self._readings.seeds_of(key)

    def num_evaluated(self) -> int:
        """Candidates of the search that this run itself has evaluated."""
        return self._readings.num_evaluated

    @property
    def front_size(self) -> int:
        """Readings that no other reading dominates."""
        return self._readings.front_size

    @property
    def front_numbers(self) -> tuple[int, ...]:
        """Trials of these readings, in order."""
        return self._readings.front_numbers

    @property
    def num_val(self) -> int:
        """Validation images, over which an accuracy is a share."""
        return self.folder.manifest.data.num_val

    def write_table(self) -> None:
        """Bring ``trials.json`` up to date."""
        began = time.monotonic()
        self._write_files()
        self._written = time.monotonic()
        self._writing = self._written - began

    def refresh_table(self) -> None:
        """Bring ``trials.json`` up to date, unless that was done a moment ago."""
        if time.monotonic() - self._written >= max(TABLE_SECONDS, self._writing / TABLE_SHARE):
            self.write_table()

    def _write_files(self) -> None:
        """The files that are derived from the study."""
        self.folder.write_rows(self.rows())

    def _follow(self, news: News) -> None:
        if news.whole:
            self._readings = Readings(self._storage.get_study_directions(STUDY_ID))
        for trial in news.changed:
            self._readings.learn(trial)

    def _learn(self, number: int) -> None:
        """Follow our own change of a trial."""
        self._readings.learn(self._storage.get_trial(number))


def now() -> str:
    """The time, in ISO 8601 and UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _fixed(params: Mapping[str, Any] | None, architecture: Architecture) -> dict[str, Any]:
    """What says which architecture a trial is of, if its parameters cannot."""
    return {} if params is not None else {FIXED: architecture.to_dict()}
