"""The rows of a run, read from the database of its study without Optuna, which takes a second to import."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
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
        with closing(_connect(path)) as connection:
            return [
                {**json.loads(text), "number": number} for number, text in connection.execute(_ROWS, (ROW,))
            ]
    except (sqlite3.DatabaseError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error


def _connect(path: Path) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True)
    try:
        connection.execute("SELECT 1 FROM trials LIMIT 1")
    except sqlite3.OperationalError:
        connection.close()
        # On a read-only file system SQLite cannot make the files through which it would see another's writes.
        return sqlite3.connect(f"{address}&immutable=1", uri=True)
    return connection
