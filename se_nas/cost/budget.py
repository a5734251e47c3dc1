"""Hard limits on costs, checked before anything is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from se_nas.errors import ConfigError, InfeasibleError, nearest

if TYPE_CHECKING:
    from se_nas.cost.ranges import Range

LABELS = {
    "num_params": "parameters",
    "macs": "MACs",
    "activations": "activations",
    "se_elementwise_ops": "SE element-wise operations",
    "latency_ms": "latency",
}
_COUNT_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
_TIME_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_RELATIVE = "x"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """An upper limit on one cost.

    Attributes:
        cost: num_params, macs, activations, se_elementwise_ops or latency_ms.
        limit: the limit in the cost's unit, or a multiple of the unmodified backbone's cost.
        relative: whether ``limit`` is such a multiple.
    """

    cost: str
    limit: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str, cost: str = "num_params") -> Budget:
        """Read "27M", "4.2G", "31000", "1.05x" (times the unmodified backbone), "6.5ms", "800us" or "0.1s".

        Raises:
            ConfigError: no number above 0, or a unit that the cost has not.
        """
        if cost not in LABELS:
            raise ConfigError(f"cost is {cost!r}; allowed: {', '.join(LABELS)}.{nearest(cost, LABELS)}")
        units = _TIME_UNITS if cost == "latency_ms" else _COUNT_UNITS
        shown = [unit or "no unit" for unit in units] + [f"{_RELATIVE} (times the backbone's)"]
        field = f"limit on {LABELS[cost]} is {text!r}"
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Zµ%]*)\s*", str(text))
        number = float(match[1]) if match else 0.0
        if match is None or not number > 0 or math.isinf(number):
            raise ConfigError(f"{field}; it must be a number above 0 with one of: {', '.join(shown)}.")
        unit = match[2].replace("µ", "u")
        if unit.lower() == _RELATIVE:
            return cls(cost=cost, limit=number, relative=True)
        known = {name.lower(): factor for name, factor in units.items()}
        if unit.lower() not in known:
            given = f"its unit is {match[2]!r}" if unit else "it has no unit"
            raise ConfigError(f"{field}: {given}; allowed: {', '.join(shown)}.")
        return cls(cost=cost, limit=number * known[unit.lower()])

    def absolute(self, baseline: float | None) -> float:
        """The limit in the cost's unit, where the unmodified backbone costs ``baseline``."""
        if not self.relative:
            return self.limit
        if baseline is None:
            raise ConfigError(f"a limit of {self} needs the cost of the unmodified backbone.")
        return self.limit * baseline

    def check(self, value: float, baseline: float | None = None) -> bool:
        """Whether a network of this cost is within the limit; the limit itself is."""
        return value <= self.absolute(baseline)

    def __str__(self) -> str:
        return f"{self.limit:g}x" if self.relative else format_cost(self.cost, self.limit)


def check_budgets(
    budgets: Sequence[Budget], ranges: Mapping[str, Range], baseline: Mapping[str, float]
) -> list[str]:
    """Judge limits against what a space can reach, each for itself.

    Args:
        budgets: the limits.
        ranges: cost → its range over the space.
        baseline: cost → that of the unmodified backbone.

    Returns:
        for every limit that each architecture of the space meets, a line that says so.

    Raises:
        InfeasibleError: nothing in the space meets a limit; the message has the smallest value that would do.
    """
    idle = []
    for budget in budgets:
        reach, own = ranges[budget.cost], baseline.get(budget.cost)
        label = LABELS[budget.cost]
        if not budget.check(reach.minimum, own):
            smallest = _exactly(budget, reach.minimum, own)
            raise InfeasibleError(
                f"no architecture of the space has {label} within {budget};"
                f" the smallest limit that one meets is {smallest}."
            )
        if budget.check(reach.maximum, own):
            least = "" if reach.exact else "as far as is known, "
            idle.append(
                f"the limit of {budget} on {label} is idle: {least}every architecture of the space meets it"
                f" (largest: {_exactly(budget, reach.maximum, own)})."
            )
    return idle


def format_cost(cost: str, value: float) -> str:
    """A cost for people: three significant digits with K, M or G, or milliseconds."""
    if cost == "latency_ms":
        return f"{value:.3g} ms"
    for unit, factor in reversed(_COUNT_UNITS.items()):
        if value >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:g}"


def _exactly(budget: Budget, value: float, baseline: float | None) -> str:
    """A value in the unit of the limit, rounded up so that it works when it is typed."""
    if budget.relative:
        return f"{math.ceil(value / (baseline or value) * 1e4) / 1e4:g}x"
    if budget.cost == "latency_ms":
        return f"{math.ceil(value * 1e4) / 1e4:g}ms"
    return f"{math.ceil(value)}"
