"""How alike the choices of one parameter are: a correlation that is learned with the rest of the process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Line:
    """A continuous parameter: ``levels`` at equal distances from 0 to 1.

    With ``absent``, one more index after them stands for a point that does not have the parameter.
    """

    levels: int
    absent: bool = False

    def __len__(self) -> int:
        return self.levels + self.absent


Positions = Sequence[Array | Line]


class ChoiceCorrelations:
    """For every parameter the correlation of its choices, and its derivatives by what is learned.

    Choices that have an order are placed on a line at their rank to a learned power, and correlate as a Gaussian
    of their distance. A power below 1 sets the first choice (no SE, the cheapest) apart and brings the others
    together, as diminishing returns do. A learned share is left to what the order does not explain. Choices
    without an order are uncorrelated.

    Three numbers are learned, the same for all parameters so that few readings suffice: the logit of the order's
    share, and the logarithms of the distance's scale and of the power. The levels of a continuous parameter correlate
    as a Gaussian of their distance, each parameter with a scale of its own.

    Args:
        positions: for every parameter, the (n_choices,) positions in [0, 1] of its choices on their order;
            NaN for a choice without a position. A `Line` for a continuous parameter.

    Attributes:
        sizes: how many choices each parameter has.
        ordered: numbers of the parameters whose choices have an order.
        continuous: numbers of the continuous parameters.
    """

    def __init__(self, positions: Positions) -> None:
        self.continuous = [k for k, p in enumerate(positions) if isinstance(p, Line)]
        self._levels = {k: p.levels for k, p in enumerate(positions) if isinstance(p, Line)}
        self.sizes = [len(p) for p in positions]
        # A continuous parameter has no table.
        tabled = [np.zeros(0) if isinstance(p, Line) else p for p in positions]
        self._equal = [np.eye(len(p)) for p in tabled]
        self._ranked = [~np.isnan(p) for p in tabled]
        self._both = [np.outer(known, known) for known in self._ranked]
        # 0 stays 0 to any power; elsewhere the power acts on the logarithm.
        self._positions = [np.where(known, p, 0.0) for p, known in zip(tabled, self._ranked, strict=True)]
        self._logs = [np.log(np.where(p > 0, p, 1.0)) for p in self._positions]
        self.ordered = [k for k, known in enumerate(self._ranked) if len(known) > 2 and known.sum() > 1]

    def gaps(self, k: int, a: Index, b: Index) -> Array:
        """Squares of the distances of indices of the continuous parameter ``k``; infinite if one of two is absent."""
        levels = self._levels[k]
        squares = ((a - b) / (levels - 1)) ** 2
        return np.where((a == levels) == (b == levels), squares, np.inf)

    def tables(self, share: float, scale: float, power: float) -> list[Array]:
        """(n_choices, n_choices) for every parameter. Arguments as learned: a logit and two logarithms."""
        tables = list(self._equal)
        for k in self.ordered:
            smooth, *_ = self._smooth(k, scale, power)
            tables[k] = _logistic(share) * smooth + (1 - _logistic(share)) * self._equal[k]
        return tables

    def slopes(self, k: int, share: float, scale: float, power: float) -> tuple[Array, Array, Array]:
        """Derivatives of the table of the ordered parameter ``k`` by the three arguments."""
        part = _logistic(share)
        smooth, gap, rise = self._smooth(k, scale, power)
        reach = np.exp(-2 * scale)
        return (
            part * (1 - part) * (smooth - self._equal[k]),
            2 * part * reach * smooth * gap**2,
            -2 * part * reach * smooth * gap * rise,
        )

    def _smooth(self, k: int, scale: float, power: float) -> tuple[Array, Array, Array]:
        """The Gaussian of the signed gaps between choices, the gaps, and their derivative by ``power``."""
        exponent = np.exp(power)
        place = np.where(self._positions[k] > 0, np.exp(exponent * self._logs[k]), 0.0)
        climb = exponent * self._logs[k] * place
        gap = place[:, None] - place[None, :]
        near = np.exp(-np.exp(-2 * scale) * gap**2)
        smooth = np.where(self._both[k], near, self._equal[k])
        return smooth, gap, climb[:, None] - climb[None, :]


def _logistic(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))
