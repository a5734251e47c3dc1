"""The study of a run: the truth about its trials. ``trials.json`` is a table derived from it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from se_nas.architecture import Architecture
from se_nas.errors import RunError
from se_nas.objectives import OBJECTIVES
from se_nas.run import ROW_FIELDS, SEARCH, STUDY, TRIALS, RunFolder, read_json
from se_nas.samplers.pareto_sampler import MODEL
from se_nas.study.attributes import FIXED, IMPORTED, ROW
from se_nas.study.database import STUDY_NAME, Database
from se_nas.study.journal import copy_journal
from se_nas.study.whole_trials import STUDY_ID, WholeTrials
from se_nas.wording import counted

COLUMNS = {name: objective.column for name, objective in OBJECTIVES.items()}
"""Objectives by their names in a configuration, and their fields in a row."""
FROM_TRIAL = ("number", "params", "state")
"""Fields of a row that Optuna itself keeps, or that are set on the way."""
_SPENT = "spent"
_OPEN = ("running", "unfinished")
TABLE_SECONDS = 5.0
"""How old ``trials.json`` may become while trials end."""
TABLE_SHARE = 0.05
"""Share of a run's time that writing ``trials.json`` may take: it grows with the number of trials."""


def open_storage(folder: RunFolder, objectives: Sequence[str] | None = None) -> WholeTrials:
    """The storage of a run's study, in its folder.

    The journal of a run that version 0.1.0 began is copied over once; it stays where it is.

    Args:
        folder: of the run.
        objectives: the study is made with these if there is none yet; None: it must exist.

    Raises:
        RunError: there is no study, it is damaged, or the file cannot be used.
    """
    path = folder.path / STUDY
    with quiet_optuna():
        if not copy_journal(folder, path) and not path.exists():
            _refuse_lost(folder, path)
        directions = (
            None
            if objectives is None
            else [StudyDirection[OBJECTIVES[name].direction.upper()] for name in objectives]
        )
        storage = WholeTrials(Database.open(path, directions))
        if storage.get_n_trials(STUDY_ID) == 0:
            _refuse_lost(folder, path)
        return storage


def _refuse_lost(folder: RunFolder, path: Path) -> None:
    """A run whose table has rows must not begin anew because its study has none."""
    table = folder.path / TRIALS
    lost = len(read_json(table)) if table.exists() else 0
    if lost:
        raise RunError(
            f"{path} is missing or empty, and with it the study of {counted(lost, 'trial')}: put it back."
        )


class StudyStore:
    """The study of one run folder, with its trials as rows.

    One process writes a run, so what has been asked once is kept and follows every change. A second thread may
    ``ask``, and ``tell`` and ``mark`` what it has asked for; everything else belongs to one thread.
    """

    def __init__(self, folder: RunFolder, storage: WholeTrials) -> None:
        self.folder = folder
        self._storage = storage
        with quiet_optuna():
            self.study = optuna.load_study(study_name=STUDY_NAME, storage=storage)
        self._rows: dict[int, dict[str, Any]] = {}
        self._in_order: list[dict[str, Any]] | None = None
        self._values: dict[str, list[float] | None] = {}
        self._seeds: dict[str, set[int]] = {}
        self._evaluated: set[int] = set()
        self._front: list[tuple[float, ...]] = []
        self._written = -float("inf")
        self._writing = 0.0
        for trial in self.trials():
            self._learn(trial)

    @classmethod
    def create(cls, folder: RunFolder, objectives: Sequence[str]) -> StudyStore:
        """The study of a run that begins, or that was killed while it began."""
        store = cls(folder, open_storage(folder, objectives))
        if store.study.metric_names != list(objectives):
            with quiet_optuna():
                store.study.set_metric_names(list(objectives))
        return store

    @classmethod
    def open(cls, folder: RunFolder) -> StudyStore:
        """The study of an existing run; RunError if its file is missing or damaged."""
        return cls(folder, open_storage(folder))

    def close(self) -> None:
        """Give the file back."""
        self._storage.close()

    def together(self) -> AbstractContextManager[None]:
        """What is written inside of this becomes true at once, at the end; after an error, nothing of it."""
        return self._storage.together()

    def enqueue(self, params: Mapping[str, Any] | None, architecture: Architecture, **fields: Any) -> None:
        """Queue an architecture; ``params`` is None if the space cannot express it."""
        self.study.enqueue_trial(dict(params or {}), user_attrs=fields | _fixed(params, architecture))

    def add(self, trial: FrozenTrial) -> None:
        """Add a finished trial of another run."""
        self.study.add_trial(trial)
        self._learn(self._storage.get_trial(self.num_trials - 1))

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
        self._learn(self._storage.get_trial(number))

    def mark(self, number: int, **attributes: Any) -> None:
        """Store attributes of a trial that are not part of its row."""
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(number, name, value)

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
        self._learn(self._storage.get_trial(number))

    def spend(self, seconds: float) -> None:
        """Store the time that the run has used, so that a resumed run keeps to its budget."""
        self.study.set_user_attr(_SPENT, round(seconds, 1))

    @property
    def spent(self) -> float:
        """Seconds that the run has used, as last stored."""
        return float(self.study.user_attrs.get(_SPENT, 0.0))

    def trials(self) -> list[FrozenTrial]:
        """All trials in order of number. They are the study's own: copy before you change one."""
        return self._storage.get_all_trials(self.study._study_id, deepcopy=False)

    def open_trials(self) -> list[FrozenTrial]:
        """Trials that were begun and not finished, oldest first."""
        return [trial for trial in self.trials() if trial.state == TrialState.RUNNING]

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
        if self._in_order is None:
            self._in_order = [self._rows[number] for number in sorted(self._rows)]
        return self._in_order

    def values_by_key(self) -> Mapping[str, list[float] | None]:
        """Objective values of every architecture that was begun; None without values yet."""
        return self._values

    def seeds_of(self, key: str) -> set[int]:
        """Seeds with which the search has begun an architecture."""
        return self._seeds.get(key, set())

    def num_evaluated(self) -> int:
        """Candidates of the search that this run itself has evaluated."""
        return len(self._evaluated)

    @property
    def front_size(self) -> int:
        """Readings that no other reading dominates."""
        return len(self._front)

    def write_table(self) -> None:
        """Bring ``trials.json`` up to date."""
        began = time.monotonic()
        self.folder.write_rows(self.rows())
        self._written = time.monotonic()
        self._writing = self._written - began

    def refresh_table(self) -> None:
        """Bring ``trials.json`` up to date, unless that was done a moment ago."""
        if time.monotonic() - self._written >= max(TABLE_SECONDS, self._writing / TABLE_SHARE):
            self.write_table()

    def _learn(self, trial: FrozenTrial) -> None:
        """Follow a change of a trial."""
        fields = trial.user_attrs.get(ROW)
        if fields is None or trial.state == TrialState.WAITING:
            return
        row = {name: fields.get(name) for name in ROW_FIELDS}
        row |= {"number": trial.number, "params": trial.params, "state": fields.get("state", "running")}
        self._rows[trial.number], self._in_order = row, None
        key = row["key"]
        values = list(trial.values) if trial.state == TrialState.COMPLETE else None
        if self._values.get(key) is None:
            self._values[key] = values
        if row["phase"] != SEARCH:
            return
        self._seeds.setdefault(key, set()).add(row["seed"])
        if row["state"] not in _OPEN and IMPORTED not in trial.user_attrs:
            self._evaluated.add(trial.number)
        if values is not None:
            self._add_to_front(values)

    def _add_to_front(self, values: Sequence[float]) -> None:
        signs = [
            1 if d == StudyDirection.MAXIMIZE else -1 for d in self._storage.get_study_directions(STUDY_ID)
        ]
        point = tuple(sign * value for sign, value in zip(signs, values, strict=True))
        if any(_dominates(other, point) for other in self._front):
            return
        self._front = [other for other in self._front if not _dominates(point, other)] + [point]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def now() -> str:
    """The time, in ISO 8601 and UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


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
    """What says which architecture a trial is of, if its parameters cannot."""
    return {} if params is not None else {FIXED: architecture.to_dict()}
