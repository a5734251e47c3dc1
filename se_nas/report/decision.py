"""A decision after a run, and the statistics behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from se_nas.pareto import SeedModel, t_quantile_975
from se_nas.report.candidates import Candidate

USE, KEEP, OPEN = "use", "keep", "open"
RESOLUTION = 1.0
"""A gain in points that is worth knowing about: ``more_seeds`` is for this one."""
_Z80 = 0.841621  # 80 % quantile of the standard normal
_MOST_SEEDS = 1000
_DRAWS = 20_000


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The verdict of a run. Terminal, page and JSON all show this one.

    A gain counts as significant if its interval excludes 0 at 95 % confidence for all comparisons with the
    plain backbone together (Dunnett's test), because the best of many is best partly by luck.

    Attributes:
        choice: "use" a candidate, "keep" the plain backbone, or "open" if the run cannot say.
        candidate: the candidate to use, which is the plain backbone if that is kept; None if open.
        headline: the decision in one sentence.
        details: what it rests on, in a few sentences; may be empty.
        comparisons: number of candidates that were compared with the plain backbone.
        widening: how many times wider than a single comparison's the intervals must be to hold for all.
        more_seeds: additional seeds for each of the two networks until a true difference of ``RESOLUTION``
            points would be significant with 80 % probability, at 95 % confidence for this one comparison; 0 if
            there are enough; None if that is unknown or no number of seeds suffices.
    """

    choice: str
    candidate: Candidate | None = None
    headline: str
    details: str = ""
    comparisons: int = 0
    widening: float | None = None
    more_seeds: int | None = None

    @property
    def text(self) -> str:
        return f"{self.headline} {self.details}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the candidate by its key."""
        return {
            "choice": self.choice,
            "key": None if self.candidate is None else self.candidate.key,
            "headline": self.headline,
            "details": self.details,
            "comparisons": self.comparisons,
            "widening": self.widening,
            "more_seeds": self.more_seeds,
        }


def simultaneous(noise: SeedModel, control: int, others: list[int]) -> float:
    """How many times wider 95 % intervals of differences must be to hold for all comparisons with one control.

    Dunnett's test (1955), two-sided, for any covariance: the quantile is taken from joint draws.
    """
    if len(others) < 2:
        return 1.0
    drawn = noise.draw(np.random.default_rng(0), _DRAWS)
    errors = drawn[:, others] - drawn[:, [control]] - (noise.mean[others] - noise.mean[control])
    widths = np.array([noise.difference(place, control)[1] for place in others])
    known = widths > 0
    if not known.any():
        return 1.0
    largest = np.abs(errors[:, known] / widths[known]).max(axis=1)
    return max(float(np.quantile(largest, 0.95)), 1.0)


def seeds_needed(noise: SeedModel, i: int, j: int, *, now: int) -> int | None:
    """Additional seeds of both candidates until a difference of ``RESOLUTION`` would probably be significant.

    With n shared seeds the difference has the variance 2 sd² / n plus that of the choice of validation images,
    which no seed reduces. Degrees of freedom grow by one for each seed.
    """
    image = noise.image_covariance
    images = max(float(image[i, i] + image[j, j] - 2 * image[i, j]), 0.0)
    for total in range(max(now, 1), _MOST_SEEDS + 1):
        error = math.sqrt(2 * noise.sd**2 / total + images)
        if (t_quantile_975(noise.dof + total - now) + _Z80) * error <= RESOLUTION:
            return total - now
    return None
