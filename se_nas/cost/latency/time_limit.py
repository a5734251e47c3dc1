"""A time limit shared by the networks of a latency table, building them included.

A measurement takes a least number of timings, whatever they take; on a machine that gets busy, that can be far longer
than was foreseen. Inside ``TimeLimit.enforced``, whatever cannot be interrupted is a ``step``: it is not begun if it is
likely to outlast the limit, judged by the latest steps of its kind.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from se_nas.errors import ConfigError

_REMEMBERED = 20
"""Steps of a kind by which the next is judged; more would give a single delay too much weight."""


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
        self._steps: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))

    @property
    def left(self) -> float:
        """Seconds that are left; negative once the limit has passed."""
        return self._end - self._clock()

    @contextmanager
    def enforced(self) -> Iterator[None]:
        """While entered, ``step`` raises once the limit has passed or would pass during the step."""
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

    def longest(self, kind: str) -> float:
        """The longest of the latest steps of a kind, in seconds; 0 if there was none."""
        return max(self._steps[kind], default=0.0)

    def note(self, kind: str, seconds: float) -> None:
        """Remember how long a step took."""
        self._steps[kind].append(seconds)

    def share(self, least: np.ndarray, weights: np.ndarray, reserve: float = 0.0) -> float:
        """Seconds for the first of the pieces of work that are left, beyond the least that it takes; at least 0.

        Args:
            least: seconds that each piece takes in any case, shape (pieces,).
            weights: parts in which the rest is divided among them, shape (pieces,).
            reserve: seconds to leave unused at the end.
        """
        spare = self.left - reserve - float(least.sum())
        return max(0.0, spare * float(weights[0]) / float(weights.sum()))


_enforced: ContextVar[tuple[TimeLimit, ...]] = ContextVar("enforced", default=())


def time_left() -> float:
    """Seconds until the first limit that is enforced; infinite without one."""
    return min((limit.left for limit in _enforced.get()), default=math.inf)


@contextmanager
def step(kind: str) -> Iterator[None]:
    """A piece of work that cannot be interrupted.

    Raises:
        TimeUpError: it would outlast a limit that is enforced if it took as long as recent steps of its kind.
    """
    limits = _enforced.get()
    if any(limit.left <= limit.longest(kind) for limit in limits):
        raise TimeUpError("the time limit has passed.")
    before = [limit.left for limit in limits]
    yield
    for limit, left in zip(limits, before, strict=True):
        limit.note(kind, left - limit.left)
