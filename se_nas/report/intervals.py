"""Seed noise: the standard deviation pooled over candidates with repeats, and intervals of means from it.

Three seeds alone give an interval from two degrees of freedom, 4.3 standard errors wide on each side. The
scatter between seeds is a property of data and schedule far more than of one architecture, so it is pooled
over all candidates that were read more than once under the same schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom.
_T975 = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
    *(2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423),
)


def t_quantile_975(dof: int) -> float:
    """97.5 % quantile of Student's t, to 0.001; ``dof`` at least 1."""
    if dof < 1:
        raise ValueError(f"dof is {dof}; it must be at least 1.")
    if dof <= len(_T975):
        return _T975[dof - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviation of one reading and the degrees of freedom that it rests on."""

    sd: float
    dof: int

    @classmethod
    def pooled(cls, groups: Iterable[Sequence[float]]) -> Noise | None:
        """Pooled over groups of repeats; None where no group has two readings."""
        square_sum, dof = 0.0, 0
        for group in groups:
            if len(group) > 1:
                mean = fmean(group)
                square_sum += sum((value - mean) ** 2 for value in group)
                dof += len(group) - 1
        return cls(sd=math.sqrt(square_sum / dof), dof=dof) if dof else None

    @classmethod
    def residual(cls, groups: Iterable[Mapping[int, float]]) -> Noise | None:
        """What is left of a reading after its candidate's level and its seed's level are taken off.

        This is the scatter of paired comparisons: what a seed does to all candidates alike (data order,
        augmentation) cancels in a difference. Each group maps seeds to accuracies; least squares on candidate
        plus seed, so seeds need not be complete. None where candidates share too few seeds to tell.
        """
        repeated = [group for group in groups if len(group) > 1]
        seeds = sorted({seed for group in repeated for seed in group})
        if not repeated or len(seeds) < 2:
            return None
        cells = [
            (row, seeds.index(seed), value)
            for row, group in enumerate(repeated)
            for seed, value in group.items()
        ]
        design = np.zeros((len(cells), len(repeated) + len(seeds)))
        for index, (row, seed, _) in enumerate(cells):
            design[index, row] = design[index, len(repeated) + seed] = 1
        readings = np.array([value for *_, value in cells])
        readings -= readings.mean()
        solution, _, rank, _ = np.linalg.lstsq(design, readings, rcond=None)
        dof = len(cells) - int(rank)
        if dof < 1:
            return None
        return cls(sd=float(np.sqrt(((readings - design @ solution) ** 2).sum() / dof)), dof=dof)

    def half_width(self, count: float) -> float:
        """Half of the 95 % interval of a mean of ``count`` readings."""
        return t_quantile_975(self.dof) * self.sd / math.sqrt(count)


def interval_around(mean: float, half_width: float | None) -> tuple[float, float] | None:
    return None if half_width is None else (mean - half_width, mean + half_width)
