"""The database of a study, with the tables of Optuna's `RDBStorage`, so that Optuna and its dashboard open it.

Optuna itself commits every parameter and attribute of a trial alone, about 60 statements for a trial of 20
parameters. Here a trial is written whole, with whatever has to become true with it, in one transaction: what a
kill, a full disk or a power cut leaves is a study as it was before or after, never between. Every trial has digests of
what was written, and so have the study's attributes; what other programs write has none and is taken as it is.
"""

from __future__ import annotations

import json
import re
import sqlite3
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import StudySystemAttributeModel, StudyUserAttributeModel, TrialModel
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy import ColumnElement, Connection, QueuePool, Table

from se_nas.documents import without_collections
from se_nas.errors import RunError
from se_nas.run import refuses_mapped_writes
from se_nas.run.files import sha256
from se_nas.run.study_file import SEALS, check_seal, check_structure
from se_nas.study.database_errors import NoStudyError, closed_if_refused, explained
from se_nas.study.trial_tables import read_trials, write_trial

STUDY_NAME = "se-nas"
SCHEMA = "v3.2.0.a"
"""The schema of Optuna's tables that is written here (Optuna 3.2 and later)."""
BUSY_SECONDS = 30.0
"""How long a write waits for a reader that holds the file."""


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
        for beside in (
            path,
            *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal")),
        ):
            if beside.is_dir():
                raise RunError(f"{beside} is a folder, and SQLite needs a file of that name: move it away.")

        def connect() -> Any:
            return _connect(path, read_only)

        pool = QueuePool(connect)
        # Whoever closes a file last removes the log at its path, which may be that of a file put in its place.
        with explained(str(path)), closed_if_refused(pool.dispose):
            storage = RDBStorage(
                f"sqlite:///{path}",
                engine_kwargs={"pool": pool},
                skip_compatibility_check=True,
                skip_table_creation=read_only,
            )
            with closing(_connect(path, read_only=True)) as connection:
                check_structure(connection)
            return cls(storage, find_study(storage, STUDY_NAME, directions, str(path)), str(path))

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
        with explained(self._name), self._reading() as connection, without_collections():
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

    def _read(
        self,
        connection: Connection,
        which: ColumnElement[bool],
        described: Mapping[int, FrozenTrial] = MappingProxyType({}),
    ) -> Iterator[FrozenTrial]:
        """The study's trials of which a condition on `TrialModel` holds, in order of number; see ``read_trials``."""
        wanted = (TrialModel.__table__.c.study_id == self._study_id) & which
        for own, trial in read_trials(connection, wanted, described):
            self._ids[trial.number] = own
            yield trial

    def _save(self, connection: Connection, trial: FrozenTrial) -> int:
        return write_trial(
            connection,
            self._study_id,
            trial,
            own=self._ids.get(trial.number),
            before=self._saved.get(trial.number),
            sealed=self._sealed,
        )

    def _save_attribute(self, connection: Connection, table: Table, key: str, text: str) -> None:
        connection.execute(table.delete().where((table.c.study_id == self._study_id) & (table.c.key == key)))
        connection.execute(table.insert().values(study_id=self._study_id, key=key, value_json=text))


def find_study(
    storage: RDBStorage, study: str, directions: Sequence[StudyDirection] | None, name: str
) -> int:
    """The number of a study, which is made if ``directions`` are given and there is none.

    Optuna's own check of the schema says what to do with a file that Optuna writes.

    Raises:
        RunError: there is none, or Optuna's schema is not the one known here.
    """
    found = storage.get_current_version()
    if found != SCHEMA:
        older = _numbers(found) < _numbers(SCHEMA)
        remedy = "Optuna's command storage upgrade brings it up to date" if older else "Upgrade se-nas"
        raise RunError(
            f"{name} has Optuna's schema {found}; this version of se-nas writes {SCHEMA}. {remedy}."
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


def _numbers(schema: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", schema)]


def _address(table: Table, key: str) -> str:
    return f"{table.name}.{key}"


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, check_same_thread=False
    )
    if read_only:
        return connection
    with closed_if_refused(connection.close):
        # With a write-ahead log readers never wait for the writer, nor it for them, but what is in the log is found
        # through memory. A file system that cannot do this keeps the default.
        mode = "TRUNCATE" if refuses_mapped_writes(path) else "WAL"
        connection.execute(f"PRAGMA journal_mode = {mode}")
        # Every commit reaches the disk: a trial has two or three, so what it costs is nothing beside a training,
        # and a power cut loses none of them. (With NORMAL it loses those of the last half minute.)
        connection.execute("PRAGMA synchronous = FULL")
    return connection
