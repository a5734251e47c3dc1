"""The values of a continuous parameter, as so many levels that nothing tells them from a continuum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

LEVELS = 2**16 + 1


@dataclass(frozen=True)
class Interval(Sequence[float]):
    """From ``low`` to ``high`` in equal steps, of the logarithm if ``log``."""

    low: float
    high: float
    log: bool = False

    def __len__(self) -> int:
        return LEVELS

    @overload
    def __getitem__(self, level: int) -> float: ...
    @overload
    def __getitem__(self, level: slice) -> list[float]: ...
    def __getitem__(self, level: int | slice) -> float | list[float]:
        if isinstance(level, slice):
            return [self[i] for i in range(*level.indices(LEVELS))]
        if not -LEVELS <= level < LEVELS:
            raise IndexError(level)
        share = (level % LEVELS) / (LEVELS - 1)
        if self.log:
            value = math.exp((1 - share) * math.log(self.low) + share * math.log(self.high))
        else:
            value = (1 - share) * self.low + share * self.high
        return min(max(value, self.low), self.high)

    def nearest(self, value: float) -> int | None:
        """The level next to ``value``; None if it is outside."""
        if not self.low <= value <= self.high:
            return None
        if self.log:
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            # Halves, so that the width of the widest range is finite.
            share = (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return min(max(round(share * (LEVELS - 1)), 0), LEVELS - 1)
