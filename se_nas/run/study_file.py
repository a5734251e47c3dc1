"""The rows of a run, read from the database of its study without Optuna, which takes a second to import."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from se_nas.documents import parse_json
from se_nas.errors import RunError
from se_nas.run.files import sha256

STUDY = "study.db"
ROW = "se_nas:row"
"""User attribute of a trial: its row of the table, as one mapping. Trials that were never trained have none."""
SEALS = "se_nas:sha256"
"""System attribute of a trial: digests of its row's text ("row", if it has one) and of all else ("rest")."""
_ROWS = """
    SELECT trials.number, attribute.value_json, seals.value_json
    FROM trials
    LEFT JOIN trial_user_attributes AS attribute ON attribute.trial_id = trials.trial_id AND attribute.key = ?
    LEFT JOIN trial_system_attributes AS seals ON seals.trial_id = trials.trial_id AND seals.key = ?
    ORDER BY trials.number
"""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows as they are in the database, in order of number; also while a search writes it.

    Raises:
        RunError: the file is damaged or a folder, or a row is not what was written.
    """
    if path.is_dir():
        raise RunError(f"{path} is a folder.")
    try:
        with _opened(path) as connection:
            check_structure(connection)
            found = connection.execute(_ROWS, (ROW, SEALS)).fetchall()
        return [row for place, one in enumerate(found) if (row := _row(place, *one)) is not None]
    except (sqlite3.DatabaseError, ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(_connect(path)) as connection:
        try:
            connection.execute("SELECT 1 FROM trials LIMIT 1")
        except sqlite3.OperationalError:
            pass
        else:
            yield connection
            return
    # On a disk that is read-only or full SQLite cannot make the file through which it finds what is still in its log,
    # nor undo what a killed process had begun.
    with TemporaryDirectory() as folder:
        for name in (path.name, f"{path.name}-wal", f"{path.name}-journal"):
            if (path.parent / name).exists():
                shutil.copyfile(path.parent / name, Path(folder, name))
        with closing(_connect(Path(folder, path.name), "rw")) as connection:
            yield connection


def check_structure(connection: sqlite3.Connection) -> None:
    """Refuse a database of which a part is lost, with ValueError; what is stored in it has digests of its own."""
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        # The first line says which database, the next what is wrong with it.
        raise ValueError(found.splitlines()[-1])


def check_seal(what: str, text: str | None, seal: Any) -> None:
    """Raise ValueError if a text is not what its digest says; without a digest it is taken as it is."""
    if seal is not None and (text is None or sha256(text) != seal):
        raise ValueError(f"{what} is not what was written")


def _row(place: int, number: int, text: str | None, seals: str | None) -> dict[str, Any] | None:
    if number != place:
        raise ValueError(f"trial {place} is missing")
    if seals is not None:
        check_seal(f"the row of trial {number}", text, json.loads(seals).get("row"))
    if text is None:
        return None
    row = parse_json(text)
    if not isinstance(row, dict):
        raise ValueError(f"the row of trial {number} is not a mapping")
    row["number"] = number
    return row


def _connect(path: Path, mode: str = "ro") -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)
