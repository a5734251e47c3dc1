"""Files of a run, read with a clear error and written whole or not at all.

A JSON object is written with the SHA-256 of its own text as its first key, so that a file in which something has
changed is not taken for whole. A file without that key is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from se_nas.documents import parse_json, read_text
from se_nas.errors import RunError
from se_nas.run.disk import writing

DIGEST = "sha256"
_plain = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode
_SEAL = re.compile(rf'\{{\n "{DIGEST}": "([0-9a-f]{{64}})",(?=\n)')


def read_json(path: Path) -> Any:
    """Parsed JSON of one of our files.

    Raises:
        RunError: it is missing, damaged, or not what was written.
    """
    try:
        text = read_text(path)
        seal = _SEAL.match(text)
        value = parse_json(text)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    if seal is not None and sha256("{" + text[seal.end() :]) != seal[1]:
        raise RunError(
            f"{path} is damaged: it is not what was written. If you changed it yourself, delete its line {DIGEST!r}."
        )
    if isinstance(value, dict):
        value.pop(DIGEST, None)
    return value


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; a table has one row per line. Python's own indentation would take ten times as long.

    Not-a-number values are refused: no reader of JSON agrees on them.
    """
    text = _json(value, 2, "\n") + "\n"
    if isinstance(value, dict) and value:
        text = f'{{\n "{DIGEST}": "{sha256(text)}",' + text[1:]
    write_text(path, text)


def _json(value: Any, levels: int, line: str) -> str:
    inner = line + " "
    if levels and value and isinstance(value, dict):
        parts = [f"{_plain(str(key))}: {_json(item, levels - 1, inner)}" for key, item in value.items()]
        return f"{{{inner}{f',{inner}'.join(parts)}{line}}}"
    if value and isinstance(value, list | tuple) and isinstance(value[0], dict):
        return f"[{inner}{f',{inner}'.join(map(_plain, value))}{line}]"
    return _plain(value)


def sha256(text: str) -> str:
    """The digest of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all; errors as for ``write_bytes``."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file in the same folder, flushed, renamed.

    Raises:
        DiskError: the disk is full or the folder cannot be written; the file is as it was before.
    """
    with writing(path), whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder to write to; it becomes ``path`` at the end, unless an error is raised.

    The file has the mode that the user's umask gives to new files; writers such as safetensors choose 0600.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    os.close(handle)
    try:
        yield temporary
        # A rename may reach the disk before what was written; a power cut would leave an empty file with the name.
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
