"""How a budget of time is divided, and how many epochs a candidate gets from it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

SEARCH_SHARE = 0.6
FINAL_SHARE = 0.3
LATENCY_SHARE = 0.1
CANDIDATES = 20
"""Different architectures that a search should see when the schedule is sized to the budget."""


class Clock:
    """Time spent on a run against its budget; time spent before an interruption counts too.

    Args:
        budget: seconds for everything, or None for no limit.
        spent: seconds that the run had used before this process.
        monotonic: a clock in seconds (given in tests).
    """

    def __init__(
        self, budget: float | None, *, spent: float = 0.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.budget = budget
        self._monotonic = monotonic
        self._start = monotonic() - spent

    @property
    def spent(self) -> float:
        """Seconds used so far."""
        return self._monotonic() - self._start

    @property
    def left(self) -> float:
        """Seconds left for everything; infinite without a budget."""
        return math.inf if self.budget is None else max(0.0, self.budget - self.spent)

    def search_left(self, reserve_finals: bool) -> float:
        """Seconds left for the search: all but the share that final seeds and their latency keep."""
        if self.budget is None:
            return math.inf
        reserved = (FINAL_SHARE if reserve_finals else 0.0) * self.budget
        return max(0.0, self.left - reserved)


def sized_epochs(
    seconds_per_epoch: float, seconds_per_candidate: float, search_seconds: float, candidates: int, most: int
) -> int:
    """Epochs per candidate, so that ``candidates`` of them fit into the time of the search; at least 1.

    Args:
        seconds_per_epoch: of one candidate, training and evaluation.
        seconds_per_candidate: what one costs besides its epochs (building, latency, checkpoints).
        search_seconds: time for all candidates; infinite for no limit.
        candidates: how many should fit.
        most: epochs of the recipe, an upper limit.
    """
    if math.isinf(search_seconds):
        return most
    affordable = (search_seconds / candidates - seconds_per_candidate) / seconds_per_epoch
    return max(1, min(most, math.floor(affordable)))
