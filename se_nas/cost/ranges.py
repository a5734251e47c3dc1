"""The range of a cost over a search space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from se_nas.cost.latency.time_limit import step
from se_nas.space import SearchSpace
from se_nas.space.costs import WidthCost, costs_of

_MOST_ENUMERATED = 200_000
_SAMPLES = 20_000
_STARTS = 16


@dataclass(frozen=True, kw_only=True)
class Range:
    """Distribution of a cost over the distinct architectures of a space, each with equal weight.

    Attributes:
        minimum, lower_quartile, median, upper_quartile, maximum: in the cost's unit.
        exact: every architecture was counted. Else quartiles are those of 20,000 random ones, and the ends
            come from improving the best of them, one parameter at a time, until none improves.
    """

    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float
    exact: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def ranges_over(
    space: SearchSpace, costs: Mapping[str, Mapping[str, WidthCost]], *, seed: int = 0
) -> dict[str, Range]:
    """Range of each cost over a space.

    Args:
        space: the space.
        costs: name of the cost → position → the cost as a function of widths.
        seed: of the sampling, for spaces of more than 200,000 architectures.

    Raises:
        TimeUpError: a time limit that is enforced has passed.
    """
    exact = space.size <= _MOST_ENUMERATED
    generator = np.random.default_rng(seed)
    points = space.table(_MOST_ENUMERATED) if exact else space.sample_indices(generator, _SAMPLES)
    ranges = {}
    for name, by_position in costs.items():
        with step("costs"):
            values = costs_of(space, by_position, points)
        ends = [float(values.min()), float(values.max())]
        if not exact:
            order = np.argsort(values)
            ends = [
                _descended(space, by_position, points[order[:_STARTS]], 1.0),
                -_descended(space, by_position, points[order[-_STARTS:]], -1.0),
            ]
        quartiles = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        ranges[name] = Range(
            minimum=ends[0],
            lower_quartile=quartiles[0],
            median=quartiles[1],
            upper_quartile=quartiles[2],
            maximum=ends[1],
            exact=exact,
        )
    return ranges


def _descended(
    space: SearchSpace, by_position: Mapping[str, WidthCost], starts: np.ndarray, sign: float
) -> float:
    """Least ``sign`` · cost over all points that differ in one parameter from the best so far, repeated."""
    sizes = [len(choices) for choices in space.choices.values()]
    steps = [(column, choice) for column, size in enumerate(sizes) for choice in range(size)]
    lowest = np.inf
    for start in starts:
        best, value = start, np.inf
        while True:
            neighbours = np.repeat(best[None], len(steps), axis=0)
            for row, (column, choice) in enumerate(steps):
                neighbours[row, column] = choice
            with step("descent"):
                values = sign * costs_of(space, by_position, neighbours)
            if values.min() >= value:
                break
            best, value = neighbours[values.argmin()], float(values.min())
        lowest = min(lowest, value)
    return float(lowest)
