"""The database of a study, with the tables of Optuna's `RDBStorage`, so that Optuna and its dashboard open it.

Optuna itself commits every parameter and attribute of a trial alone, about 60 statements for a trial of 20
parameters. Here a trial is written whole, with whatever has to become true with it, in one transaction: what a
kill, a full disk or a power cut leaves is a study as it was before or after, never between. Every trial has digests of
what was written, and so have the study's attributes; what other programs write has none and is taken as it is.
"""

from __future__ import annotations

import json
import sqlite3
import warnings
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
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
from sqlalchemy import ColumnElement, Connection, Table

from se_nas.errors import RunError
from se_nas.run import refused, refuses_mapped_writes
from se_nas.run.files import sha256
from se_nas.run.study_file import ROW, SEALS, check_seal, check_structure

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

    _sealed = True
    """Whether trials and attributes have digests: one process writes them, and nobody else checks them."""

    def __init__(self, storage: RDBStorage, study_id: int, name: str) -> None:
        self._storage, self._study_id, self._name = storage, study_id, name
        self.directions = storage.get_study_directions(study_id)
        self._ids: dict[int, int] = {}
        self._saved: dict[int, FrozenTrial] = {}
        self._seals: dict[str, str] = {}
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
            raise RunError(f"{path.parent} has no {path.name}: the search never started.")
        with explained(str(path)):
            storage = RDBStorage(
                f"sqlite:///{path}",
                engine_kwargs={"creator": lambda: _connect(path, read_only)},
                skip_table_creation=read_only,
            )
            with closing(_connect(path, read_only=True)) as connection:
                check_structure(connection)
            study_id = find_study(storage, STUDY_NAME, directions, str(path))
        return cls(storage, study_id, str(path))

    def attributes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The study's user and system attributes.

        Raises:
            RunError: one is not what was written.
        """
        tables = (USER_ATTRIBUTES, SYSTEM_ATTRIBUTES)
        with explained(self._name), self._reading() as connection:
            user, system = self._attributes(connection, tables)
            self._seals = json.loads(system.pop(SEALS, "{}"))
            stored = {
                _address(table, key): text
                for table, texts in zip(tables, (user, system), strict=True)
                for key, text in texts.items()
            }
            for address, seal in self._seals.items():
                check_seal(f"the attribute {address}", stored.get(address), seal)
            return (
                {key: json.loads(text) for key, text in user.items()},
                {key: json.loads(text) for key, text in system.items()},
            )

    def trials(self, first: int = 0) -> list[FrozenTrial]:
        """The trials from number ``first`` on, in order of number; their ids are their numbers.

        Raises:
            RunError: the database is damaged.
        """
        with explained(self._name), self._reading() as connection:
            found = list(self._read(connection, TrialModel.__table__.c.number >= first))
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
            seals = dict(self._seals)
            for table, key, value in attributes:
                text = json.dumps(value)
                seals[_address(table, key)] = sha256(text)
                self._save_attribute(connection, table, key, text)
            if self._sealed and seals != self._seals:
                self._save_attribute(connection, SYSTEM_ATTRIBUTES, SEALS, json.dumps(seals))
        self._seals = seals
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

    def _attributes(self, connection: Connection, tables: Sequence[Table]) -> list[dict[str, str]]:
        """Values by key in each of some tables, with one statement."""
        found: list[dict[str, str]] = [{} for _ in tables]
        wanted = [
            sqlalchemy.select(sqlalchemy.literal(place), table.c.key, table.c.value_json).where(
                table.c.study_id == self._study_id
            )
            for place, table in enumerate(tables)
        ]
        for place, key, text in connection.execute(sqlalchemy.union_all(*wanted)):
            found[place][key] = text
        return found

    def _read(self, connection: Connection, which: ColumnElement[bool]) -> Iterator[FrozenTrial]:
        """The study's trials of which a condition on `TrialModel` holds, in order of number."""
        trials = TrialModel.__table__
        wanted = (trials.c.study_id == self._study_id) & which

        def rows_of(table: Table, columns: Sequence[str]) -> dict[int, list[Any]]:
            """Some columns of a table's rows by trial."""
            found: dict[int, list[Any]] = defaultdict(list)
            chosen = sqlalchemy.select(table.c.trial_id, *(table.c[name] for name in columns))
            for own, *row in connection.execute(
                chosen.join(trials).where(wanted).order_by(table.primary_key.columns[0])
            ):
                found[own].append(tuple(row))
            return found

        stored = {name: rows_of(*where) for name, where in _CHILDREN.items()}
        steps = rows_of(TrialIntermediateValueModel.__table__, _STEP)
        for row in connection.execute(sqlalchemy.select(trials).where(wanted).order_by(trials.c.number)):
            own = row.trial_id
            children: _Children = {name: stored[name][own] for name in _CHILDREN}
            _check(row, children)
            distributions = {name: _distribution(text) for name, _, text in children["params"]}
            self._ids[row.number] = own
            yield FrozenTrial(
                number=row.number,
                trial_id=row.number,
                state=row.state,
                value=None,
                values=[
                    TrialValueModel.stored_repr_to_value(value, kind)
                    for _, value, kind in sorted(children["values"])
                ]
                or None,
                datetime_start=_local(row.datetime_start),
                datetime_complete=_local(row.datetime_complete),
                params={
                    name: distributions[name].to_external_repr(value) for name, value, _ in children["params"]
                },
                distributions=distributions,
                user_attrs={key: json.loads(text) for key, text in children["user_attrs"]},
                system_attrs={
                    key: json.loads(text) for key, text in children["system_attrs"] if key != SEALS
                },
                intermediate_values={
                    step: TrialIntermediateValueModel.stored_repr_to_intermediate_value(value, kind)
                    for step, value, kind in steps[own]
                },
            )

    def _save(self, connection: Connection, trial: FrozenTrial) -> int:
        table = TrialModel.__table__
        own, before = self._ids.get(trial.number), self._saved.get(trial.number)
        moments = _utc(trial.datetime_start), _utc(trial.datetime_complete)
        facts = dict(zip(_FACTS, (trial.number, trial.state, *moments), strict=True))
        known = own is not None
        if own is None:
            added = table.insert().values(study_id=self._study_id, **facts)
            own = connection.execute(added).inserted_primary_key[0]  # type: ignore[index]
        else:
            connection.execute(table.update().where(table.c.trial_id == own).values(facts))
        children = _children(trial)
        for name, (child, columns) in _CHILDREN.items():
            if before is not None and getattr(before, name) is getattr(trial, name):
                continue
            if known:
                connection.execute(child.delete().where(child.c.trial_id == own))
            if children[name]:
                rows = [{"trial_id": own, **dict(zip(columns, row, strict=True))} for row in children[name]]
                connection.execute(child.insert(), rows)
        if self._sealed:
            seals = json.dumps(_seals(facts, children))
            # There is one of each key: this replaces that of the save before.
            replaced = TrialSystemAttributeModel.__table__.insert().prefix_with("OR REPLACE")
            connection.execute(replaced.values(trial_id=own, key=SEALS, value_json=seals))
        return own

    def _save_attribute(self, connection: Connection, table: Table, key: str, text: str) -> None:
        connection.execute(table.delete().where((table.c.study_id == self._study_id) & (table.c.key == key)))
        connection.execute(table.insert().values(study_id=self._study_id, key=key, value_json=text))


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
            raise NoStudyError(f"{name} has no study {study!r}: the search never started.") from None
        return storage.create_new_study(directions, study)


USER_ATTRIBUTES: Table = StudyUserAttributeModel.__table__
SYSTEM_ATTRIBUTES: Table = StudySystemAttributeModel.__table__
"""Tables of the study's attributes, for `Database.save`."""


def _address(table: Table, key: str) -> str:
    return f"{table.name}.{key}"


_Children = Mapping[str, Sequence[tuple[Any, ...]]]
"""Rows of a trial in the tables of `_CHILDREN`."""
_CHILDREN: Mapping[str, tuple[Table, tuple[str, ...]]] = {
    "params": (TrialParamModel.__table__, ("param_name", "param_value", "distribution_json")),
    "values": (TrialValueModel.__table__, ("objective", "value", "value_type")),
    "user_attrs": (TrialUserAttributeModel.__table__, ("key", "value_json")),
    "system_attrs": (TrialSystemAttributeModel.__table__, ("key", "value_json")),
}
"""Attributes of a trial, with the table and the columns in which each is stored."""
_FACTS = ("number", "state", "datetime_start", "datetime_complete")
_STEP = ("step", "intermediate_value", "intermediate_value_type")


def _children(trial: FrozenTrial) -> _Children:
    return {
        "params": [
            (name, float(distribution.to_internal_repr(trial.params[name])), _json(distribution))
            for name, distribution in trial.distributions.items()
        ],
        "values": [
            (objective, *TrialValueModel.value_to_stored_repr(value))
            for objective, value in enumerate(trial.values or ())
        ],
        "user_attrs": [(key, json.dumps(value)) for key, value in trial.user_attrs.items()],
        "system_attrs": [(key, json.dumps(value)) for key, value in trial.system_attrs.items()],
    }


def _seals(facts: Mapping[str, Any], children: _Children) -> dict[str, str]:
    """The digests of a trial, as `study_file.SEALS` describes them; ``facts`` are those of its own table."""
    rest: list[Any] = list(facts.values())
    for name, rows in children.items():
        rest.append(sorted(row for row in rows if not (name == "user_attrs" and row[0] == ROW)))
    rows_text = [text for key, text in children["user_attrs"] if key == ROW]
    return {
        **({"row": sha256(rows_text[0])} if rows_text else {}),
        "rest": sha256(json.dumps(rest, default=_stable)),
    }


def _stable(value: Any) -> str:
    """What the digests say of a state or a moment, in any version of Python."""
    return value.isoformat() if isinstance(value, datetime) else value.name


def _check(row: Any, children: _Children) -> None:
    """Refuse a trial that is not what was written; one without digests is taken as it is."""
    attributes = children["system_attrs"]
    found = [text for key, text in attributes if key == SEALS]
    if not found:
        return
    whole = {**children, "system_attrs": [item for item in attributes if item[0] != SEALS]}
    if json.loads(found[0]) != _seals({name: getattr(row, name) for name in _FACTS}, whole):
        raise ValueError(f"trial {row.number} is not what was written")


@cache
def _distribution(text: str) -> BaseDistribution:
    """Trials share the distributions of their space: 10,000 trials would have 200,000 of them otherwise."""
    with warnings.catch_warnings():
        # Optuna warns of choices that it cannot store, so they were not what it stored.
        warnings.simplefilter("error")
        try:
            return json_to_distribution(text)
        except UserWarning as error:
            raise ValueError(str(error)) from None


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
        # With a write-ahead log readers never wait for the writer, nor it for them, but what is in the log is found
        # through memory. A file system that cannot do this keeps the default.
        mode = "TRUNCATE" if refuses_mapped_writes(path) else "WAL"
        connection.execute(f"PRAGMA journal_mode = {mode}")
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
        # Optuna wraps what its own queries meet.
        met = error.__cause__ if isinstance(error, StorageInternalError) else error
        passing = isinstance(met, sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError)
        kind = UnavailableError if passing else RunError
        raise kind(f"{name} cannot be used: {_reason(error)}.") from error
    except (
        sqlalchemy.exc.SQLAlchemyError,
        sqlite3.DatabaseError,
        ValueError,
        LookupError,
        TypeError,
        AssertionError,
    ) as error:
        # Optuna asserts what it has stored itself, without words.
        raise RunError(f"{name} is damaged: {_reason(error) or type(error).__name__}.") from error


def _reason(error: Exception) -> str:
    """What the driver says, in one line; Optuna and SQLAlchemy wrap it."""
    reason = getattr(error, "orig", None) or error.__cause__ or error
    reason = getattr(reason, "orig", reason)
    # Further lines are hints, and where in the statement the error is.
    return str(reason).strip().partition("\n")[0].rstrip(".")
