"""The database of a study, with the tables of Optuna's `RDBStorage`, so that Optuna and its dashboard open it.

Optuna itself commits every parameter and attribute of a trial alone, about 60 statements for a trial of 20
parameters. Here a trial is written whole, with whatever has to become true with it, in one transaction: what a
kill, a full disk or a power cut leaves is a study as it was before or after, never between.
"""

from __future__ import annotations

import json
import sqlite3
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import (
    StudySystemAttributeModel,
    StudyUserAttributeModel,
    TrialIntermediateValueModel,
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy import Connection, Table

from se_nas.errors import RunError
from se_nas.run import refused

STUDY_NAME = "se-nas"
SCHEMA = "v3.2.0.a"
"""The schema of Optuna's tables that is written here (Optuna 3.2 and later)."""
BUSY_SECONDS = 30.0
"""How long a write waits for a reader that holds the file."""


class UnavailableError(RunError):
    """The database does not take or give anything now: the disk is full, the server restarts, the network is gone."""


class NoStudyError(RunError):
    """The database has no study of that name."""


class TakenOverError(Exception):
    """A trial is another worker's now, or finished by it.

    Attributes:
        number: of the trial.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"trial {number} belongs to another worker now")
        self.number = number


class Database:
    """One study in a database.

    Args:
        storage: Optuna's access to the database.
        study_id: the study's number in it.
        name: of the database, for messages.
    """

    def __init__(self, storage: RDBStorage, study_id: int, name: str) -> None:
        self._storage, self._study_id, self._name = storage, study_id, name
        self.directions = storage.get_study_directions(study_id)
        self._ids: dict[int, int] = {}
        self._saved: dict[int, FrozenTrial] = {}
        self._close = weakref.finalize(self, storage.engine.dispose)

    @classmethod
    def open(
        cls, path: Path, directions: Sequence[StudyDirection] | None = None, *, read_only: bool = False
    ) -> Database:
        """The study in a file of SQLite.

        Args:
            path: of the file.
            directions: of the objectives. The study is made with these if there is none yet; None: it must exist.
            read_only: refuse to write.

        Raises:
            RunError: there is no study, the file is damaged, or Optuna's schema is not the one known here.
        """
        if directions is None and not path.is_file():
            raise RunError(f"{path.parent} has no {path.name}: the search never began.")
        with explained(str(path)):
            storage = RDBStorage(
                f"sqlite:///{path}",
                engine_kwargs={"creator": lambda: _connect(path, read_only)},
                skip_table_creation=read_only,
            )
            study_id = find_study(storage, STUDY_NAME, directions, str(path))
        return cls(storage, study_id, str(path))

    def attributes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The study's user and system attributes."""
        with explained(self._name), self._reading() as connection:
            return self._attributes(connection, USER_ATTRIBUTES), self._attributes(
                connection, SYSTEM_ATTRIBUTES
            )

    def trials(self, first: int = 0) -> list[FrozenTrial]:
        """The trials from number ``first`` on, in order of number; their ids are their numbers.

        Raises:
            RunError: the database is damaged.
        """
        with explained(self._name), self._reading() as connection:
            found = list(self._read(connection, first))
        for number, trial in enumerate(found, start=first):
            if trial.number != number:
                raise RunError(f"{self._name} is damaged: trial {number} is missing.")
            self._saved[number] = trial
        return found

    def save(self, trials: Iterable[FrozenTrial], attributes: Iterable[tuple[Table, str, Any]] = ()) -> None:
        """Write trials, and attributes of the study (a table, a key and a value each), in one transaction.

        What a trial shares with the one that was saved before, as the same object, is not written again.

        Raises:
            DiskError: the disk is full or the file cannot be written; everything is as it was before.
            RunError: the file cannot be used for another reason.
        """
        trials = list(trials)
        ids = {}
        with explained(self._name), self._writing() as connection:
            for trial in trials:
                ids[trial.number] = self._save(connection, trial)
            for table, key, value in attributes:
                self._save_attribute(connection, table, key, value)
        self._ids |= ids
        self._saved |= {trial.number: trial for trial in trials}

    def saved(self, number: int) -> FrozenTrial | None:
        """A trial as it was last read or written; None if it is not in the database."""
        return self._saved.get(number)

    def close(self) -> None:
        """Give the file back; SQLite joins its log with it then."""
        self._close()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """All tables as they are at one moment: another process may be writing."""
        with self._storage.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    def _writing(self) -> AbstractContextManager[Connection]:
        """One transaction."""
        return self._storage.engine.begin()

    def _attributes(self, connection: Connection, table: Table) -> dict[str, Any]:
        rows = connection.execute(
            sqlalchemy.select(table.c.key, table.c.value_json).where(table.c.study_id == self._study_id)
        )
        return {key: json.loads(value) for key, value in rows}

    def _read(self, connection: Connection, first: int) -> Iterator[FrozenTrial]:
        trials = TrialModel.__table__
        wanted = (trials.c.study_id == self._study_id) & (trials.c.number >= first)

        def children(model: Any) -> dict[int, list[Any]]:
            """Rows of a table by trial."""
            found: dict[int, list[Any]] = defaultdict(list)
            child = model.__table__
            key = child.primary_key.columns[0]
            for row in connection.execute(sqlalchemy.select(child).join(trials).where(wanted).order_by(key)):
                found[row.trial_id].append(row)
            return found

        params, values = children(TrialParamModel), children(TrialValueModel)
        user, system = children(TrialUserAttributeModel), children(TrialSystemAttributeModel)
        steps = children(TrialIntermediateValueModel)
        for row in connection.execute(sqlalchemy.select(trials).where(wanted).order_by(trials.c.number)):
            own = row.trial_id
            distributions = {
                param.param_name: _distribution(param.distribution_json) for param in params[own]
            }
            self._ids[row.number] = own
            yield FrozenTrial(
                number=row.number,
                trial_id=row.number,
                state=row.state,
                value=None,
                values=[
                    TrialValueModel.stored_repr_to_value(value.value, value.value_type)
                    for value in sorted(values[own], key=lambda value: value.objective)
                ]
                or None,
                datetime_start=_local(row.datetime_start),
                datetime_complete=_local(row.datetime_complete),
                params={
                    param.param_name: distributions[param.param_name].to_external_repr(param.param_value)
                    for param in params[own]
                },
                distributions=distributions,
                user_attrs={item.key: json.loads(item.value_json) for item in user[own]},
                system_attrs={item.key: json.loads(item.value_json) for item in system[own]},
                intermediate_values={
                    item.step: TrialIntermediateValueModel.stored_repr_to_intermediate_value(
                        item.intermediate_value, item.intermediate_value_type
                    )
                    for item in steps[own]
                },
            )

    def _save(self, connection: Connection, trial: FrozenTrial) -> int:
        table = TrialModel.__table__
        own, before = self._ids.get(trial.number), self._saved.get(trial.number)
        facts = {
            "number": trial.number,
            "study_id": self._study_id,
            "state": trial.state,
            "datetime_start": _utc(trial.datetime_start),
            "datetime_complete": _utc(trial.datetime_complete),
        }
        known = own is not None
        if own is None:
            own = connection.execute(table.insert().values(facts)).inserted_primary_key[0]  # type: ignore[index]
        else:
            connection.execute(table.update().where(table.c.trial_id == own).values(facts))
        for name, model, rows in (
            ("params", TrialParamModel, _param_rows),
            ("values", TrialValueModel, _value_rows),
            ("user_attrs", TrialUserAttributeModel, lambda trial: _attribute_rows(trial.user_attrs)),
            ("system_attrs", TrialSystemAttributeModel, lambda trial: _attribute_rows(trial.system_attrs)),
        ):
            if before is not None and getattr(before, name) is getattr(trial, name):
                continue
            if known:
                connection.execute(model.__table__.delete().where(model.__table__.c.trial_id == own))
            found = [{"trial_id": own, **row} for row in rows(trial)]
            if found:
                connection.execute(model.__table__.insert(), found)
        return own

    def _save_attribute(self, connection: Connection, table: Table, key: str, value: Any) -> None:
        connection.execute(table.delete().where((table.c.study_id == self._study_id) & (table.c.key == key)))
        connection.execute(
            table.insert().values(study_id=self._study_id, key=key, value_json=json.dumps(value))
        )


def find_study(
    storage: RDBStorage, study: str, directions: Sequence[StudyDirection] | None, name: str
) -> int:
    """The number of a study, which is made if ``directions`` are given and there is none.

    Raises:
        RunError: there is none, or Optuna's schema is not the one known here.
    """
    found = storage.get_current_version()
    if found != SCHEMA:
        raise RunError(
            f"{name} has Optuna's schema {found}; this version of se-nas writes {SCHEMA}. Upgrade se-nas."
        )
    try:
        return storage.get_study_id_from_name(study)
    except KeyError:
        if directions is None:
            raise NoStudyError(f"{name} has no study {study!r}: the search never began.") from None
        return storage.create_new_study(directions, study)


USER_ATTRIBUTES: Table = StudyUserAttributeModel.__table__
SYSTEM_ATTRIBUTES: Table = StudySystemAttributeModel.__table__
"""Tables of the study's attributes, for `Database.save`."""


def _param_rows(trial: FrozenTrial) -> Sequence[Mapping[str, Any]]:
    return [
        {
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": _json(trial.distributions[name]),
        }
        for name, value in trial.params.items()
    ]


def _value_rows(trial: FrozenTrial) -> Sequence[Mapping[str, Any]]:
    rows = []
    for objective, value in enumerate(trial.values or ()):
        stored, kind = TrialValueModel.value_to_stored_repr(value)
        rows.append({"objective": objective, "value": stored, "value_type": kind})
    return rows


def _attribute_rows(attributes: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [{"key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


@cache
def _distribution(text: str) -> BaseDistribution:
    """Trials share the distributions of their space: 10,000 trials would have 200,000 of them otherwise."""
    return json_to_distribution(text)


@cache
def _json(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)


def _utc(moment: datetime | None) -> datetime | None:
    """Optuna has naive local time in a trial, and naive UTC in the database."""
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)


def _local(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, check_same_thread=False
    )
    if not read_only:
        # Readers never wait for the writer, nor it for them. A file system that cannot do this keeps the default.
        connection.execute("PRAGMA journal_mode = WAL")
        # Every commit reaches the disk: a trial has two or three, so what it costs is nothing beside a training,
        # and a power cut loses none of them. (With NORMAL it loses those of the last half minute.)
        connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Errors of the database as one sentence: ``UnavailableError`` for what may be over in a moment."""
    try:
        yield
    except (
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.InterfaceError,
        sqlalchemy.exc.ProgrammingError,
        StorageInternalError,
        sqlite3.OperationalError,
    ) as error:
        if (fault := refused(error, name)) is not None:
            raise fault from error
        passing = isinstance(error, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError)
        kind = UnavailableError if passing else RunError
        raise kind(f"{name} cannot be used: {_reason(error)}.") from error
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{name} is damaged: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """What the driver says, in one line; Optuna and SQLAlchemy wrap it."""
    reason = getattr(error, "orig", None) or error.__cause__ or error
    reason = getattr(reason, "orig", reason)
    # Further lines are hints, and where in the statement the error is.
    return str(reason).strip().partition("\n")[0].rstrip(".")
