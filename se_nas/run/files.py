"""Files of a run, read with a clear error and written whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from se_nas.errors import RunError
from se_nas.run.disk import writing


def read_json(path: Path) -> Any:
    """Parsed JSON of one of our files; RunError if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically. Not-a-number values are refused: no reader of JSON agrees on them."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


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
