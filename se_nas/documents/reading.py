"""Documents that others wrote, JSON and YAML, read within bounds: what they give is plain, finite, and not too deep.

Every reader here raises `ValueError` with a reason to put behind the file's name.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 30
"""Of a file that se-nas wrote: tables of 100,000 trials with long curves fit."""
MAX_WRITTEN_BYTES = 1 << 20
"""Of a file that a person writes, such as a search space."""
MAX_DEPTH = 40
"""Of lists and mappings in each other."""
MAX_WRITTEN_ITEMS = 100_000
"""Values in a file that a person writes. A few lines of YAML can name one list a million times."""
MAX_INTEGER = 1 << 63
_CHUNK = 1 << 20
"""Bytes that are read at a time: a buffer of the most that a file may have would be a gigabyte."""
_OUT_OF_RANGE = "it has a number that is not finite or does not fit into 64 bits"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """The content of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer than ``most`` bytes.
    """
    if path.stat().st_size > most:
        raise ValueError(f"it is larger than {most >> 20} MiB")
    with path.open("rb") as stream:
        # What has no size of its own, such as a pipe, is read no further either.
        content = bytearray()
        while chunk := stream.read(min(most - len(content), _CHUNK)):
            content += chunk
        return bytes(content)


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """The content of a file in UTF-8; errors as for ``read_bytes``, and ValueError if it is not text."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text: {error}") from error


def parse_json(text: str) -> Any:
    """The value of a JSON document.

    Raises:
        ValueError: it is not JSON, or is out of bounds: not a number, infinity, integers beyond 64 bits, text that
            cannot be encoded, lists and mappings too deep in each other.
    """
    try:
        value = _DECODER.decode(text)
        if _SURROGATE.search(text):
            # Half of a character; it could not be printed or written again.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError(f"it is deeper than {MAX_DEPTH} levels") from None
    except UnicodeEncodeError as error:
        raise ValueError(f"it has text that is not Unicode: {error.reason}") from error
    # Most rows of a table have so few brackets that they cannot lie too deep in each other.
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check(value)
    return value


def _integer(text: str) -> int:
    value = int(text)
    if not -MAX_INTEGER <= value < MAX_INTEGER:
        raise ValueError(_OUT_OF_RANGE)
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(_OUT_OF_RANGE)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(_OUT_OF_RANGE)


# Numbers are checked as they are read: to look at all values again would take longer than to parse them.
_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_fraction, parse_constant=_refuse_constant)


def parse_yaml(text: str) -> Any:
    """The value of a YAML document of plain values; infinity and not-a-number are left to whoever knows the field.

    Raises:
        yaml.YAMLError: it is not YAML, or has tags of other values.
        ValueError: it is out of bounds.
    """
    import yaml

    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise ValueError(f"it is deeper than {MAX_DEPTH} levels") from None
    _check(value, most=MAX_WRITTEN_ITEMS, integers=True)
    return value


def _check(value: Any, most: float = math.inf, *, integers: bool = False) -> None:
    """Refuse what no reader expects, level by level.

    Raises:
        ValueError: there are more than ``most`` values, they lie deeper than ``MAX_DEPTH``, or (with ``integers``)
            an integer has more than 64 bits.
    """
    level, count = [value], 0
    for _ in range(MAX_DEPTH + 1):
        if integers and any(type(item) is int and not -MAX_INTEGER <= item < MAX_INTEGER for item in level):
            raise ValueError(_OUT_OF_RANGE)
        containers = [item for item in level if isinstance(item, (dict, list))]
        if not containers:
            return
        count += sum(map(len, containers))
        if count > most:
            raise ValueError(f"it has more than {most:,} values")
        level = []
        for item in containers:
            level += item.values() if isinstance(item, dict) else item
    raise ValueError(f"it is deeper than {MAX_DEPTH} levels")
