"""Access to a PostgreSQL server: how workers connect, who makes the tables, and whether they may be written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import BaseModel, VersionInfoModel
from sqlalchemy import Connection, func
from sqlalchemy.pool import NullPool

from se_nas.study.database_errors import NoStudyError, explained

GRACE = 300.0
"""Seconds without a sign of life after which a worker's trials are anyone's."""
LOCKS = 0x5E7A5
"""First key of the advisory locks; the second is the study, or 0 for whoever makes tables."""
_OPTIONS = {
    # The server ends a session whose machine or network is gone, or which is frozen in its turn: nobody else has one.
    "tcp_keepalives_idle": 30,
    "tcp_keepalives_interval": 10,
    "tcp_keepalives_count": 3,
    "idle_in_transaction_session_timeout": int(1000 * GRACE),
}
_CONNECT = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "options": " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items()),
}


def check_writable(url: str) -> None:
    """Refuse a database that this user may only read, before time is spent on anything else; writes nothing.

    Raises:
        UnavailableError: the server does not answer.
        RunError: it refuses.
    """
    with explained(url), _alone(url) as connection:
        # Nothing of this is committed, and no row is any table's.
        BaseModel.metadata.create_all(connection)
        for table in BaseModel.metadata.sorted_tables:
            nothing = sqlalchemy.select(table).where(sqlalchemy.false())
            connection.execute(table.insert().from_select(table.columns.keys(), nothing))


def open_storage(url: str, study: str, *, create: bool) -> RDBStorage:
    """Optuna's access to a database; with ``create``, its tables are made."""
    with _alone(url) as connection:
        if create:
            BaseModel.metadata.create_all(connection)
            connection.commit()
        elif not sqlalchemy.inspect(connection).has_table(VersionInfoModel.__tablename__):
            raise NoStudyError(f"{url} has no study {study!r}: the search never started.")
        return RDBStorage(
            url,
            # One connection a worker; a second for a moment, when a sign of life falls into a turn.
            engine_kwargs={
                "pool_size": 1,
                "max_overflow": 1,
                "pool_pre_ping": True,
                "connect_args": _CONNECT,
            },
            skip_compatibility_check=True,
            skip_table_creation=True,
        )


@contextmanager
def _alone(url: str) -> Iterator[Connection]:
    """A connection of whoever makes tables, which several searches may do at the same time."""
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=_CONNECT)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.select(func.pg_advisory_lock(LOCKS, 0)))
        connection.commit()
        yield connection


def connect_options() -> dict[str, Any]:
    """How workers connect to the server, for SQLAlchemy's ``connect_args``."""
    return dict(_CONNECT)
