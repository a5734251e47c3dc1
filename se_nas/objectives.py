"""The objectives of a search, in one table: everything that a part must know about one stands in its row.

A search trades accuracy against one or two costs. A new cost is one more row here and one axis in ``cost/``
(docs/adding-a-cost.md); configuration, limits, table of trials, report and comparison follow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Literal

_COUNTS = MappingProxyType({"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9})
_CLOSED_FORM = "se_nas.cost.closed_form_axis:ClosedFormAxis"


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A quantity that a front trades.

    Attributes:
        name: in a configuration and on the command line.
        column: its field in a row of the table of trials, unit included.
        direction: "maximize" or "minimize".
        title: in a sentence, in the plural where it is counted.
        unit: in which people read it; values of ``column`` are divided by ``scale`` for it.
        scale: see ``unit``.
        limit_units: units that a limit may be given in, and what one of each is in the unit of ``column``;
            besides these a limit may be a multiple of the unmodified backbone's cost ("1.05x").
        limit_example: a limit as a user would write it, for ``--help``.
        axis: ``module:Class`` of the axis that knows or measures it (`se_nas.cost.axes.CostAxis`); None for
            what a training reads.
        exact: known in closed form for any architecture, so every row has it; otherwise it is measured only if
            it is an objective or limited.
        columns: further fields of a row that the axis fills, beside ``column``, as far as it knows them:
            ``<name>_ratio`` to the unmodified backbone's, ``<name>_interval``, the 95 % interval of that ratio,
            and ``<name>_source``, "measured" or "predicted".
        digits: decimals that people read, in ``unit``.
        definition: how it is counted, as a sentence for the methods section of a paper; empty if the title
            says enough.
    """

    name: str
    column: str
    direction: Literal["maximize", "minimize"]
    title: str
    unit: str
    scale: float = 1.0
    limit_units: Mapping[str, float] = field(default_factory=dict)
    limit_example: str = ""
    axis: str | None = None
    exact: bool = False
    columns: tuple[str, ...] = ()
    digits: int = 3
    definition: str = ""

    @cached_property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """All its columns, each with the part of a reading that it holds: value, ratio, interval or source."""
        found = [part for part in ("ratio", "interval", "source") if f"{self.name}_{part}" in self.columns]
        return ((self.column, "value"), *((f"{self.name}_{part}", part) for part in found))

    @property
    def axis_title(self) -> str:
        """What stands on an axis of a picture."""
        return f"{self.title}, {self.unit}"

    @property
    def sign(self) -> int:
        """1 if more is better, -1 if less is."""
        return 1 if self.direction == "maximize" else -1


ACCURACY = Objective(name="accuracy", column="accuracy", direction="maximize", title="accuracy", unit="%")
LATENCY = Objective(
    name="latency",
    column="latency_ms",
    direction="minimize",
    title="latency",
    unit="ms",
    limit_units=MappingProxyType({"us": 1e-3, "ms": 1.0, "s": 1e3}),
    limit_example="1.05x or 6.5ms",
    axis="se_nas.cost.latency.axis:LatencyAxis",
    columns=("latency_ratio", "latency_interval", "latency_source"),
)
MACS = Objective(
    name="macs",
    column="macs",
    direction="minimize",
    title="multiply-adds",
    unit="G",
    scale=1e9,
    limit_units=_COUNTS,
    limit_example="4.2G",
    axis=_CLOSED_FORM,
    exact=True,
    definition="Multiply-adds are fvcore's count, in which an SE block's mean, gate and product are left out.",
)
PARAMS = Objective(
    name="params",
    column="num_params",
    direction="minimize",
    title="parameters",
    unit="M",
    scale=1e6,
    limit_units=_COUNTS,
    limit_example="27M",
    axis=_CLOSED_FORM,
    exact=True,
)
ACTIVATIONS = Objective(
    name="activations",
    column="activations",
    direction="minimize",
    title="activations",
    unit="M",
    scale=1e6,
    limit_units=_COUNTS,
    limit_example="12M",
    axis=_CLOSED_FORM,
    exact=True,
)
MEMORY = Objective(
    name="memory",
    column="memory_mib",
    direction="minimize",
    title="peak memory",
    unit="MiB",
    limit_units=MappingProxyType({"KiB": 2**-10, "MiB": 1.0, "GiB": 2.0**10}),
    limit_example="1.05x or 64MiB",
    axis="se_nas.cost.memory_axis:MemoryAxis",
    digits=2,
    definition="Peak memory is that of one inference: weights, images and the feature maps alive at a time.",
)

OBJECTIVES: Mapping[str, Objective] = MappingProxyType(
    {objective.name: objective for objective in (ACCURACY, LATENCY, MACS, PARAMS, ACTIVATIONS, MEMORY)}
)
"""Every objective by its name, in the order in which tables show them."""
COSTS: Mapping[str, Objective] = MappingProxyType(
    {name: objective for name, objective in OBJECTIVES.items() if objective.axis is not None}
)
"""The objectives that are costs: known or measured on the network itself, without training it."""


def volume_unit(objectives: Iterable[Objective]) -> float:
    """What a hypervolume is divided by to be read in the units of its objectives."""
    return math.prod(objective.scale for objective in objectives)
