"""What goes wrong with a study's database, in one sentence each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy
from optuna.exceptions import StorageInternalError

from se_nas.errors import RunError
from se_nas.run import refused


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


@contextmanager
def closed_if_refused(close: Callable[[], object]) -> Iterator[None]:
    """Close what has just been opened if an error ends what is done inside of this."""
    try:
        yield
    except BaseException:
        close()
        raise


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Errors of the database as one sentence: ``UnavailableError`` for what may be over in a moment."""
    try:
        yield
    except (
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.InterfaceError,
        sqlalchemy.exc.ProgrammingError,
        # PostgreSQL's for what a read-only user or server refuses.
        sqlalchemy.exc.InternalError,
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
