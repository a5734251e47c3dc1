"""A disk that refuses what is written to it: told from other faults, and explained with its cure."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from se_nas.errors import DiskError

_CURES = {
    errno.ENOSPC: "Make room on that disk.",
    errno.EDQUOT: "Your quota is used up: delete something, or ask for more.",
    errno.EROFS: "Make it writable.",
    errno.EIO: "The disk may be full or failing: check it.",
}
"""By the operating system's number of an error; with one of these a disk refuses whatever is written."""
_OF_SQLITE = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
_COPY_ON_WRITE = {"btrfs", "bcachefs"}
_OCTAL = re.compile(r"\\([0-7]{3})")
"""A space or another letter in the system's list of what is mounted."""
_IN_RUST = re.compile(r"\(os error (\d+)\)")


def disk_error(path: str | Path, error: BaseException) -> DiskError:
    """Why a file could not be written, in words; ``error`` is what the attempt raised.

    Where a library has hidden the operating system's answer, it is looked for in what caused the error.
    """
    answer = next(_answers(error), None)
    if answer is None:
        return DiskError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}.")
    return DiskError(f"{path} cannot be written: {answer.words}. {_CURES[answer.number]}")


def refused(error: BaseException, path: str | Path | None = None) -> DiskError | None:
    """The error as a disk's that is full, read-only, over quota or failing; None if it has another reason.

    Args:
        error: what was raised.
        path: what was being written, if that is known.
    """
    if isinstance(error, DiskError):
        return error
    answer = next(_answers(error), None)
    return None if answer is None else disk_error(path or answer.path or "a file", error)


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an ``OSError`` into the ``DiskError`` of that file or folder."""
    try:
        yield
    except OSError as error:
        raise disk_error(path, error) from error


def refuses_mapped_writes(path: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether the kernel may end a process (SIGBUS) that changes a file through its memory where the disk is full.

    A file system that copies on write needs room for a change to what is there already. On the others a file of
    which every page was written once can be changed at any time.

    Args:
        path: of a file.
        mounts: the system's list of what is mounted; where there is none, no such file system is known.
    """
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return False
    mounted = {Path(_OCTAL.sub(_letter, place)): kind for _, place, kind, *_ in map(str.split, lines)}
    return next(
        (mounted[place] in _COPY_ON_WRITE for place in path.resolve().parents if place in mounted), False
    )


def _letter(escape: re.Match[str]) -> str:
    return chr(int(escape.group(1), 8))


class _Answer(NamedTuple):
    """What an operating system said: number, words and, if it is known, which file it was about."""

    number: int
    words: str
    path: str | None


def _answers(error: BaseException | None) -> Iterator[_Answer]:
    """Refusals in an error and in what it was raised from or during."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if isinstance(error, sqlite3.Error):
            # The lowest byte is the kind of error, without its details.
            number = _OF_SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        elif in_rust := _IN_RUST.search(str(error)):
            number = int(in_rust.group(1))
        if number in _CURES:
            words = str(error) if isinstance(error, sqlite3.Error) else os.strerror(number)
            yield _Answer(number, words, getattr(error, "filename", None))
        error = error.__cause__ or error.__context__
