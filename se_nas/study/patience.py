"""Waiting for a server that does not answer now, but has answered before."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from se_nas.errors import RunError
from se_nas.study.database_errors import UnavailableError

T = TypeVar("T")
LONGEST = 1800.0
"""Seconds for which a worker waits for a server that does not answer."""
_LONGEST_PAUSE = 10.0
_TRY_AGAIN = ("40001", "40P01")
"""States of SQL for a transaction that another one got in the way of."""


class Patience:
    """How long a server has not answered, and the pauses between tries.

    Attributes:
        say: is given a line when the server stops answering, and one when it answers again.
    """

    def __init__(self, say: Callable[[str], object] = lambda text: None) -> None:
        self.say = say
        self._away: float | None = None
        self._tries = 0

    def until_done(self, action: Callable[[], T]) -> T:
        """What an action returns, which is tried until the server answers.

        Raises:
            RunError: it has not answered for ``LONGEST``, or refuses.
        """
        while True:
            try:
                found = action()
            except UnavailableError as error:
                self.wait(error)
            else:
                self.answered()
                return found

    def wait(self, error: UnavailableError) -> None:
        """Wait a little for a server that has just failed; the first time, say why.

        Raises:
            RunError: it has not answered for ``LONGEST``.
        """
        if _state(error.__cause__) in _TRY_AGAIN:
            time.sleep(0.1 * random.random())
            return
        if self._away is None:
            self._away = time.monotonic()
            self.say(f"{error} Waiting for it.")
        if time.monotonic() - self._away > LONGEST:
            raise RunError(f"{error} It has not answered for {LONGEST / 60:.0f} minutes.") from error
        time.sleep(min(_LONGEST_PAUSE, 0.2 * 2**self._tries))
        self._tries += 1

    def answered(self) -> None:
        """The server has answered; the next silence is a new one."""
        if self._away is not None:
            self.say("the database is back")
        self._away, self._tries = None, 0


def _state(error: BaseException | None) -> str | None:
    """The state of SQL that the server named."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)
