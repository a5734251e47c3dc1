"""A time limit shared by the networks of a latency table, building them included.

A measurement takes a least number of timings, whatever they take; on a machine that gets busy, that can be far longer
than was foreseen. Inside ``TimeLimit.enforced``, every timing asks ``check_time``, and ends with the limit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from se_nas.errors import ConfigError


class TimeUpError(ConfigError):
    """A time limit passed before a measurement was done."""


class TimeLimit:
    """Counts down from its creation.

    Args:
        seconds: for everything.
        clock: seconds that pass.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left; negative once the limit has passed."""
        return self._end - self._clock()

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """While entered, ``check_time`` raises once the limit has passed."""
        token = _enforced.set((*_enforced.get(), self))
        try:
            yield
        finally:
            _enforced.reset(token)

    def timed(self, work: Callable[[], object]) -> float:
        """Seconds that ``work`` takes."""
        began = self._clock()
        work()
        return self._clock() - began

    def share(self, least: np.ndarray, weights: np.ndarray) -> float:
        """Seconds for the first of the pieces of work that are left, beyond the least that it takes; at least 0.

        Args:
            least: seconds that each piece takes in any case, shape (pieces,).
            weights: parts in which the rest is divided among them, shape (pieces,).
        """
        return max(0.0, (self.left - float(least.sum())) * float(weights[0]) / float(weights.sum()))


_enforced: ContextVar[tuple[TimeLimit, ...]] = ContextVar("enforced", default=())


def time_left() -> float:
    """Seconds until the first limit that is enforced; infinite without one."""
    return min((limit.left for limit in _enforced.get()), default=math.inf)


def check_time() -> None:
    """Raise TimeUpError if a limit that is enforced has passed."""
    if time_left() <= 0:
        raise TimeUpError("the time limit has passed.")
