"""What fits into a budget of time: epochs, candidates and final trainings. Arithmetic on measured times only."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

MARGIN = 0.02
"""Share of the budget that is kept for writing the report."""
LATENCY_SHARE = 0.1
USUAL = 20
"""Candidates that a search should see before they train for more epochs."""
MOST = 1_000_000
"""Candidates that nobody waits for."""
ENOUGH = 100
"""Candidates beyond which time goes into longer schedules than the recipe's."""
LONGEST = 10
"""How many times the recipe's epochs a schedule may have."""
FEW, FEWEST = 8, 2
"""Candidates below which a search says little, and below which it is refused."""
MIN_SEEDS = 2
"""Readings that a mean needs before it has an interval."""
BEST = (3, 2)
"""Candidates besides the plain backbone that get final seeds in any case: usually, and with few candidates."""
FINALISTS, USUAL_SEEDS = 1 / 6, 3
"""Share of the candidates for whose seeds there is time, each counted with so many seeds at most."""
BUILD_SECONDS = 1.5
"""What a candidate costs besides its epochs: building, evaluation of costs, writing."""
SLACK = 1.1
"""Final trainings may last this much longer than those of the search did."""


@dataclass(frozen=True, kw_only=True)
class Division:
    """How time is divided between the search and the final seeds.

    All trainings of a run take equally long, and as many run at a time as there are places.

    Attributes:
        final_seeds: seeds that a finalist is to get; 0 for no final phase.
        places: trainings at a time.
        most: candidates that there can be.
    """

    final_seeds: int
    places: int = 1
    most: int = MOST

    def final_trainings(self, candidates: int) -> int:
        """Trainings of the final phase that time is kept for, so that its front need not be provisional.

        Two candidates need no such time: they come before everything else.
        """
        if candidates <= FEWEST:
            return 0
        best = BEST[candidates < FEW]
        least = min(self.final_seeds, MIN_SEEDS) * min(candidates, 1 + best)
        return max(least, round(FINALISTS * min(self.final_seeds, USUAL_SEEDS) * candidates))

    def seconds(self, candidates: int, each: float, *, done: int = 0) -> float:
        """Time for the candidates that are not done yet and the final trainings of all.

        Args:
            candidates: of the whole search.
            each: seconds of one training while all places are taken.
            done: candidates that are done.
        """
        rounds = math.ceil((candidates - done) / self.places)
        return each * (rounds + SLACK * math.ceil(self.final_trainings(candidates) / self.places))

    def candidates(self, seconds: float, each: float, *, done: int = 0) -> int:
        """The most candidates, those done included, that fit with their final trainings; ``most`` at most."""
        totals = range(done, max(done, self.most) + 1)
        fitting = bisect_right(totals, seconds, key=lambda total: self.seconds(total, each, done=done))
        return done + max(0, fitting - 1)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """A budget of time, and what trainings take of it on this machine.

    Attributes:
        budget: seconds for everything.
        spent: seconds of it that are gone when trainings begin.
        measures: whether a cost is measured, for which ``LATENCY_SHARE`` of the budget is kept.
        epoch: seconds of the device for one epoch of one candidate.
        overhead: seconds for a candidate besides its epochs.
        division: how what is left is divided.
    """

    budget: float
    spent: float
    measures: bool
    epoch: float
    overhead: float
    division: Division

    @property
    def latency_seconds(self) -> float:
        """Time for measurements of costs."""
        return LATENCY_SHARE * self.budget if self.measures else 0.0

    @property
    def training_seconds(self) -> float:
        """Time for all trainings."""
        return max(0.0, (1 - MARGIN) * self.budget - self.latency_seconds - self.spent)

    def each(self, epochs: int) -> float:
        """Seconds of a training of so many epochs while all places are taken."""
        return self.division.places * (epochs * self.epoch + self.overhead)

    def candidates(self, epochs: int) -> int:
        """Candidates of so many epochs that fit."""
        return self.division.candidates(self.training_seconds, self.each(epochs))

    def needed(self, candidates: int, epochs: int, *, done: int = 0) -> float:
        """The budget in seconds that has time for so many candidates, with those done, and their final trainings."""
        share = 1 - MARGIN - (LATENCY_SHARE if self.measures else 0.0)
        return (self.division.seconds(candidates, self.each(epochs), done=done) + self.spent) / share

    def epochs(self, usual: int, wanted: int) -> int:
        """Epochs of a candidate.

        As many as leave time for the candidates that are wanted, and at most the usual ones; more than these only
        if ``ENOUGH`` candidates, or all that there can be, have time for them.
        """
        longer = self._longest(LONGEST * usual, min(ENOUGH, self.division.most))
        return longer if longer > usual else self._longest(usual, min(wanted, self.division.most))

    def _longest(self, most: int, wanted: int) -> int:
        """The most epochs with which so many candidates fit; 1 if there are none."""
        return max(1, bisect_right(range(1, most + 1), -wanted, key=lambda epochs: -self.candidates(epochs)))
