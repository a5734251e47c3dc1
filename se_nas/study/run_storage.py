"""The storage of a run's study, in the run's folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
from optuna.study import StudyDirection

from se_nas.errors import RunError
from se_nas.objectives import OBJECTIVES
from se_nas.run import STUDY, RunFolder
from se_nas.study.database import Database
from se_nas.study.database_errors import closed_if_refused
from se_nas.study.journal import copy_journal
from se_nas.study.whole_trials import STUDY_ID, WholeTrials


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
            folder.check_study(())
        directions = None if objectives is None else directions_of(objectives)
        database = Database.open(path, directions)
        with closed_if_refused(database.close):
            if directions is not None and database.directions != directions:
                raise RunError(f"{path} is damaged: its study has other objectives than the run.")
            storage = WholeTrials(database)
            folder.check_study(range(storage.get_n_trials(STUDY_ID)))
            return storage


def directions_of(objectives: Sequence[str]) -> list[StudyDirection]:
    """Whether each objective is to be large or small."""
    return [StudyDirection[OBJECTIVES[name].direction.upper()] for name in objectives]


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
