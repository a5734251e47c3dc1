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
        indices = self._encoder(points)
        widths = self._space.widths(indices)
        costs = np.empty(len(points))
        for position, rows in self._encoder.positions(indices):
            columns = self._space.columns(position)
            costs[rows] = self._by_position[position](widths[np.ix_(rows, columns)])
        return costs


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

    def positions(self, indices: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Each position of the space with the rows that have it."""
        names = list(self._space.sites_by_position)
        if len(names) == 1:
            return [(names[0], np.arange(len(indices)))]
        return [(name, np.flatnonzero(indices[:, 0] == number)) for number, name in enumerate(names)]
