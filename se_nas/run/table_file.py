"""``trials.json`` as a file: a row per line, each with the digest of its text as its last field."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from se_nas.documents import MAX_BYTES
from se_nas.errors import RunError
from se_nas.run.files import DIGEST, read_json, sha256, write_json

_FIRST, _MORE, _LAST = "[\n", ",\n", "]\n"
"""The first line, the end of a row that another one follows, and the last line."""
_SEAL, _END = f', "{DIGEST}": "', '"}'
_NUMBER = re.compile(r' \{"number": (\d{1,18}),')


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, of which the first column is ``number``.

    Raises:
        DiskError: the disk refuses it; the file is as it was before.
    """
    write_json(path, [{**row, DIGEST: sha256(json.dumps(row))} for row in rows])


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows, each with its number; empty if there is no such file.

    Raises:
        RunError: it is damaged.
    """
    if not path.exists():
        return []
    table = read_json(path)
    if not isinstance(table, list):
        raise RunError(f"{path} is damaged: it must be a list of rows.")
    for place, row in enumerate(table):
        if not isinstance(row, dict) or type(row.get("number")) is not int:
            raise RunError(f"row {place} of {path} is damaged: it must be a JSON object with a number.")
        seal = row.pop(DIGEST, None)
        if seal is not None and sha256(json.dumps(row)) != seal:
            raise RunError(f"row {place} of {path} is damaged: it is not what was written.")
    return table


def read_numbers(path: Path) -> set[int]:
    """The numbers of the rows; errors as for ``read_table``.

    A line that is as it was written, by its digest, needs no parsing.
    """
    if not path.exists():
        return set()
    numbers = _sealed_numbers(path)
    return {row["number"] for row in read_table(path)} if numbers is None else numbers


def _sealed_numbers(path: Path) -> set[int] | None:
    """The numbers of the rows; None if the file is not, to the letter, what ``write_table`` writes.

    Read line by line: a table has many times the size of its numbers.
    """
    numbers: set[int] = set()
    follows = True
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            if path.stat().st_size > MAX_BYTES or next(lines, None) != _FIRST:
                return None
            for line in lines:
                if not follows:
                    return numbers if line == _LAST and next(lines, None) is None else None
                number = _sealed_number(line)
                if number is None:
                    return None
                numbers.add(number)
                follows = line.endswith(_MORE)
    except (OSError, ValueError):
        pass
    return None


def _sealed_number(line: str) -> int | None:
    """The number of a row; None if its line is not, to the letter, what ``write_table`` writes."""
    row, found, seal = line.removesuffix("\n").removesuffix(",").rpartition(_SEAL)
    number = _NUMBER.match(row)
    if number is None or not found or not seal.endswith(_END):
        return None
    # The digest is that of a text in ASCII. This escapes letters up to U+00FF otherwise: they are parsed.
    escaped = row[1:].encode("ascii", "backslashreplace") + b"}"
    return int(number[1]) if hashlib.sha256(escaped).hexdigest() == seal.removesuffix(_END) else None
