"""Worker processes: how they are started, and how those of a search that was killed are waited for."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.multiprocessing
from filelock import FileLock, Timeout

from se_nas.errors import RunError
from se_nas.study.executors.task import Setup
from se_nas.study.executors.worker import Pack, sendable, work
from se_nas.study.interrupts import SIGNALS

ORPHAN_SECONDS = 120
UNGUARDED = 78
"""Exit code of a worker whose import of the main script began a search."""
_LOCKS = "worker-*.lock"


def start_worker(setup: Setup, number: int, pack: Pack | None) -> tuple[BaseProcess, Connection]:
    """A process that trains for ``setup``, one candidate at a time or a pack, and our end of the pipe to it."""
    context = torch.multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=work,
        args=(
            theirs,
            sendable(setup),
            torch.get_num_threads(),
            setup.folder / _LOCKS.replace("*", str(number)),
            pack,
        ),
        name=f"se-nas worker {number + 1}",
        daemon=False,
    )
    with _without_signals():
        process.start()
    theirs.close()
    return process, ours


def refuse_unguarded() -> None:
    """End a worker that would search: its parent's script does so as it is imported, by every worker again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)


def remove_locks(folder: Path) -> None:
    """Delete the files that say which workers live, once none does."""
    for lock in folder.glob(_LOCKS):
        lock.unlink(missing_ok=True)


def wait_for_orphans(folder: Path) -> None:
    """Return when the workers of a search that was killed have ended; they notice it at their next batch.

    Raises:
        RunError: one of them is still there after two minutes.
    """
    for path in folder.glob(_LOCKS):
        lock = FileLock(path, timeout=ORPHAN_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise RunError(
                f"a worker of a killed process is still training in {folder} ({path.name} is locked); stop it,"
                " then continue."
            ) from None
        lock.release()
        path.unlink(missing_ok=True)


@contextmanager
def _without_signals() -> Iterator[None]:
    """A process that is started inside of this never sees ``SIGNALS``, not even before it can ignore them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
