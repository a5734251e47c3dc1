"""Hard limits of a search on costs, checked before a candidate is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from se_nas.architecture import Architecture
from se_nas.cost import Budget, check_budgets, ranges_over
from se_nas.errors import InfeasibleError
from se_nas.space.costs import KnownCost

if TYPE_CHECKING:
    from se_nas.study.config import SearchConfig
    from se_nas.study.plan import Plan

LATENCY = "latency_ms"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper limits by cost; empty for none."""

    budgets: tuple[Budget, ...] = ()

    @classmethod
    def parse(cls, config: SearchConfig) -> Limits:
        """The limits of a configuration; ConfigError for one without a known unit."""
        given = {"num_params": config.max_params, "macs": config.max_macs, LATENCY: config.max_latency}
        return cls(
            budgets=tuple(Budget.parse(text, cost) for cost, text in given.items() if text is not None)
        )

    def excess(self, plan: Plan, architecture: Architecture) -> dict[str, float]:
        """By cost, how far an architecture is above its limit, as a share of it; at most 0 where it meets it.

        Latency is measured where no table predicts it, and only if the other limits are met.
        """
        cost = plan.cost_model(architecture).cost(architecture.widths)
        found: dict[str, float] = {}
        for budget in sorted(self.budgets, key=lambda budget: budget.cost == LATENCY):
            if budget.cost == LATENCY and any(value > 0 for value in found.values()):
                break
            try:
                value = (
                    self._latency(plan, architecture)
                    if budget.cost == LATENCY
                    else getattr(cost, budget.cost)
                )
            except InfeasibleError:
                # It cannot even be measured here; the others can.
                found[budget.cost] = 1.0
                break
            limit = budget.absolute(_baseline(plan, budget.cost))
            found[budget.cost] = float((value - limit) / limit)
        return found

    def allow(self, plan: Plan, architecture: Architecture) -> bool:
        """Whether an architecture meets every limit."""
        return all(value <= 0 for value in self.excess(plan, architecture).values())

    def feasible(self, plan: Plan) -> Feasible | None:
        """What a sampler can know of the limits without measuring; None where that is nothing."""
        known = []
        for budget in self.budgets:
            name = "latency" if budget.cost == LATENCY else budget.cost
            costs = plan.width_costs(name)
            if costs is not None:
                known.append((KnownCost(plan.space, costs), budget.absolute(_baseline(plan, budget.cost))))
        return Feasible(known) if known else None

    def check_space(self, plan: Plan) -> list[str]:
        """Judge the limits against the space; returns what the user should know.

        Raises:
            InfeasibleError: nothing in the space meets a limit; the message has the smallest that would do.
        """
        known = {}
        for budget in self.budgets:
            costs = plan.width_costs("latency" if budget.cost == LATENCY else budget.cost)
            if costs is not None:
                known[budget.cost] = costs
        notes = []
        if known:
            exact = [budget for budget in self.budgets if budget.cost in known]
            baseline = {name: _baseline(plan, name) for name in known}
            notes += check_budgets(exact, ranges_over(plan.space, known), baseline)
        for budget in self.budgets:
            if budget.cost == LATENCY and LATENCY not in known:
                notes += self._check_latency(plan, budget)
        return notes

    def _check_latency(self, plan: Plan, budget: Budget) -> list[str]:
        """Without a table: no gate at all is the fastest there is, the dearest baseline stands for the slowest."""
        baseline = _baseline(plan, LATENCY)
        fastest = plan.baselines["plain"]
        least = self._latency(plan, fastest)
        if not budget.check(least, baseline) and plan.space.params(fastest) is not None:
            value = f"{least / baseline:.4f}x" if budget.relative else f"{least:.4g}ms"
            raise InfeasibleError(
                f"no architecture of the space has a latency within {budget}: the network without SE takes {value}."
            )
        slowest = max(plan.baselines.values(), key=lambda architecture: sum(architecture.widths))
        if budget.check(1.5 * self._latency(plan, slowest) - 0.5 * baseline, baseline):
            return [
                f"the limit of {budget} on latency is probably idle: {slowest.describe()} is well within it."
            ]
        return []

    def _latency(self, plan: Plan, architecture: Architecture) -> float:
        return float(plan.latency_axis.fields(architecture)["latency_ms"])


class Feasible:
    """Whether points of a space meet limits on known costs, one by one or in bulk."""

    def __init__(self, limits: Sequence[tuple[KnownCost, float]]) -> None:
        self._limits = limits

    def __call__(self, params: Mapping[str, Any]) -> bool:
        return bool(self.batch([params])[0])

    def batch(self, points: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Booleans of shape (n,)."""
        return np.all([cost.batch(points) <= limit for cost, limit in self._limits], axis=0)


def _baseline(plan: Plan, cost: str) -> float:
    if cost == LATENCY:
        return plan.latency_axis.baseline_ms
    return float(getattr(plan.cost_model(plan.plain).plain, cost))
