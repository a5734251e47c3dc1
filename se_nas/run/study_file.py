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

from se_nas.errors import RunError

STUDY = "study.db"
ROW = "se_nas:row"
"""User attribute of a trial: its row of the table, as one mapping. Trials that were never trained have none."""
_ROWS = """
    SELECT trials.number, attribute.value_json
    FROM trials JOIN trial_user_attributes AS attribute USING (trial_id)
    WHERE attribute.key = ? ORDER BY trials.number
"""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows as they are in the database, in order of number; also while a search writes it.

    Raises:
        RunError: the file is damaged.
    """
    try:
        with _opened(path) as connection:
            return [
                {**json.loads(text), "number": number} for number, text in connection.execute(_ROWS, (ROW,))
            ]
    except (sqlite3.DatabaseError, ValueError, TypeError, RecursionError) as error:
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
    # On a disk that is read-only or full SQLite cannot make the file through which it finds what is still in its log.
    with TemporaryDirectory() as folder:
        for name in (path.name, f"{path.name}-wal"):
            if (path.parent / name).exists():
                shutil.copyfile(path.parent / name, Path(folder, name))
        with closing(_connect(Path(folder, path.name))) as connection:
            yield connection


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
