"""Costs as axes of a run: what a candidate costs, computed or measured, and what is known beforehand.

An axis belongs to one cost of ``se_nas.objectives.COSTS``, which names its class. A search asks all of its axes
the same questions, so a new cost needs one axis and nothing in the search (docs/adding-a-cost.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from se_nas.architecture import Architecture
from se_nas.cost.settings import LatencySettings
from se_nas.objectives import COSTS, Objective
from se_nas.space import SearchSpace
from se_nas.space.costs import WidthCost


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What axes are prepared from.

    Attributes:
        space: the architectures that can come.
        plain: the backbone as timm makes it, with which measured costs are compared.
        settings: input size, classes, and the conditions of whatever is measured.
        seconds: time for all measurements of the run; None for no limit.
        candidates: how many candidates share that time.
        width: wanted width of the 95 % interval of a latency ratio; 0.01 is one percent of the backbone's latency.
        frozen: for a run that goes on, by name of the cost: its ``conditions`` and ``baseline``, which stay. Empty
            for a new run.
        say: is given what takes time, and what was decided.
        measured: is given how many networks of a table have been measured, of how many.
        packed: whether candidates train side by side in this process, so that all wait while one is measured.
        elsewhere: for costs that are measured on another machine, by name, what prepares their axes.
    """

    space: SearchSpace
    plain: Architecture
    settings: LatencySettings
    seconds: float | None
    candidates: int
    width: float
    frozen: Mapping[str, Mapping[str, Any]]
    say: Callable[[str], object]
    measured: Callable[[int, int], object]
    packed: bool = False
    elsewhere: Mapping[str, Callable[[Objective, Measuring], CostAxis]] = field(default_factory=dict)


class CostAxis(Protocol):
    """One cost of the candidates of a run.

    Attributes:
        objective: the row of ``se_nas.objectives`` that this is the axis of.
        baseline: cost of the unmodified backbone, in the unit of ``objective.column``.
        conditions: what was measured under which conditions, JSON-ready; empty for what is computed. Costs of
            two runs may be compared only if these are equal.
        quiet: entered while something is measured, to keep the other work of this run off the device.
    """

    objective: Objective
    baseline: float
    conditions: Mapping[str, Any]
    quiet: Callable[[], AbstractContextManager[None]]

    @classmethod
    def prepare(cls, objective: Objective, measuring: Measuring) -> CostAxis:
        """Make the axis; measures the backbone unless that is frozen.

        Raises:
            SeNasError: the cost cannot be had under these settings.
            RunError: the conditions are not those of the run that goes on.
        """

    def fields(self, architecture: Architecture, *, measure: bool = False) -> dict[str, Any]:
        """Fields of a candidate's row: ``objective.column`` and ``objective.columns``.

        Args:
            architecture: of the run's backbone, at a position of its space.
            measure: whether a prediction will not do.

        Raises:
            InfeasibleError: the candidate cannot be measured on this machine.
        """

    def by_widths(self) -> Mapping[str, WidthCost] | None:
        """For every position of the space the cost as a function of widths; None if it has to be measured."""

    def remember(self, row: Mapping[str, Any]) -> None:
        """Take the fields of an earlier trial of this run instead of measuring its architecture again."""

    def adopt(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row of another run under the same conditions: its fields as they stand on this axis."""


def prepare_axes(names: Iterable[str], measuring: Measuring) -> dict[str, CostAxis]:
    """The axes of a run by name: every exact cost, and those of ``names`` that are measured.

    Raises:
        SeNasError: as ``CostAxis.prepare``.
    """
    wanted = set(names)
    axes: dict[str, CostAxis] = {}
    for name, objective in COSTS.items():
        if objective.exact or name in wanted:
            if name in measuring.elsewhere:
                axes[name] = measuring.elsewhere[name](objective, measuring)
                continue
            assert objective.axis is not None
            module, _, attribute = objective.axis.partition(":")
            kind: type[CostAxis] = getattr(importlib.import_module(module), attribute)
            axes[name] = kind.prepare(objective, measuring)
    return axes


def value_of(axis: CostAxis, architecture: Architecture) -> float:
    """The cost of an architecture, predicted where it can be."""
    return float(axis.fields(architecture)[axis.objective.column])
