"""Costs as functions of a point of the space, for the sampler: known before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from se_nas.space import SearchSpace

Params = Mapping[str, Any]
WidthCost = Callable[[np.ndarray], np.ndarray]
"""Costs of architectures of one position: widths (n, number of sites) → (n,)."""


class KnownCost:
    """One cost of any point of a space; ``batch`` takes many points at once, as ``ParetoSampler`` likes it.

    Args:
        space: the space that the parameters belong to.
        by_position: for every position of the space the cost as a function of widths.
    """

    def __init__(self, space: SearchSpace, by_position: Mapping[str, WidthCost]) -> None:
        self._encoder = Encoder(space)
        self._space = space
        self._by_position = by_position

    def __call__(self, params: Params) -> float:
        return float(self.batch([params])[0])

    def batch(self, points: Sequence[Params]) -> np.ndarray:
        """Costs of many points, float64 of shape (n,)."""
        return costs_of(self._space, self._by_position, self._encoder(points))


def costs_of(space: SearchSpace, by_position: Mapping[str, WidthCost], points: np.ndarray) -> np.ndarray:
    """A cost of many points of a space: index rows (n, number of parameters) → float64 (n,)."""
    widths = space.widths(points)
    values = np.empty(len(points))
    for position, rows in space.rows_by_position(points):
        values[rows] = by_position[position](widths[np.ix_(rows, space.columns(position))])
    return values


class Identity:
    """What makes points equal: the realised widths, as bytes. Two γ that build one network are one."""

    def __init__(self, space: SearchSpace) -> None:
        self._encoder = Encoder(space)
        self._space = space

    def __call__(self, params: Params) -> bytes:
        return self.batch([params])[0]

    def batch(self, points: Sequence[Params]) -> list[bytes]:
        """Identities of many points."""
        return [row.tobytes() for row in self._space.canonical(self._encoder(points))]


class Encoder:
    """Index rows of points that are known to belong to the space."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._index = {
            name: {value: index for index, value in enumerate(values)}
            for name, values in space.choices.items()
        }

    def __call__(self, points: Sequence[Params]) -> np.ndarray:
        return np.array(
            [[index[point[name]] for name, index in self._index.items()] for point in points], dtype=np.int16
        ).reshape(len(points), len(self._index))
