"""Runs of version 0.1.0 kept their study in a journal of Optuna's. It is copied into a database, once.

A journal could be cut anywhere: in the middle of a line, between the fields of one trial's description, between
a trial's result and its state. What is whole is kept; what was only half written is done again.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from se_nas.errors import RunError
from se_nas.objectives import OBJECTIVES
from se_nas.run import FINAL, JOURNAL, ROW_FIELDS, RunFolder
from se_nas.study.attributes import BASELINE, OVER_LIMIT, ROW
from se_nas.study.database import STUDY_NAME, SYSTEM_ATTRIBUTES, USER_ATTRIBUTES, Database

_ATTRIBUTES = (*(name for name in ROW_FIELDS if name not in ("number", "params", "state")), "state", "worker")
_CONSTRAINT = "constraints"
"""What the system attributes of Optuna's constraints begin with."""


def copy_journal(folder: RunFolder, target: Path) -> bool:
    """Copy a journal into a database, unless there is a database or no journal; whether it was copied.

    Raises:
        RunError: the journal is damaged, by more than its last line.
    """
    source = folder.path / JOURNAL
    if target.exists() or not source.is_file():
        return False
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        study = _read(source, Path(scratch) / JOURNAL)
        if study is None:
            return False
        made = Path(scratch) / target.name
        with _explained(source):
            # Objectives are named in every study that was begun; the first two writes of a journal say so.
            names = study.metric_names or []
            storage, study_id = study._storage, study._study_id
            trials = [_copied(trial, names) for trial in study.get_trials(deepcopy=False)]
            attributes = [
                *((USER_ATTRIBUTES, *item) for item in storage.get_study_user_attrs(study_id).items()),
                *((SYSTEM_ATTRIBUTES, *item) for item in storage.get_study_system_attrs(study_id).items()),
            ]
        with closing(Database.open(made, study.directions)) as database:
            database.save(trials, attributes)
        os.replace(made, target)
    return True


def _read(source: Path, copy: Path) -> optuna.Study | None:
    """The study of a journal; None if the journal ends before it. A last line without its end is left out.

    The copy is read, because the lock of a killed process may lie beside the journal.
    """
    whole, _, _ = source.read_bytes().rpartition(b"\n")
    copy.write_bytes(whole + b"\n" if whole else b"")
    with _explained(source):
        storage = JournalStorage(JournalFileBackend(str(copy)))
        if not storage.get_all_studies():
            return None
        return optuna.load_study(study_name=STUDY_NAME, storage=storage)


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    """Optuna replays whatever stands in a journal, of any type: a damaged line can end in any error, at any time."""
    try:
        yield
    except Exception as error:
        raise RunError(f"{source} is damaged: {str(error) or type(error).__name__}.") from error


def _copied(trial: FrozenTrial, objectives: Sequence[str]) -> FrozenTrial:
    """A trial with its row as one attribute, and in a state from which the run can go on."""
    attributes = dict(trial.user_attrs)
    row = {name: attributes.pop(name) for name in _ATTRIBUTES if name in attributes}
    row.pop("worker", None)
    # The last fields of a description; the others came before them.
    described = "started" in row
    if row.get("baseline") is not None and row.get("phase") != FINAL:
        attributes[BASELINE] = row["baseline"]
    found = FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=trial.state,
        value=None,
        values=trial.values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=dict(trial.params),
        distributions=dict(trial.distributions),
        user_attrs={**attributes, ROW: {**row, "params": trial.params}} if described else attributes,
        system_attrs=dict(trial.system_attrs),
        intermediate_values={},
    )
    if trial.state == TrialState.RUNNING:
        _settle(found, row, described, objectives)
    return found


def _settle(trial: FrozenTrial, row: Mapping[str, Any], described: bool, objectives: Sequence[str]) -> None:
    """Decide what becomes of a trial that was not finished."""
    state = row.get("state", "running")
    if described and state in ("running", "unfinished"):
        return
    trial.datetime_complete = trial.datetime_start
    if described:
        values = [row.get(OBJECTIVES[name].column) for name in objectives]
        if state == "complete" and all(value is not None and math.isfinite(value) for value in values):
            trial.state, trial.values = (
                TrialState.COMPLETE,
                [float(value) for value in values if value is not None],
            )
        else:
            trial.state = TrialState.PRUNED if state == "stopped" else TrialState.FAIL
    elif trial.user_attrs.get(OVER_LIMIT):
        trial.state = TrialState.PRUNED
    elif row.get("phase") == FINAL or "duplicate_of" in trial.user_attrs:
        # Nothing was trained, and whoever wanted it chooses again.
        trial.state = TrialState.FAIL
    else:
        # It is asked for again; its parameters, if they were all known, are kept.
        fixed = trial.system_attrs.get("fixed_params") or (trial.params if "key" in row else None)
        kept = {
            name: value
            for name, value in trial.system_attrs.items()
            if not name.startswith((_CONSTRAINT, "se_nas:"))
        }
        trial.state, trial.datetime_start, trial.datetime_complete = TrialState.WAITING, None, None
        trial.system_attrs = {**kept, **({"fixed_params": fixed} if fixed else {})}
        trial.params, trial.distributions = {}, {}
