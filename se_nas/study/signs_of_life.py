"""While a worker works on a shared study, a thread tells the others so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from se_nas.errors import RunError
from se_nas.study.clock import Clock
from se_nas.study.shared_storage import SharedStore
from se_nas.study.storage import StudyStore

INTERVAL = 30.0
"""Seconds between two signs."""


@contextmanager
def signs_of_life(store: StudyStore, clock: Clock) -> Iterator[None]:
    """While entered, prolong the claims of this process, and set its clock to the time that all have used."""
    if not isinstance(store, SharedStore):
        yield
        return
    ended = threading.Event()

    def give_signs() -> None:
        while not ended.is_set():
            # Whoever needs the database says that it fails; the next sign may get there.
            with suppress(RunError):
                clock.set(store.give_sign())
            ended.wait(INTERVAL)

    thread = threading.Thread(target=give_signs, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
