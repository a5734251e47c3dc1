"""Optuna's storage of a run: the truth about its trials. ``trials.json`` is a table derived from it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from se_nas.architecture import Architecture
from se_nas.errors import RunError
from se_nas.objectives import OBJECTIVES
from se_nas.run import ROW_FIELDS, SEARCH, RunFolder
from se_nas.samplers.pareto_sampler import DUPLICATE, MODEL

STUDY_NAME = "se-nas"
COLUMNS = {name: objective.column for name, objective in OBJECTIVES.items()}
"""Objectives by their names in a configuration, and their fields in a row."""
FIXED = "architecture"
"""User attribute of a trial whose architecture is given instead of suggested."""
_SPENT = "spent"
FROM_TRIAL = ("number", "params", "state")
"""Fields of a row that Optuna itself keeps, or that are set on the way."""
IMPORTED = "imported_from"
"""User attribute of a trial that comes from another run."""


class StudyStore:
    """The study of one run folder, with its trials as rows."""

    def __init__(self, folder: RunFolder, study: optuna.Study, storage: JournalStorage) -> None:
        self.folder = folder
        self.study = study
        self._storage = storage
        self._study_id = storage.get_study_id_from_name(STUDY_NAME)

    @classmethod
    def create(cls, folder: RunFolder, objectives: Sequence[str]) -> StudyStore:
        """A new study: accuracy is maximised, every cost minimised."""
        directions: list[StudyDirection] = [
            StudyDirection[OBJECTIVES[name].direction.upper()] for name in objectives
        ]
        with quiet_optuna():
            storage = _storage(folder)
            study = optuna.create_study(study_name=STUDY_NAME, storage=storage, directions=directions)
            study.set_metric_names(list(objectives))
        return cls(folder, study, storage)

    @classmethod
    def open(cls, folder: RunFolder) -> StudyStore:
        """The study of an existing run; RunError where the journal is missing or damaged."""
        if not folder.journal.exists():
            raise RunError(f"{folder.path} has no {folder.journal.name}: the search never began.")
        with quiet_optuna():
            try:
                storage = _storage(folder)
                study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
            except (KeyError, ValueError) as error:
                raise RunError(f"{folder.journal} is damaged: {error}") from error
        return cls(folder, study, storage)

    def enqueue(self, params: Mapping[str, Any] | None, architecture: Architecture, **fields: Any) -> None:
        """Queue an architecture; ``params`` is None where the space cannot express it."""
        self.study.enqueue_trial(dict(params or {}), user_attrs=fields | _fixed(params, architecture))

    def begin(
        self,
        params: Mapping[str, Any] | None,
        choices: Mapping[str, Sequence[Any]],
        architecture: Architecture,
        **fields: Any,
    ) -> int:
        """Begin a trial of a given architecture at once, past queue and sampler; returns its number.

        ``params`` is None where the space, whose parameters are ``choices``, cannot express it.
        """
        given = dict(params or {})
        template = create_trial(
            state=TrialState.RUNNING,
            params=given,
            distributions={name: CategoricalDistribution(choices[name]) for name in given},
            user_attrs=fields | _fixed(params, architecture),
        )
        trial_id = self._storage.create_new_trial(self._study_id, template_trial=template)
        return self._storage.get_trial_number_from_id(trial_id)

    def record(self, number: int, **fields: Any) -> None:
        """Store fields of a trial's row."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        for name, value in fields.items():
            self._storage.set_trial_user_attr(trial_id, name, value)

    def finish(
        self, number: int, values: Sequence[float] | None, *, stopped: bool = False, **fields: Any
    ) -> None:
        """Store the last fields and tell the sampler: objective values, or None for a trial without."""
        self.record(number, **fields, finished=now())
        self.tell(number, values, stopped=stopped)

    def ask(self) -> Trial:
        """A trial: the oldest queued one, else a new one."""
        with quiet_optuna():
            return self.study.ask()

    def tell(self, number: int, values: Sequence[float] | None, *, stopped: bool = False) -> None:
        """Tell the sampler a trial's objective values; None: it was stopped early, or has failed."""
        without = TrialState.PRUNED if stopped else TrialState.FAIL
        with quiet_optuna():
            self.study.tell(number, values, state=None if values is not None else without)

    def spend(self, seconds: float) -> None:
        """Store the time that the run has used, so that a resumed run keeps to its budget."""
        self._storage.set_study_user_attr(self._study_id, _SPENT, round(seconds, 1))

    @property
    def spent(self) -> float:
        """Seconds that the run has used, as last stored."""
        return float(self._storage.get_study_user_attrs(self._study_id).get(_SPENT, 0.0))

    def open_trials(self) -> list[FrozenTrial]:
        """Trials that were begun and not finished, oldest first."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def suggestions(self) -> list[dict[str, Any]]:
        """What the sampler's model said of each of its suggestions, oldest first (`ParetoSampler` only)."""
        found = (trial.system_attrs.get(MODEL) for trial in self.study.get_trials(deepcopy=False))
        return [record for record in found if record is not None]

    def is_repeat(self, number: int) -> bool:
        """Whether `ParetoSampler` asked for this trial as another reading of what it has read."""
        record = self.study.get_trials(deepcopy=False)[number].system_attrs.get(MODEL) or {}
        return record.get("source") == "repeat"

    def rows(self) -> list[dict[str, Any]]:
        """One row a trial that was given an architecture of its own, in order of number."""
        return list(self._rows())

    def num_evaluated(self) -> int:
        """Candidates of the search that this run itself has evaluated."""
        return sum(
            trial.user_attrs.get("phase") == SEARCH
            and trial.user_attrs.get("state", "running") not in ("running", "unfinished")
            and IMPORTED not in trial.user_attrs
            and DUPLICATE not in trial.user_attrs
            for trial in self.study.get_trials(deepcopy=False)
        )

    def write_table(self) -> None:
        """Bring ``trials.json`` up to date."""
        self.folder.write_rows(self.rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        for trial in self.study.get_trials(deepcopy=False):
            if trial.user_attrs.get("key") is None or trial.state == TrialState.WAITING:
                continue
            if trial.user_attrs.get(DUPLICATE) is not None:
                continue
            row = {name: trial.user_attrs.get(name) for name in ROW_FIELDS if name not in FROM_TRIAL}
            state = trial.user_attrs.get("state", "running")
            yield {"number": trial.number, "params": trial.params, "state": state, **row}


def now() -> str:
    """The time, in ISO 8601 and UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _storage(folder: RunFolder) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(folder.journal)))


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's own log lines, and notices that its interfaces may change, out of ours."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _fixed(params: Mapping[str, Any] | None, architecture: Architecture) -> dict[str, Any]:
    """What says which architecture a trial is of, where its parameters cannot."""
    return {} if params is not None else {FIXED: architecture.to_dict()}
