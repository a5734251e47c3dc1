"""Time spent on a run against its budget."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from se_nas.study.budget import MARGIN


class Clock:
    """Time spent on a run against its budget; time spent before an interruption counts too.

    Args:
        budget: seconds for everything, or None for no limit.
        spent: seconds that the run had used before this clock began.
        monotonic: a clock in seconds (given in tests).
    """

    def __init__(
        self, budget: float | None, *, spent: float = 0.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.budget = budget
        self._monotonic = monotonic
        self.set(spent)

    def set(self, spent: float) -> None:
        """Count on from so many seconds: other workers have used some too."""
        self._start = self._monotonic() - spent

    @property
    def spent(self) -> float:
        """Seconds used so far."""
        return self._monotonic() - self._start

    @property
    def left(self) -> float:
        """Seconds left for trainings: all but what the report needs; infinite without a budget."""
        return math.inf if self.budget is None else max(0.0, (1 - MARGIN) * self.budget - self.spent)
