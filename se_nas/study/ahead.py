"""The next suggestion, made in a thread while candidates train.

In a pack one thread launches the steps of all places, so while it asks the sampler, every place waits. With one
candidate at a time there is nothing to gain: its result is what the next suggestion is made from.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from se_nas.study.storage import StudyStore
from se_nas.study.suggestions import Again, Found, Suggestions


class Ahead:
    """``Suggestions``, of which one at a time may be made ahead.

    For the sampler, candidates that train meanwhile are pending. What was made and not taken is forgotten at the
    end: nothing of it has been stored.

    Args:
        suggestions: makes them. Nothing else may ask the study for a trial.
        store: the study.
        threaded: whether any is made ahead.
    """

    def __init__(self, suggestions: Suggestions, store: StudyStore, *, threaded: bool) -> None:
        self._suggestions, self._store = suggestions, store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="suggestion") if threaded else None
        self._made: Future[Found | Again] | None = None

    def prepare(self) -> None:
        """Begin with the next one. The last one that was taken has to be stored by now: numbers have no gaps."""
        if self._thread is not None and self._made is None:
            self._made = self._thread.submit(self._suggestions.next)

    @property
    def ready(self) -> bool:
        """Whether ``next`` has nobody to wait for."""
        return self._made is None or self._made.done()

    def next(self) -> Found | Again:
        """As ``Suggestions.next``."""
        if self._made is None:
            return self._suggestions.next()
        made, self._made = self._made, None
        return made.result()

    def close(self) -> None:
        """Wait for the thread, forget what was not taken, and end the sampler's process."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._store.forget_proposals()
        self._suggestions.close()
