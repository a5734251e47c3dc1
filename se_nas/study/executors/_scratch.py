"""Temporary folders of processes that are killed rather than ended, as Ray does with actors."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

_NAME = "se-nas-actor-"


class Scratch:
    """A temporary folder, as long as this process lives; a later one on this machine deletes it.

    Attributes:
        folder: empty at first.
    """

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir())
        for left in base.glob(f"{_NAME}*.lock"):
            _delete_unless_held(left)
        self.folder = base / f"{_NAME}{secrets.token_hex(8)}"
        # Held before there is a folder, so that nobody takes it for one that was left.
        self._lock = FileLock(f"{self.folder}.lock")
        self._lock.acquire()
        self.folder.mkdir(mode=0o700)


def _delete_unless_held(path: Path) -> None:
    if path.is_symlink():
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        # Its process lives, or it is another user's.
        return
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    path.unlink(missing_ok=True)
    lock.release()
