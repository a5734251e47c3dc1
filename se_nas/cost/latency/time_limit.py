"""A time limit shared by the networks of a latency table, building them included."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


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
