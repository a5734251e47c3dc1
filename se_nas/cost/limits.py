"""Hard limits on costs, checked before anything is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from se_nas.errors import ConfigError, InfeasibleError, not_allowed
from se_nas.objectives import COSTS, Objective

if TYPE_CHECKING:
    from se_nas.cost.ranges import Range

_RELATIVE = "x"


@dataclass(frozen=True, kw_only=True)
class Limit:
    """An upper limit on one cost.

    Attributes:
        objective: the cost that is limited.
        value: the limit in the unit of ``objective.column``, or a multiple of the unmodified backbone's cost.
        relative: whether ``value`` is such a multiple.
    """

    objective: Objective
    value: float
    relative: bool = False

    @classmethod
    def parse(cls, text: str, name: str) -> Limit:
        """Read a limit on the cost ``name``, such as "27M", "4.2G", "31000", "6.5ms" or "800us".

        "1.05x" is a multiple of the unmodified backbone's cost, for any cost.

        Raises:
            ConfigError: not a number above 0, or a unit that the cost does not have.
        """
        if name not in COSTS:
            raise ConfigError(not_allowed("cost", name, COSTS))
        objective = COSTS[name]
        units = objective.limit_units
        shown = [unit or "no unit" for unit in units] + [f"{_RELATIVE} (times the backbone's)"]
        field = f"limit on {objective.title} is {text!r}"
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Zµ%]*)\s*", str(text))
        number = float(match[1]) if match else 0.0
        if match is None or not number > 0 or math.isinf(number):
            raise ConfigError(f"{field}; it must be a number above 0 with one of: {', '.join(shown)}.")
        unit = match[2].replace("µ", "u")
        if unit.lower() == _RELATIVE:
            return cls(objective=objective, value=number, relative=True)
        known = {name.lower(): factor for name, factor in units.items()}
        if unit.lower() not in known:
            given = f"its unit is {match[2]!r}" if unit else "it has no unit"
            raise ConfigError(f"{field}: {given}; allowed: {', '.join(shown)}.")
        return cls(objective=objective, value=number * known[unit.lower()])

    def absolute(self, baseline: float | None) -> float:
        """The limit in the cost's unit, if the unmodified backbone costs ``baseline``."""
        if not self.relative:
            return self.value
        if baseline is None:
            raise ConfigError(f"a limit of {self} needs the cost of the unmodified backbone.")
        return self.value * baseline

    def allows(self, cost: float, baseline: float | None = None) -> bool:
        """Whether a network of this cost is within the limit; the limit itself is."""
        return cost <= self.absolute(baseline)

    def __str__(self) -> str:
        return f"{self.value:g}x" if self.relative else format_cost(self.objective, self.value)


def check_limits(
    limits: Sequence[Limit], ranges: Mapping[str, Range], baseline: Mapping[str, float]
) -> list[str]:
    """Check each limit against what a space can reach.

    Args:
        limits: the limits.
        ranges: name of the cost → its range over the space.
        baseline: name of the cost → that of the unmodified backbone.

    Returns:
        One line for every limit that excludes nothing.

    Raises:
        InfeasibleError: nothing in the space meets a limit; the message has the smallest value that would do.
    """
    idle = []
    for limit in limits:
        name, title = limit.objective.name, limit.objective.title
        reach, own = ranges[name], baseline.get(name)
        if not limit.allows(reach.minimum, own):
            raise InfeasibleError(
                f"no architecture of the space has {title} within {limit}; the lowest limit that one meets is"
                f" {_exactly(limit, reach.minimum, own)}."
            )
        if limit.allows(reach.maximum, own):
            known = "" if reach.exact else "as far as is known, "
            idle.append(
                f"the limit of {limit} on {title} has no effect: {known}every architecture of the space meets it"
                f" (largest: {_exactly(limit, reach.maximum, own)})."
            )
    return idle


def format_cost(objective: Objective, value: float) -> str:
    """A cost for people: counts with four significant digits and K, M or G, others with three and their unit."""
    units = objective.limit_units
    if "" not in units:
        return f"{value:.3g} {_base_unit(objective)}"
    for unit, factor in sorted(units.items(), key=lambda item: -item[1]):
        if value >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:g}"


def _base_unit(objective: Objective) -> str:
    """The name of the unit that the column itself is in."""
    return next(unit for unit, factor in objective.limit_units.items() if factor == 1.0)


def _exactly(limit: Limit, value: float, baseline: float | None) -> str:
    """A value in the unit of the limit, rounded up so that it works when it is typed."""
    if limit.relative:
        return f"{math.ceil(value / (baseline or value) * 1e4) / 1e4:g}x"
    if "" in limit.objective.limit_units:
        return f"{math.ceil(value)}"
    return f"{math.ceil(value * 1e4) / 1e4:g}{_base_unit(limit.objective)}"
