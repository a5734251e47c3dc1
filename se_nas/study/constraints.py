"""Hard limits of a search on costs, checked before a candidate is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from se_nas.architecture import Architecture
from se_nas.cost import Limit, check_limits, ranges_over
from se_nas.cost.axes import CostAxis, value_of
from se_nas.errors import InfeasibleError
from se_nas.space import SearchSpace
from se_nas.space.costs import KnownCost

SLOWEST_MARGIN = 0.5
"""How much further than the most expensive baseline a space may reach on a measured cost, as a share of what that
baseline adds to the backbone."""


class Constraints:
    """The limits of a run, judged on its axes.

    Args:
        space: what is searched.
        axes: the costs of the run by name; every limited one is there.
        limits: upper limits, each on one cost.
        baselines: the run's baselines by name, for costs that are only known once measured.
    """

    def __init__(
        self,
        space: SearchSpace,
        axes: Mapping[str, CostAxis],
        limits: Sequence[Limit],
        baselines: Mapping[str, Architecture],
    ) -> None:
        self._space, self._axes, self._baselines = space, axes, baselines
        # What has to be measured comes last: mostly it need not be, because another limit is broken.
        self._limits = sorted(limits, key=lambda limit: not limit.objective.exact)

    def excess(self, architecture: Architecture) -> dict[str, float]:
        """By cost, how far an architecture is above its limit, as a share of it; at most 0 if it meets it.

        A measured cost is only looked at if the limits before it are met.
        """
        found: dict[str, float] = {}
        for limit in self._limits:
            column = limit.objective.column
            if not limit.objective.exact and any(value > 0 for value in found.values()):
                break
            axis = self._axis(limit)
            try:
                value = value_of(axis, architecture)
            except InfeasibleError:
                # It cannot even be measured here; others can.
                found[column] = 1.0
                break
            most = limit.absolute(axis.baseline)
            found[column] = (value - most) / most
        return found

    def allow(self, architecture: Architecture) -> bool:
        """Whether an architecture meets every limit."""
        return all(value <= 0 for value in self.excess(architecture).values())

    def feasible(self) -> Feasible | None:
        """What a sampler can know of the limits without measuring; None if that is nothing."""
        known = []
        for limit in self._limits:
            axis = self._axis(limit)
            costs = axis.by_widths()
            if costs is not None:
                known.append((KnownCost(self._space, costs), limit.absolute(axis.baseline)))
        return Feasible(known) if known else None

    @property
    def measured(self) -> bool:
        """Whether judging an architecture takes the device."""
        return any(self._axis(limit).by_widths() is None for limit in self._limits)

    def check(self) -> list[str]:
        """Judge the limits against the space; returns what the user should know.

        Raises:
            InfeasibleError: nothing in the space meets a limit; the message has the smallest that would do.
        """
        known, unknown = {}, []
        for limit in self._limits:
            costs = self._axis(limit).by_widths()
            if costs is None:
                unknown.append(limit)
            else:
                known[limit.objective.name] = costs
        notes = []
        if known:
            computed = [limit for limit in self._limits if limit.objective.name in known]
            baseline = {name: self._axes[name].baseline for name in known}
            notes += check_limits(computed, ranges_over(self._space, known), baseline)
        for limit in unknown:
            notes += self._check_measured(limit)
        return notes

    def _check_measured(self, limit: Limit) -> list[str]:
        """No gate at all is the cheapest there is, and the most expensive baseline stands for the worst."""
        axis, title = self._axis(limit), limit.objective.title
        cheapest = self._baselines["plain"]
        least = value_of(axis, cheapest)
        if not limit.allows(least, axis.baseline) and self._space.params(cheapest) is not None:
            value = (
                f"{least / axis.baseline:.4f}x" if limit.relative else f"{least:.4g}{limit.objective.unit}"
            )
            raise InfeasibleError(
                f"no architecture of the space has {title} within {limit}: the network without SE has {value}."
            )
        worst = max(self._baselines.values(), key=lambda architecture: sum(architecture.widths))
        added = value_of(axis, worst) - axis.baseline
        if limit.allows(axis.baseline + (1 + SLOWEST_MARGIN) * added, axis.baseline):
            return [
                f"the limit of {limit} on {title} probably has no effect: {worst.describe()} is well within it."
            ]
        return []

    def _axis(self, limit: Limit) -> CostAxis:
        return self._axes[limit.objective.name]


class Feasible:
    """Whether points of a space meet limits on known costs, one by one or in bulk."""

    def __init__(self, limits: Sequence[tuple[KnownCost, float]]) -> None:
        self._limits = limits

    def __call__(self, params: Mapping[str, Any]) -> bool:
        return bool(self.batch([params])[0])

    def batch(self, points: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Booleans of shape (n,)."""
        return np.all([cost.batch(points) <= limit for cost, limit in self._limits], axis=0)
